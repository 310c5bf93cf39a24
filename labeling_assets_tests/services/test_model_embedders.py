"""Embedders that load a model: the contract of all embedders, on tiny models that the code for real ones loads."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from labeling_assets.errors import ConfigurationError, VectorError
from labeling_assets.services import connect
from labeling_assets.services.embedding import Embedder
from labeling_assets.services.embedding.dual_encoder import PATTERNS, DualEncoderTowers, _max_tokens
from labeling_assets.services.embedding.hub import model_files
from labeling_assets.services.embedding.jina import QUERY_PREFIX, JinaTowers, jina_patterns
from labeling_assets.services.embedding.loading import _is_jina, load_embedder
from labeling_assets.services.embedding.pool import EmbedderPool
from labeling_assets.services.embedding.towers import TowerEmbedder
from labeling_assets_tests.services.embedder_contract import TEXTS, EmbedderContract, assert_unit, picture
from labeling_assets_tests.standins.tiny_models import tiny_clip, tiny_jina, tiny_naflex, tiny_siglip

DTYPES = ("float32", "float16", "int8")
IMAGES = [picture(seed) for seed in range(5)]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a tiny model, made when first asked for."""
    build = {"clip": tiny_clip, "siglip": tiny_siglip, "naflex": tiny_naflex, "jina": tiny_jina}
    root = tmp_path_factory.mktemp("models")

    def folder(name: str) -> Path:
        return root / name if (root / name).exists() else build[name](root / name)

    return folder


@contextlib.contextmanager
def loaded(folder: Path, **options: Any) -> Iterator[Embedder]:
    embedder = load_embedder(str(folder), **{"device": "cpu", **options})
    yield embedder
    embedder.close()


class TestClip(EmbedderContract):
    @pytest.fixture(scope="class")
    @classmethod
    def embedder(cls, models: Callable[[str], Path]) -> Iterator[Embedder]:
        with loaded(models("clip")) as embedder:
            yield embedder

    def test_vectors_are_those_of_the_bare_model(self, models: Callable[[str], Path], embedder: Embedder) -> None:
        import torch
        from transformers import AutoModel, AutoProcessor

        model = AutoModel.from_pretrained(models("clip")).eval()
        processor = AutoProcessor.from_pretrained(models("clip"), backend="pil")
        inputs = processor(images=IMAGES, text=list(TEXTS[:3]), padding=True, truncation=True, return_tensors="pt")
        with torch.inference_mode():
            output = model(**inputs)
        np.testing.assert_allclose(embedder.embed_images(IMAGES), output.image_embeds, atol=1e-4)
        np.testing.assert_allclose(embedder.embed_texts(TEXTS[:3]), output.text_embeds, atol=1e-5)


class TestSiglip2(EmbedderContract):
    @pytest.fixture(scope="class")
    @classmethod
    def embedder(cls, models: Callable[[str], Path]) -> Iterator[Embedder]:
        with loaded(models("siglip")) as embedder:
            yield embedder

    def test_upper_case_does_not_matter(self, embedder: Embedder) -> None:
        lower, upper = embedder.embed_texts(["cốc sứ tặng mẹ", "CỐC SỨ TẶNG MẸ"])
        np.testing.assert_allclose(lower, upper, atol=1e-6)

    def test_text_is_padded_to_64_tokens_on_the_right_and_not_masked(
        self, models: Callable[[str], Path], embedder: Embedder
    ) -> None:
        import torch
        from transformers import AutoModel, AutoTokenizer

        model = AutoModel.from_pretrained(models("siglip")).eval()
        ids = AutoTokenizer.from_pretrained(models("siglip"))("a mug", padding=False)["input_ids"]
        padded = torch.tensor([[*ids, *[0] * (64 - len(ids))]])
        with torch.inference_mode():
            expected = torch.nn.functional.normalize(model.get_text_features(padded).pooler_output)
        np.testing.assert_allclose(embedder.embed_texts(["A mug"]), expected, atol=1e-5)


class TestSiglip2OfVariableAspect(EmbedderContract):
    @pytest.fixture(scope="class")
    @classmethod
    def embedder(cls, models: Callable[[str], Path]) -> Iterator[Embedder]:
        with loaded(models("naflex")) as embedder:
            yield embedder


