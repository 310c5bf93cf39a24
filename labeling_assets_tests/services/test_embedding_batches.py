"""Batches that do not fit are halved, number types that do not work are left, and no unusable vector gets out."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from labeling_assets.errors import ConfigurationError, VectorError
from labeling_assets.services.embedding.batches import Batches, is_dtype_error, is_out_of_memory, prepared_ahead
from labeling_assets.services.embedding.towers import TowerEmbedder, unit_vectors

DIMENSION = 8


def out_of_memory() -> RuntimeError:
    import torch

    return torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


class FaultyTowers:
    """Embeds a text by its length and an image by its first pixel, on a device with the faults of real ones."""

    device, revision, preprocessing_version, query_prefix = "cuda:0", "r1", "p1", ""
    max_batch_size, may_be_cut = None, False

    def __init__(self, fits: int = 1000, dtype: str = "bfloat16", fault: Callable[[], Any] | None = None) -> None:
        self.fits, self.dtype, self._fault = fits, dtype, fault
        self.batch_sizes: list[int] = []
        self.releases = 0

    def prepare_image(self, image: Image.Image) -> int:
        return int(np.asarray(image.convert("L"))[0, 0])

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        return self._vectors([len(text) for text in texts])

    def embed_images(self, prepared: Sequence[int]) -> np.ndarray:
        return self._vectors(prepared)

    def use_float32(self) -> None:
        self.dtype = "float32"

    def release_memory(self) -> None:
        self.releases += 1

    def peak_memory_bytes(self) -> int:
        return 123

    def close(self) -> None:
        pass

    def _vectors(self, numbers: Sequence[int]) -> np.ndarray:
        if self._fault and self.dtype != "float32":
            return self._fault()
        if len(numbers) > self.fits:
            raise out_of_memory()
        self.batch_sizes.append(len(numbers))
        return np.array([vector(number) for number in numbers], np.float32)


def vector(number: int) -> np.ndarray:
    return np.random.default_rng(number).standard_normal(DIMENSION).astype(np.float32)


def image(number: int) -> Image.Image:
    return Image.new("L", (4, 4), number)


def embedder_of(towers: FaultyTowers, batch_size: int = 16) -> TowerEmbedder:
    return TowerEmbedder(towers, name="faulty", licence="none", batch_size=batch_size)


def test_threads_that_halve_at_once_lose_nothing() -> None:
    large_is_at_work, small_is_halving, large_has_halved = (threading.Event() for _ in range(3))

    def compute(part: Sequence[int]) -> np.ndarray:
        if not part:
            raise ValueError("need at least one array to stack")
        if len(part) == 64:
            large_is_at_work.set()
            assert small_is_halving.wait(30)
        assert large_is_at_work.wait(30)
        if len(part) > 1:
            raise out_of_memory()
        return np.array(part, np.float32)

    def release() -> None:
        if threading.current_thread().name == "small":
            small_is_halving.set()
            assert large_has_halved.wait(30)
        else:
            large_has_halved.set()

    batches, results = Batches(64, release), {}

    def run(count: int) -> None:
        results[count] = np.concatenate(list(batches.run(range(count), compute))).tolist()

    threads = [threading.Thread(target=run, args=(count,), name=name) for count, name in ((2, "small"), (64, "large"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {2: list(range(2)), 64: list(range(64))}
    assert batches.size == 1, "the smallest half counts, whichever came last"


@pytest.mark.parametrize("fits", [1, 2, 3, 5, 15, 16])
def test_a_batch_that_does_not_fit_is_halved_and_nothing_is_lost(fits: int) -> None:
    towers = FaultyTowers(fits)
    embedder = embedder_of(towers)
    numbers = [7, 3, 200, 3, *range(45)]
    expected = unit_vectors(np.array([vector(number) for number in numbers]))
    np.testing.assert_array_equal(embedder.embed_images([image(number) for number in numbers]), expected)
    texts = ["x" * (number + 1) for number in numbers]
    expected = unit_vectors(np.array([vector(number + 1) for number in numbers]))
    np.testing.assert_array_equal(embedder.embed_texts(texts), expected)
    assert max(towers.batch_sizes) <= fits
    assert (towers.releases > 0) is (fits < 16)
    embedder.close()


def test_the_size_that_fits_is_remembered() -> None:
    towers = FaultyTowers(fits=5)
    embedder = embedder_of(towers)
    embedder.embed_images([image(number) for number in range(40)])
    releases = towers.releases
    assert embedder.model_info()["batch_size"] == 4
    embedder.embed_images([image(number) for number in range(40)])
    assert (towers.releases, max(towers.batch_sizes)) == (releases, 4)
    embedder.close()


def test_an_item_that_does_not_fit_by_itself_is_one_clear_line() -> None:
    towers = FaultyTowers()
    embedder = embedder_of(towers)
    towers.fits = 0
    with pytest.raises(ConfigurationError, match=r"does not fit the memory.*LABELING_DEVICE"):
        embedder.embed_images([image(1), image(2)])
    embedder.close()


def not_implemented() -> None:
    raise RuntimeError("\"addmm_impl_cpu_\" not implemented for 'Half'")


@pytest.mark.parametrize("fault", [not_implemented, lambda: np.full((1, DIMENSION), np.nan, np.float32)])
def test_a_number_type_that_does_not_work_is_left_for_float32(fault: Callable[[], Any]) -> None:
    towers = FaultyTowers(dtype="float16", fault=fault)
    embedder = embedder_of(towers)
    assert embedder.model_info()["dtype"] == "float32"
    assert np.isfinite(embedder.embed_texts(["mug"])).all()
    embedder.close()


def broken() -> None:
    raise RuntimeError("device-side assert triggered")


def test_any_other_error_is_not_taken_for_one_of_the_number_type() -> None:
    with pytest.raises(RuntimeError, match="assert"):
        embedder_of(FaultyTowers(dtype="float16", fault=broken))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 0.0])
def test_a_vector_that_is_not_finite_or_zero_is_refused(bad: float) -> None:
    vectors = np.ones((3, DIMENSION), np.float32)
    vectors[1] = bad
    with pytest.raises(VectorError, match="not finite"):
        unit_vectors(vectors)


def test_the_information_tells_device_batch_and_memory() -> None:
    embedder = embedder_of(FaultyTowers(), batch_size=0)
    info = embedder.model_info()
    assert (info["device"], info["dtype"], info["batch_size"]) == ("cuda:0", "bfloat16", 64)
    assert (info["peak_memory_bytes"], info["workers"]) == (123, 2)
    embedder.close()


@given(items=st.lists(st.integers(), max_size=60), size=st.integers(1, 20), fits=st.integers(1, 20))
def test_batches_keep_order_whatever_fits(items: list[int], size: int, fits: int) -> None:
    def compute(batch: Sequence[int]) -> np.ndarray:
        if len(batch) > fits:
            raise MemoryError
        return np.array(batch, dtype=object)

    batches = Batches(size)
    assert [item for part in batches.run(items, compute) for item in part] == items
    assert batches.size <= size


def test_preparation_runs_a_bounded_number_ahead_and_in_order() -> None:
    begun = []
    with ThreadPoolExecutor(3) as pool:
        prepared = prepared_ahead(pool, lambda item: begun.append(item) or item * item, range(50), ahead=4)
        for number, square in enumerate(prepared):
            assert square == number * number
            assert len(begun) <= number + 1 + 4 + 1
    assert sorted(begun) == list(range(50))


def test_an_image_that_cannot_be_prepared_ends_the_call_and_what_waits() -> None:
    def prepare(item: int) -> int:
        if item == 3:
            raise VectorError("cut off")
        return item

    with ThreadPoolExecutor(1) as pool, pytest.raises(VectorError, match="cut off"):
        list(prepared_ahead(pool, prepare, range(100), ahead=10))


@pytest.mark.parametrize(
    ("error", "memory", "dtype"),
    [
        (out_of_memory(), True, False),
        (MemoryError(), True, False),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory"), True, False),
        (RuntimeError("MPS backend out of memory (MPS allocated: 17 GB)"), True, False),
        (RuntimeError("bfc_arena.cc:376 Failed to allocate memory for requested buffer of size 9"), True, False),
        (RuntimeError("CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED ; GPU=0"), True, False),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True, False),
        (RuntimeError("expected scalar type Half but found Float"), False, True),
        (RuntimeError("mat1 and mat2 must have the same dtype, but got Half and Float"), False, True),
        (TypeError("Got unsupported ScalarType BFloat16"), False, True),
        (RuntimeError("NOT_IMPLEMENTED : Could not find an implementation for Erf(13) node"), False, True),
        (RuntimeError("CUDA error: unspecified launch failure"), False, False),
    ],
)
def test_errors_of_the_runtimes_are_told_apart(error: BaseException, memory: bool, dtype: bool) -> None:
    assert (is_out_of_memory(error), is_dtype_error(error)) == (memory, dtype)


LIMITED_ARENA = """
import numpy as np, onnxruntime as ort
from onnx import TensorProto, helper
from labeling_assets.services.embedding.batches import is_out_of_memory

value = helper.make_tensor_value_info
inputs = [value("x", TensorProto.FLOAT, [1]), value("n", TensorProto.INT64, [1])]
outputs = [value("y", TensorProto.FLOAT, ["n"])]
graph = helper.make_graph([helper.make_node("Expand", ["x", "n"], ["y"])], "g", inputs, outputs)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
memory = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
ort.create_and_register_allocator(memory, ort.OrtArenaCfg({"max_mem": 1 << 20, "arena_extend_strategy": 1}))
options = ort.SessionOptions()
options.add_session_config_entry("session.use_env_allocators", "1")
options.log_severity_level = 4
session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
try:
    session.run(None, {"x": np.ones(1, np.float32), "n": np.array([10_000_000])})
except Exception as error:
    print(is_out_of_memory(error), error)
"""


def test_what_onnxruntime_says_at_its_limit_is_a_lack_of_memory() -> None:
    command = [sys.executable, "-c", LIMITED_ARENA]  # the limit holds for all sessions of a process
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert said.startswith("True "), said
