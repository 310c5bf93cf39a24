"""Tiny models with the files, inputs and outputs of real ones, made on the spot: CLIP, SigLIP 2 and jina's ONNX export.

Their weights are random, so their vectors mean nothing; but unlike contents have clearly unlike vectors, since the
weights are large enough for a content to show, which those of a fresh `transformers` model are not. The same arguments
give the same weights. Tokenizers work byte by byte and take any language.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from transformers import PreTrainedModel

BOS, PAD, EOS, UNK = "<s>", "<pad>", "</s>", "<unk>"
"""Special tokens of XLM-RoBERTa, whose ids are 0, 1, 2 and 3."""


def tiny_clip(
    folder: Path, *, image_size: int = 64, width: int = 64, layers: int = 2, dimension: int = 1024, seed: int = 0
) -> Path:
    """Save a CLIP checkpoint that `AutoModel` and `AutoProcessor` load, and return its folder.

    Args:
        folder: Made if it does not exist.
        image_size: Edge of the image in pixels, a multiple of 16.
        width: Numbers of a hidden state, a multiple of 16; sets the cost of a forward pass, with `layers`.
        layers: Layers of each tower.
        dimension: Numbers of a vector.
        seed: Other weights for another seed.
    """
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPProcessor, CLIPTokenizer
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    letters = list(bytes_to_unicode().values())
    tokens = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    tokenizer = CLIPTokenizer(vocab={token: number for number, token in enumerate(tokens)}, merges=[])
    tokenizer.model_max_length = 77
    tower = {"hidden_size": width, "intermediate_size": 2 * width, "num_hidden_layers": layers}
    config = CLIPConfig(
        text_config=tower
        | {
            "num_attention_heads": width // 16,
            "vocab_size": len(tokenizer),
            "max_position_embeddings": 77,
            # The defaults are those of CLIP's own vocabulary, and would break the pooling.
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        vision_config=tower | {"num_attention_heads": width // 16, "image_size": image_size, "patch_size": 16},
        projection_dim=dimension,
    )
    edges = {"height": image_size, "width": image_size}
    image_processor = CLIPImageProcessorPil(size={"shortest_edge": image_size}, crop_size=edges)
    _save(CLIPModel, config, CLIPProcessor(image_processor=image_processor, tokenizer=tokenizer), folder, seed)
    return folder


def tiny_siglip(folder: Path, *, image_size: int = 64, width: int = 64, layers: int = 2, seed: int = 0) -> Path:
    """Save a SigLIP 2 checkpoint of fixed resolution, and return its folder.

    As the published ones it is of model type `siglip` with a Gemma tokenizer, and its vectors have `width` numbers.
    """
    from transformers import SiglipConfig, SiglipImageProcessorPil, SiglipModel, SiglipProcessor

    tokenizer = _siglip_tokenizer("GemmaTokenizer")
    tower = {
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": width // 16,
    }
    config = SiglipConfig(
        text_config=tower | _siglip_text(tokenizer, width),
        vision_config=tower | {"image_size": image_size, "patch_size": 16},
    )
    image_processor = SiglipImageProcessorPil(size={"height": image_size, "width": image_size})
    _save(SiglipModel, config, SiglipProcessor(image_processor=image_processor, tokenizer=tokenizer), folder, seed)
    return folder


def tiny_naflex(folder: Path, *, patches: int = 16, width: int = 64, layers: int = 2, seed: int = 0) -> Path:
    """Save a SigLIP 2 checkpoint of variable aspect (NaFlex, model type `siglip2`), and return its folder."""
    from transformers import Siglip2Config, Siglip2ImageProcessorPil, Siglip2Model, Siglip2Processor

    tokenizer = _siglip_tokenizer("Siglip2Tokenizer")
    tower = {
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": width // 16,
    }
    config = Siglip2Config(
        text_config=tower | _siglip_text(tokenizer, width),
        vision_config=tower | {"num_patches": patches, "patch_size": 16},
    )
    image_processor = Siglip2ImageProcessorPil(patch_size=16, max_num_patches=patches)
    _save(Siglip2Model, config, Siglip2Processor(image_processor=image_processor, tokenizer=tokenizer), folder, seed)
    return folder


def tiny_jina(folder: Path, *, image_size: int = 512, dimension: int = 1024, seed: int = 0) -> Path:
    """Save an ONNX graph with the inputs, outputs and file names of jina-clip-v2's export, and return its folder.

    The text tower averages random token vectors, the image tower projects the means of an 8 x 8 grid. As in the real
    graph, padding (id 1) is masked inside, and both inputs are needed whichever output is asked for. There is a full
    file, one in fp16 with inputs and outputs in float32, and one quantised as the real one.
    """
    import onnx
    from onnxruntime.quantization import quantize_dynamic

    rng = np.random.default_rng(seed)
    vocabulary = [BOS, PAD, EOS, UNK, *_bytes()]
    weights = {
        "tokens": rng.standard_normal((len(vocabulary), dimension)),
        "positions": rng.uniform(0, 2, (512, 1)),
        "grid": rng.standard_normal((8 * 8 * 3, dimension)),
    }
    files = folder / "onnx"
    files.mkdir(parents=True, exist_ok=True)
    for name, dtype in (("model", np.float32), ("model_fp16", np.float16)):
        typed = {key: value.astype(dtype) for key, value in weights.items()}
        onnx.save(_jina_graph(typed, image_size), files / f"{name}.onnx")
    quantize_dynamic(files / "model.onnx", files / "model_quantized.onnx", op_types_to_quantize=["MatMul"])
    _byte_tokenizer(vocabulary).save(str(folder / "tokenizer.json"))
    settings = {
        "image_processor_type": "JinaCLIPImageProcessor",
        "size": image_size,
        "mean": [0.48145466, 0.4578275, 0.40821073],
        "std": [0.26862954, 0.26130258, 0.27577711],
        "resize_mode": "shortest",
        "interpolation": "bicubic",
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(settings), encoding="utf-8")
    (folder / "config.json").write_text(json.dumps({"model_type": "jina_clip"}), encoding="utf-8")
    return folder


def _save(model_class: Any, config: Any, processor: Any, folder: Path, seed: int) -> None:
    import torch

    state = torch.random.get_rng_state()
    torch.manual_seed(seed)
    model: PreTrainedModel = model_class(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() >= 2:
                # Variance is kept from layer to layer; what all images and texts have in common is small.
                is_common = "position" in name or "class_embedding" in name or "probe" in name
                fan_in = parameter[0].numel()
                parameter.normal_(0, 0.05 if is_common else 1 if "token_embedding" in name else fan_in**-0.5)
            elif "class_embedding" in name:
                parameter.normal_(0, 0.05)
    torch.random.set_rng_state(state)
    model.eval().save_pretrained(folder)
    processor.save_pretrained(folder)


def _bytes() -> list[str]:
    from tokenizers.pre_tokenizers import ByteLevel

    return sorted(ByteLevel.alphabet())


def _byte_tokenizer(vocabulary: list[str]) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    ids = {token: number for number, token in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.BPE(vocab=ids, merges=[], unk_token=UNK))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = [(token, ids[token]) for token in (BOS, EOS)]
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{BOS} $A {EOS}", special_tokens=special)
    return tokenizer


def _siglip_tokenizer(class_name: str) -> Any:
    """A Gemma tokenizer without merges: ASCII by letters, all else by bytes, the end marked, padded on the right."""
    import transformers
    from tokenizers import processors

    letters = [chr(code) for code in range(33, 127)] + ["▁"]
    tokens = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *(f"<0x{byte:02X}>" for byte in range(256)), *letters]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    tokenizer = getattr(transformers, class_name)(
        vocab=vocabulary, merges=[], padding_side="right", model_max_length=64, model_input_names=["input_ids"]
    )
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <eos>", special_tokens=[("<eos>", vocabulary["<eos>"])]
    )
    return tokenizer


def _siglip_text(tokenizer: Any, width: int) -> dict[str, int]:
    return {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": 64,
        "projection_size": width,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def _jina_graph(weights: dict[str, np.ndarray], image_size: int) -> Any:
    from onnx import TensorProto, checker, helper, numpy_helper

    dimension = weights["tokens"].shape[1]
    dtype = helper.np_dtype_to_tensor_dtype(weights["tokens"].dtype)
    constants = weights | {
        "pad": np.array(1, np.int64),
        "zero": np.array(0, np.int64),
        "one": np.array(1, np.int64),
        "sequence_axis": np.array([1], np.int64),
        "last_axis": np.array([2], np.int64),
    }
    cell = image_size // 8
    node = helper.make_node
    nodes = [
        node("Equal", ["input_ids", "pad"], ["is_pad"]),
        node("Not", ["is_pad"], ["is_token"]),
        node("Cast", ["is_token"], ["mask"], to=dtype),
        node("Unsqueeze", ["mask", "last_axis"], ["mask_3d"]),
        node("Gather", ["tokens", "input_ids"], ["embedded"]),
        # The weight of a token follows its position, so that the order of words counts.
        node("Shape", ["input_ids"], ["length"], start=1),
        node("Squeeze", ["length"], ["length_scalar"]),
        node("Range", ["zero", "length_scalar", "one"], ["places"]),
        node("Gather", ["positions", "places"], ["place_weights"]),
        node("Mul", ["embedded", "place_weights"], ["placed"]),
        node("Mul", ["placed", "mask_3d"], ["masked"]),
        node("ReduceSum", ["masked", "sequence_axis"], ["text_sums"], keepdims=0),
        node("Cast", ["text_sums"], ["text_embeddings"], to=TensorProto.FLOAT),
        node("LpNormalization", ["text_embeddings"], ["l2norm_text_embeddings"], axis=-1, p=2),
        node("AveragePool", ["pixel_values"], ["cells"], kernel_shape=[cell, cell], strides=[cell, cell]),
        node("Flatten", ["cells"], ["flat"]),
        node("Cast", ["flat"], ["typed"], to=dtype),
        node("MatMul", ["typed", "grid"], ["projected"]),
        node("Cast", ["projected"], ["image_embeddings"], to=TensorProto.FLOAT),
        node("LpNormalization", ["image_embeddings"], ["l2norm_image_embeddings"], axis=-1, p=2),
    ]
    outputs = {"text_embeddings": "texts", "image_embeddings": "images"}
    outputs |= {f"l2norm_{name}": count for name, count in outputs.items()}
    graph = helper.make_graph(
        nodes,
        "jina-clip-v2",
        [
            helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["texts", "sequence_length"]),
            helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, ["images", 3, image_size, image_size]),
        ],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [count, dimension]) for name, count in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    checker.check_model(model, full_check=True)
    return model