class TestJinaInFloat32(EmbedderContract):
    @pytest.fixture(scope="class")
    @classmethod
    def embedder(cls, models: Callable[[str], Path]) -> Iterator[Embedder]:
        with loaded(models("jina"), dtype="float32") as embedder:
            yield embedder

    def test_a_query_gets_the_prefix_it_was_trained_with(self, embedder: Embedder) -> None:
        text = embedder.embed_texts([QUERY_PREFIX + "quà tặng bố"])[0]
        np.testing.assert_allclose(embedder.embed_query("quà tặng bố"), text, atol=1e-6)

    def test_a_strip_takes_no_more_memory_than_a_picture(self, embedder: Embedder) -> None:
        assert_unit(embedder.embed_images([Image.new("RGB", (100_000, 1), "red")]), 1, 1024)


class TestJinaQuantised(EmbedderContract):
    @pytest.fixture(scope="class")
    @classmethod
    def embedder(cls, models: Callable[[str], Path]) -> Iterator[Embedder]:
        with loaded(models("jina")) as embedder:
            yield embedder

    def test_it_is_the_choice_for_a_cpu_and_computes_one_item_at_once(self, embedder: Embedder) -> None:
        info = embedder.model_info()
        assert (info["device"], info["dtype"], info["batch_size"]) == ("cpu", "int8", 1)


class TestTwoDevices(EmbedderContract):
    @pytest.fixture(scope="class")
    @classmethod
    def embedder(cls, models: Callable[[str], Path]) -> Iterator[Embedder]:
        pool = pool_of_two(models("clip"))
        yield pool
        pool.close()


def pool_of_two(folder: Path) -> EmbedderPool:
    files = model_files(str(folder), "", PATTERNS)
    return EmbedderPool(
        [
            TowerEmbedder(
                DualEncoderTowers(files.folder, files.revision(PATTERNS), "cpu", "auto"), name="tiny", licence="none"
            )
            for _ in range(2)
        ]
    )


class CountingEmbedder:
    """An embedder that waits until another one is at work as well."""

    def __init__(self, embedder: Embedder, both: threading.Barrier) -> None:
        self._embedder, self._both, self.calls = embedder, both, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._embedder, name)

    def embed_images(self, images: Sequence[Image.Image]) -> np.ndarray:
        self.calls += 1
        self._both.wait(timeout=60)
        return self._embedder.embed_images(images)


