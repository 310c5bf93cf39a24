"""Any dual encoder that `transformers` knows by itself: SigLIP 2, CLIP, MetaCLIP 2 and others.

The checkpoint decides: architecture, tokenizer and image preparation come from its files. What it does not say, but was
trained with, is added here. Code that comes with a checkpoint is never executed, and only `safetensors` are read.
"""

from __future__ import annotations

import gc
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from labeling_assets.errors import ConfigurationError
from labeling_assets.services.embedding.batches import first_line, is_out_of_memory
from labeling_assets.services.embedding.devices import choose_dtype, cpu_threads, index_of, kind_of
from labeling_assets.services.embedding.pictures import preparation_of, rgb, without_excess

if TYPE_CHECKING:
    from PIL import Image

FloatArray = npt.NDArray[np.float32]

PATTERNS = ("*.json", "*.txt", "*.model", "*.safetensors")
PREPROCESSING_VERSION = "2"
"""Raise it with any change of code that can change a vector."""

_SIGLIP = ("siglip", "siglip2")
_ROBERTA = ("roberta", "altclip")
"""In the model types of text towers whose positions begin behind the padding's, at 2."""
_SIGLIP_TEXT_TOKENS = 64
"""SigLIP and SigLIP 2 read lower-case text of exactly 64 tokens, padded on the right and not masked: so they were
trained (github.com/google-research/big_vision, README_siglip2.md; `Siglip2Model` in transformers)."""


class DualEncoderTowers:
    """A checkpoint of `transformers` on one device; implements `Towers`.

    Args:
        folder: Folder of the checkpoint.
        revision: Digest of its files.
        device: Such as `cuda:0`.
        dtype: `auto`, `float32`, `float16` or `bfloat16`.
        memory_share: Share of the GPU's memory that this process may take.

    Raises:
        ConfigurationError: The checkpoint is broken or no dual encoder, or a package is missing.
    """

    query_prefix = ""
    preprocessing_version = PREPROCESSING_VERSION
    max_batch_size: int | None = None
    may_be_cut = False

    def __init__(self, folder: Path, revision: str, device: str, dtype: str, memory_share: float = 1.0) -> None:
        import torch

        self.device = device
        self.dtype = choose_dtype(dtype, device)
        self.revision = revision
        self._device = torch.device(device)
        if kind_of(device) == "cuda":
            torch.cuda.set_per_process_memory_fraction(memory_share, index_of(device))
            torch.cuda.reset_peak_memory_stats(self._device)
        else:
            # torch counts the CPUs of the machine, not those that a container may use.
            torch.set_num_threads(min(torch.get_num_threads(), cpu_threads()))
        self._model, self._processor = _loaded(folder, self.dtype, self._device)
        self._tokenizer = self._processor.tokenizer
        self._is_siglip = self._model.config.model_type in _SIGLIP
        if self._is_siglip:
            self._tokenizer.padding_side = "right"
        self._max_tokens = _SIGLIP_TEXT_TOKENS if self._is_siglip else _max_tokens(self._model.config, self._tokenizer)
        self._preparation = preparation_of(self._processor.image_processor)
        if self._preparation:
            shape = (1, 3, 1, 1)
            self._mean = torch.tensor(self._preparation.mean, device=self._device).reshape(shape)
            self._std = torch.tensor(self._preparation.std, device=self._device).reshape(shape)

    @property
    def image_edge_px(self) -> int:
        """See `Towers.image_edge_px`."""
        return self._preparation.edge_px if self._preparation else 0

    def prepare_image(self, image: Image.Image) -> Any:  # noqa: ANN401 - as the model's processor gives it
        """The pixels, where the preparation is known; else what the model's own processor makes of the image."""
        if self._preparation:
            return self._preparation.pixels(image)
        processor = self._processor.image_processor
        return processor(images=[without_excess(rgb(image))], return_tensors="pt")

    def embed_texts(self, texts: Sequence[str]) -> FloatArray:
        """See `Towers.embed_texts`."""
        import torch

        if self._is_siglip:
            tokens = self._tokenizer(
                [text.lower() for text in texts],
                padding="max_length",
                max_length=self._max_tokens,
                truncation=True,
                return_attention_mask=False,
                return_tensors="pt",
            )
        else:
            tokens = self._tokenizer(
                list(texts), padding=True, max_length=self._max_tokens, truncation=True, return_tensors="pt"
            )
        with torch.inference_mode():
            return _as_array(self._model.get_text_features(**self._on_device(tokens)))

    def embed_images(self, prepared: Sequence[Any]) -> FloatArray:
        """See `Towers.embed_images`."""
        import torch

        with torch.inference_mode():
            if self._preparation:
                # Bytes go to the device, a quarter of the floating-point numbers.
                pixels = self._on_device({"pixels": torch.from_numpy(np.stack(prepared))})["pixels"]
                values = (pixels.permute(0, 3, 1, 2).float() / 255 - self._mean) / self._std
                inputs = {"pixel_values": values.to(self._model.dtype)}
            else:
                inputs = {key: torch.cat([each[key] for each in prepared]) for key in prepared[0]}
                inputs = self._on_device(inputs)
            return _as_array(self._model.get_image_features(**inputs))

    def use_float32(self) -> None:
        """See `Towers.use_float32`."""
        self._model.float()
        self.dtype = "float32"

    def release_memory(self) -> None:
        """See `Towers.release_memory`."""
        import torch

        gc.collect()
        if kind_of(self.device) == "cuda":
            torch.cuda.empty_cache()
        elif kind_of(self.device) == "mps":
            torch.mps.empty_cache()

    def peak_memory_bytes(self) -> int:
        """Most memory of the GPU that tensors of this process took."""
        import torch

        if kind_of(self.device) == "cuda":
            return int(torch.cuda.max_memory_allocated(self._device))
        return int(torch.mps.driver_allocated_memory()) if kind_of(self.device) == "mps" else 0

    def close(self) -> None:
        """Release the model and its memory."""
        self._model = None
        self.release_memory()

    def _on_device(self, tensors: Any) -> dict[str, Any]:  # noqa: ANN401 - of torch and of transformers
        is_cuda = kind_of(self.device) == "cuda"
        return {
            name: (value.pin_memory() if is_cuda else value).to(self._device, non_blocking=is_cuda)
            for name, value in tensors.items()
        }