def test_a_pool_uses_every_device_at_once_and_keeps_the_order(models: Callable[[str], Path]) -> None:
    both = threading.Barrier(2)
    with loaded(models("clip")) as embedder:
        expected = embedder.embed_images(IMAGES)
        copies = [CountingEmbedder(embedder, both) for _ in range(2)]
        pool = EmbedderPool(copies)
        assert pool.workers == 4
        results: dict[int, np.ndarray] = {}
        threads = [
            threading.Thread(target=lambda number=number: results.update({number: pool.embed_images(IMAGES[number:])}))
            for number in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for number in range(4):
        np.testing.assert_allclose(results[number], expected[number:], atol=1e-5)
    assert [copy.calls for copy in copies] == [2, 2]


def test_a_device_that_failed_is_used_again(models: Callable[[str], Path]) -> None:
    pool = pool_of_two(models("clip"))
    for _ in range(3):
        with pytest.raises(VectorError, match="no pixels"):
            pool.embed_images([Image.new("RGB", (0, 5))])
    assert_unit(pool.embed_images(IMAGES), len(IMAGES), 1024)
    assert pool.model_info()["device"] == "cpu, cpu"
    pool.close()


def test_copies_of_different_models_make_no_pool(models: Callable[[str], Path]) -> None:
    with (
        loaded(models("clip")) as clip,
        loaded(models("siglip")) as siglip,
        pytest.raises(ConfigurationError, match="differ"),
    ):
        EmbedderPool([clip, siglip])


@pytest.mark.parametrize("name", ["clip", "siglip", "jina"])
def test_threads_and_batch_size_change_no_vector(models: Callable[[str], Path], name: str) -> None:
    with (
        loaded(models(name), dtype="float32") as embedder,
        loaded(models(name), dtype="float32", batch_size=2) as pairs,
    ):
        assert embedder.identity == pairs.identity
        expected = embedder.embed_images(IMAGES)
        np.testing.assert_allclose(pairs.embed_images(IMAGES), expected, atol=1e-5)
        np.testing.assert_allclose(pairs.embed_texts(TEXTS), embedder.embed_texts(TEXTS), atol=1e-5)
        results: list[np.ndarray] = []
        threads = [threading.Thread(target=lambda: results.append(pairs.embed_images(IMAGES))) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(results) == 4
    for vectors in results:
        np.testing.assert_allclose(vectors, expected, atol=1e-5)


@pytest.mark.parametrize(("name", "dtype"), [("clip", "bfloat16"), ("siglip", "float16"), ("jina", "float16")])
def test_another_number_type_gives_nearly_the_same_vectors(
    models: Callable[[str], Path], name: str, dtype: str
) -> None:
    with loaded(models(name), dtype="float32") as full, loaded(models(name), dtype=dtype) as half:
        assert half.model_info()["dtype"] == dtype
        assert (half.embed_images(IMAGES) * full.embed_images(IMAGES)).sum(axis=1).min() > 0.99
        assert (half.embed_texts(TEXTS) * full.embed_texts(TEXTS)).sum(axis=1).min() > 0.99


def test_jina_is_cut_short_and_scaled_again(models: Callable[[str], Path]) -> None:
    with loaded(models("jina"), dtype="float32") as full, loaded(models("jina"), dtype="float32", dimension=512) as cut:
        assert cut.identity.dimension == 512
        assert cut.identity.key != full.identity.key
        vectors = full.embed_images(IMAGES)[:, :512]
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        np.testing.assert_allclose(cut.embed_images(IMAGES), vectors, atol=1e-6)
        assert_unit(cut.embed_texts(TEXTS), len(TEXTS), 512)


@pytest.mark.parametrize(("name", "dimension"), [("clip", 512), ("jina", 2048), ("clip", 2048)])
def test_a_dimension_that_a_model_has_not_is_refused(models: Callable[[str], Path], name: str, dimension: int) -> None:
    with pytest.raises(ConfigurationError, match="LABELING_EMBEDDER_DIMENSION"):
        load_embedder(str(models(name)), "cpu", dimension=dimension)


def test_jina_files_that_do_not_run_in_their_number_type_give_way_to_the_full_one(tmp_path: Path) -> None:
    from onnx import TensorProto, helper, save

    folder = tiny_jina(tmp_path / "jina", image_size=64)
    value = (
        [helper.make_tensor_value_info("x", TensorProto.BFLOAT16, [1])],
        [helper.make_tensor_value_info("y", TensorProto.BFLOAT16, [1])],
    )
    graph = helper.make_graph([helper.make_node("Erf", ["x"], ["y"])], "none", *value)
    opset = [helper.make_opsetid("", 18)]
    save(helper.make_model(graph, opset_imports=opset, ir_version=9), folder / "onnx/model_fp16.onnx")
    with loaded(folder, dtype="float16") as embedder, loaded(folder, dtype="float32") as full:
        assert embedder.model_info()["dtype"] == "float32"
        assert embedder.identity == full.identity


def test_the_identity_follows_the_files_and_not_the_place(tmp_path: Path) -> None:
    first, copy, other = (tiny_clip(tmp_path / str(n) / "model", layers=1, seed=n // 2) for n in range(3))
    keys = []
    for folder in (first, copy, other):
        with loaded(folder) as embedder:
            keys.append(embedder.identity.key)
    assert keys[0] == keys[1] != keys[2]
    assert keys[0].startswith("model@")


def test_other_weights_in_the_same_place_have_another_identity(tmp_path: Path) -> None:
    with loaded(tiny_clip(tmp_path / "model", layers=1)) as embedder:
        first = embedder.identity
    with loaded(tiny_clip(tmp_path / "model", layers=1, seed=1)) as embedder:
        assert embedder.identity != first


def test_jina_files_of_different_number_types_have_different_identities(models: Callable[[str], Path]) -> None:
    folder = str(models("jina"))
    revisions = {model_files(folder, "", jina_patterns(dtype)).revision(jina_patterns(dtype)) for dtype in DTYPES}
    assert len(revisions) == len(DTYPES)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "model.safetensors").write_bytes(b"{}"), "cannot be loaded"),
        (lambda folder: (folder / "model.safetensors").unlink(), "cannot be loaded"),
        (lambda folder: (folder / "tokenizer.json").write_text("{"), "cannot be loaded"),
        (lambda folder: (folder / "config.json").write_text('{"model_type": "no such"}'), "cannot be loaded"),
        (lambda folder: (folder / "config.json").write_text('{"auto_map": {"AutoModel": "x.Y"}}'), "cannot be loaded"),
    ],
)
def test_a_broken_checkpoint_is_one_clear_line(tmp_path: Path, damage: Callable[[Path], None], message: str) -> None:
    folder = tiny_clip(tmp_path / "model", layers=1)
    damage(folder)
    with pytest.raises(ConfigurationError, match=message) as raised:
        load_embedder(str(folder), "cpu")
    assert "\n" not in str(raised.value)


def test_code_of_a_checkpoint_is_not_executed(tmp_path: Path) -> None:
    folder = tiny_clip(tmp_path / "model", layers=1)
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'executed')!r}, 'w')\nclass C: pass\n")
    (folder / "config.json").write_text(
        '{"model_type": "evil", "auto_map": {"AutoConfig": "evil.C", "AutoModel": "evil.C"}}'
    )
    with pytest.raises(ConfigurationError, match="cannot be loaded"):
        load_embedder(str(folder), "cpu")
    assert not (tmp_path / "executed").exists()


def test_a_text_model_is_no_dual_encoder(tmp_path: Path) -> None:
    from transformers import BertConfig, BertModel

    folder = tiny_clip(tmp_path / "model", layers=1)
    bert = BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=1, intermediate_size=16, vocab_size=514)
    BertModel(bert).save_pretrained(folder)
    with pytest.raises(ConfigurationError, match="no dual encoder"):
        load_embedder(str(folder), "cpu")


@pytest.mark.parametrize("file", ["onnx/model_quantized.onnx", "tokenizer.json", "preprocessor_config.json"])
def test_a_broken_jina_file_is_one_clear_line(tmp_path: Path, file: str) -> None:
    folder = tiny_jina(tmp_path / "jina", image_size=64)
    (folder / file).write_bytes(b"\x08 no model")
    with pytest.raises(ConfigurationError, match=f"{file} cannot be loaded") as raised:
        load_embedder(str(folder), "cpu")
    assert "\n" not in str(raised.value)


def test_a_graph_that_takes_other_inputs_is_no_jina(tmp_path: Path) -> None:
    import onnx

    folder = tiny_jina(tmp_path / "jina", image_size=64)
    model = onnx.load(folder / "onnx/model.onnx")
    model.graph.input[0].name = "other"
    for node in model.graph.node:
        node.input[:] = ["other" if name == "input_ids" else name for name in node.input]
    onnx.save(model, folder / "onnx/model.onnx")
    with pytest.raises(ConfigurationError, match="no export of jina-clip-v2"):
        load_embedder(str(folder), "cpu", "float32")