def require_torch() -> None:
    """Make sure that what this family needs is installed.

    Raises:
        ConfigurationError: It is not.
    """
    try:
        import torch  # noqa: F401 - asked for here, where its absence can be explained
        import transformers  # noqa: F401 - as above
    except ImportError as error:
        raise ConfigurationError(
            f"Dual encoders need torch and transformers: {first_line(error)}",
            "Install them: pip install 'labeling-assets[clip]'",
        ) from error


def _loaded(folder: Path, dtype: str, device: Any) -> tuple[Any, Any]:  # noqa: ANN401 - of torch and transformers
    import torch
    from transformers import AutoModel, AutoProcessor

    untyped: Any = AutoProcessor
    try:
        # Its attention is `sdpa` wherever the architecture has it: that is the default.
        model = AutoModel.from_pretrained(
            folder,
            dtype=getattr(torch, dtype),
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
        )
        processor = untyped.from_pretrained(folder, backend="pil", local_files_only=True, trust_remote_code=False)
        model = model.eval().to(device)
    except Exception as error:  # a broken checkpoint shows in errors of many libraries
        if is_out_of_memory(error):
            raise
        raise ConfigurationError(
            f"The model in {folder} cannot be loaded: {first_line(error)}",
            "It must be a dual encoder that transformers knows by itself, with safetensors, tokenizer and processor.",
        ) from error
    parts = (model, "get_text_features"), (model, "get_image_features"), (processor, "tokenizer")
    if not all(hasattr(owner, name) for owner, name in (*parts, (processor, "image_processor"))):
        raise ConfigurationError(
            f"{type(model).__name__} in {folder} is no dual encoder: it lacks a tower for texts or for images.",
            "Set LABELING_EMBEDDER to one, such as siglip2-large.",
        )
    return model, processor


def _max_tokens(config: Any, tokenizer: Any) -> int:  # noqa: ANN401 - of transformers, which has no types
    """Tokens that the text tower takes: its positions, of which RoBERTa's do not count the first two.

    A tokenizer knows how many the model was trained with; one that does not gives a number beyond all bounds.
    """
    text = config.get_text_config()
    positions = int(text.max_position_embeddings)
    if any(name in text.model_type for name in _ROBERTA):
        positions -= 2
    return min(positions, int(tokenizer.model_max_length))


def _as_array(output: Any) -> FloatArray:  # noqa: ANN401 - a tensor, or in transformers 5 an object that holds it
    tensor = output if hasattr(output, "detach") else output.pooler_output
    array: FloatArray = tensor.float().cpu().numpy()
    return array