def test_a_graph_that_refuses_empty_batches_gets_one_item(models: Callable[[str], Path]) -> None:
    towers = JinaTowers(lambda patterns: model_files(str(models("jina")), "", patterns), "cpu", "float32")
    run, refused = towers._session.run, []

    class Refusing:
        def run(self, outputs: list[str], inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
            if any(len(value) == 0 for value in inputs.values()):
                refused.append(outputs)
                raise RuntimeError("Reshape: a dimension is 0")
            return list(run(outputs, inputs))

    expected = towers.embed_texts(["mug"])
    towers._session = Refusing()
    assert not towers._takes_empty_batches()
    towers._use_empty_batches(is_empty=False)
    assert refused
    np.testing.assert_array_equal(towers.embed_texts(["mug"]), expected)
    towers.close()


def too_large(*_: Any, **__: Any) -> None:
    raise RuntimeError("bfc_arena.cc:376 Failed to allocate memory for requested buffer of size 4000000")


@pytest.mark.parametrize(
    ("name", "owner", "what"),
    [
        ("jina", "onnxruntime.InferenceSession", too_large),
        ("jina", "labeling_assets.services.embedding.jina.JinaTowers.embed_images", too_large),
        ("clip", "transformers.AutoModel.from_pretrained", too_large),
        ("clip", "labeling_assets.services.embedding.dual_encoder.DualEncoderTowers.embed_images", too_large),
    ],
)
def test_a_model_that_does_not_fit_while_it_loads_is_one_clear_line(
    models: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, name: str, owner: str, what: Callable[..., None]
) -> None:
    folder = str(models(name))
    monkeypatch.setattr(owner, what)
    with pytest.raises(
        ConfigurationError, match=r"^The model does not fit the memory of cpu: .*LABELING_DEVICE"
    ) as raised:
        load_embedder(folder, "cpu")
    assert "Delete it" not in str(raised.value)


def test_a_jina_file_that_cannot_be_loaded_on_its_device_is_not_tried_on_another(
    models: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnxruntime

    tried: list[object] = []

    def fail(self: onnxruntime.InferenceSession, providers: object, *_: object) -> None:
        tried.append(providers)
        raise RuntimeError("CUDA failure 999")

    monkeypatch.setattr(onnxruntime.InferenceSession, "_create_inference_session", fail)
    with pytest.raises(ConfigurationError, match="CUDA failure 999"):
        load_embedder(str(models("jina")), "cpu", "float32")
    assert len(tried) == 1


@pytest.mark.parametrize(
    ("files", "is_jina"),
    [
        ({"config.json": '{"model_type": "jina_clip"}', "model.safetensors": "", "onnx/model.onnx": ""}, True),
        ({"onnx/model_fp16.onnx": "", "tokenizer.json": ""}, True),
        ({"config.json": '{"model_type": "siglip"}', "model.safetensors": "", "onnx/model.onnx": ""}, False),
        ({"config.json": "[]", "onnx/text_model.onnx": ""}, False),
        ({"config.json": "{", "model.safetensors": ""}, False),
        ({}, False),
    ],
)
def test_a_folder_is_of_jina_by_its_settings_or_by_its_export_alone(
    tmp_path: Path, files: dict[str, str], is_jina: bool
) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    assert _is_jina(str(tmp_path)) is is_jina


def test_a_checkpoint_with_an_export_beside_it_is_a_dual_encoder(tmp_path: Path) -> None:
    folder = tiny_clip(tmp_path / "clip", layers=1)
    (folder / "onnx").mkdir()
    (folder / "onnx/model.onnx").write_bytes(b"of another program")
    with loaded(folder) as embedder:
        assert_unit(embedder.embed_texts(TEXTS), len(TEXTS), embedder.identity.dimension)


@pytest.mark.parametrize(("trained_with", "tokens"), [(512, 512), (77, 77), (int(1e30), 512)])
def test_texts_are_cut_at_the_positions_of_an_altclip_and_at_what_its_tokenizer_says(
    trained_with: int, tokens: int
) -> None:
    import torch
    from transformers import AltCLIPConfig, AltCLIPModel

    tower = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = AltCLIPConfig(
        text_config=tower | {"vocab_size": 300, "project_dim": 16},
        vision_config=tower | {"image_size": 32, "patch_size": 16},
        projection_dim=16,
    )
    assert _max_tokens(config, SimpleNamespace(model_max_length=trained_with)) == tokens
    ids = torch.full((1, tokens), 5)
    with torch.inference_mode():
        vectors = AltCLIPModel(config).get_text_features(input_ids=ids, attention_mask=torch.ones_like(ids))
    assert vectors.pooler_output.shape == (1, 16)


def test_the_services_hand_out_the_embedder_of_the_settings(models: Callable[[str], Path]) -> None:
    embedder = connect.embedder(str(models("jina")), "cpu", "float32", 256, 3, 1.0)
    assert connect.embedder(str(models("jina")), "cpu", "float32", 256, 3, 1.0) is embedder
    assert (embedder.identity.dimension, embedder.model_info()["batch_size"]) == (256, 3)
