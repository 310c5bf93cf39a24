"""jina-clip-v2 by its official ONNX export: onnxruntime and `tokenizers`, no code of the model's repository.

The export is one graph with both towers. onnxruntime computes all of a graph whatever output is asked for, so the tower
that is not wanted gets a batch of nothing, or, if the graph refuses that, of one. The licence of the weights is
CC-BY-NC-4.0.
"""

from __future__ import annotations

import gc
import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from labeling_assets.errors import ConfigurationError
from labeling_assets.services.embedding.batches import first_line, is_dtype_error, is_out_of_memory
from labeling_assets.services.embedding.devices import (
    compute_threads,
    index_of,
    kind_of,
    used_memory_bytes,
    visible_gpus,
)
from labeling_assets.services.embedding.pictures import CLIP_MEAN, CLIP_STD, ByteArray, ImagePreparation

if TYPE_CHECKING:
    from PIL import Image

    from labeling_assets.services.embedding.hub import ModelFiles

FloatArray = npt.NDArray[np.float32]

_log = logging.getLogger(__name__)

PREPROCESSING_VERSION = "1"
"""Raise it with any change of code that can change a vector."""
MAX_TOKENS = 512
"""At which `encode_text` of the model's own code cuts a text, although the model reads 8,192."""
QUERY_PREFIX = "Represent the query for retrieving evidence documents: "
"""Of the task `retrieval.query`, model card of jina-clip-v2."""
IMAGE_SIZE_PX = 512

_TEXT_OUTPUT, _IMAGE_OUTPUT = "l2norm_text_embeddings", "l2norm_image_embeddings"
_QUANTISED = "model_quantized.onnx"
FILES = {"float32": "model.onnx", "float16": "model_fp16.onnx", "int8": _QUANTISED}
"""Of the export, in its folder `onnx`, by number type."""


def jina_dtype(dtype: str, device: str) -> str:
    """The number type of the file for a device: `auto` is float16 on a GPU and int8 on a CPU.

    Raises:
        ConfigurationError: There is no file of this type.
    """
    if dtype == "auto":
        return "float16" if kind_of(device) == "cuda" else "int8"
    if dtype not in FILES:
        raise ConfigurationError(
            f"LABELING_DTYPE is {dtype!r}, of which jina-clip-v2 has no file.", "Set it to auto, float16 or float32."
        )
    return dtype


def jina_patterns(dtype: str) -> tuple[str, ...]:
    """The files that a number type needs; the weights of a large graph are in a file of their own beside it."""
    file = f"onnx/{FILES[dtype]}"
    return ("config.json", "preprocessor_config.json", "tokenizer.json", file, f"{file}_data")


class JinaTowers:
    """The ONNX export on one device; implements `Towers`.

    Args:
        find: Gives the files of a number type, downloaded if need be.
        device: `cpu` or `cuda:n`.
        dtype: `auto`, `float32` or `float16`.
        memory_share: Share of the GPU's memory that this process may take.

    Raises:
        ConfigurationError: The files are broken, a package is missing, or the GPU cannot be used.
    """

    query_prefix = QUERY_PREFIX
    preprocessing_version = PREPROCESSING_VERSION
    may_be_cut = True

    def __init__(
        self,
        find: Callable[[Sequence[str]], ModelFiles],
        device: str,
        dtype: str,
        memory_share: float = 1.0,
    ) -> None:
        self.device = device
        self._find = find
        self._memory_share = memory_share
        self._memory_before = used_memory_bytes(index_of(device)) if kind_of(device) == "cuda" else 0
        self._peak_memory_bytes = 0
        wanted = jina_dtype(dtype, device)
        try:
            self._load(wanted)
        except ConfigurationError as error:
            if wanted == "float32" or not is_dtype_error(error):
                raise
            _log.warning("The %s file does not run on %s (%s); the full one is used.", wanted, device, error.message)
            self._load("float32")

    @property
    def max_batch_size(self) -> int | None:
        """1 for the quantised file: its scale is taken from the whole batch, so a neighbour would change a vector."""
        return 1 if self.dtype == "int8" else None

    @property
    def image_edge_px(self) -> int:
        """See `Towers.image_edge_px`."""
        return self._preparation.edge_px

    def prepare_image(self, image: Image.Image) -> ByteArray:
        """The pixels of the centre square."""
        return self._preparation.pixels(image)

    def embed_texts(self, texts: Sequence[str]) -> FloatArray:
        """See `Towers.embed_texts`."""
        encoded = self._tokenizer.encode_batch(list(texts))
        ids = np.array([each.ids for each in encoded], np.int64)
        return self._run(_TEXT_OUTPUT, {"input_ids": ids, "pixel_values": self._no_images})

    def embed_images(self, prepared: Sequence[ByteArray]) -> FloatArray:
        """See `Towers.embed_images`."""
        values = self._preparation.normalised(prepared).astype(self._pixel_type, copy=False)
        return self._run(_IMAGE_OUTPUT, {"input_ids": self._no_texts, "pixel_values": values})

    def use_float32(self) -> None:
        """Load the full file in place of the one in use; the revision changes with it."""
        self.close()
        self._load("float32")

    def release_memory(self) -> None:
        """Nothing: the arena of the session keeps what it took, and takes no more than it may."""

    def peak_memory_bytes(self) -> int:
        """Most memory of the GPU that was taken since before the model was loaded; others' use counts as well."""
        return self._peak_memory_bytes

    def close(self) -> None:
        """Release the session."""
        self._session: Any = None
        gc.collect()

    def _load(self, dtype: str) -> None:
        patterns = jina_patterns(dtype)
        files = self._find(patterns)
        self.dtype = dtype
        self.revision = files.revision(patterns)
        self._tokenizer = _tokenizer(files.folder / "tokenizer.json")
        self._preparation = _preparation(files.folder / "preprocessor_config.json")
        self._session = _session(files.folder / "onnx" / FILES[dtype], self.device, self._memory_share)
        inputs = {each.name: each.type for each in self._session.get_inputs()}
        outputs = {each.name for each in self._session.get_outputs()}
        if set(inputs) != {"input_ids", "pixel_values"} or not {_TEXT_OUTPUT, _IMAGE_OUTPUT} <= outputs:
            raise ConfigurationError(
                f"{files.folder} holds no export of jina-clip-v2: the graph takes {', '.join(sorted(inputs))}.",
                "Set LABELING_EMBEDDER to jina-clip-v2 or to a copy of it.",
            )
        self._pixel_type = np.float16 if inputs["pixel_values"] == "tensor(float16)" else np.float32
        self._use_empty_batches(is_empty=True)
        if not self._takes_empty_batches():
            self._use_empty_batches(is_empty=False)

    def _use_empty_batches(self, *, is_empty: bool) -> None:
        """Set what the tower gets that is not wanted."""
        count = 0 if is_empty else 1
        size = (self._preparation.height_px, self._preparation.width_px)
        self._no_texts = np.zeros((count, 1), np.int64)
        self._no_images = np.zeros((count, 3, *size), self._pixel_type)

    def _takes_empty_batches(self) -> bool:
        try:
            texts = self.embed_texts(["mug"])
            images = self.embed_images([np.zeros((*self._no_images.shape[2:], 3), np.uint8)])
        except Exception as error:  # onnxruntime's classes have no base of their own
            if is_out_of_memory(error):
                raise
            return False
        return texts.shape[0] == images.shape[0] == 1 and bool(np.isfinite(texts).all() and np.isfinite(images).all())

    def _run(self, output: str, inputs: dict[str, Any]) -> FloatArray:
        vectors = self._session.run([output], inputs)[0]
        if kind_of(self.device) == "cuda":
            taken = used_memory_bytes(index_of(self.device)) - self._memory_before
            self._peak_memory_bytes = max(self._peak_memory_bytes, taken)
        result: FloatArray = np.asarray(vectors, np.float32)
        return result


def require_onnx() -> None:
    """Make sure that what this family needs is installed.

    Raises:
        ConfigurationError: It is not.
    """
    try:
        import onnxruntime  # noqa: F401 - asked for here, where its absence can be explained
        import tokenizers  # noqa: F401 - as above
    except ImportError as error:
        raise ConfigurationError(
            f"jina-clip-v2 needs onnxruntime and tokenizers: {first_line(error)}",
            "Install them: pip install 'labeling-assets[jina]'",
        ) from error


def _tokenizer(path: Path) -> Any:  # noqa: ANN401 - `tokenizers` is loaded where it is used
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises this class itself
        raise _broken(path, error) from error
    pad_id = tokenizer.token_to_id("<pad>")
    tokenizer.enable_truncation(MAX_TOKENS)
    tokenizer.enable_padding(pad_id=1 if pad_id is None else pad_id, pad_token="<pad>")  # noqa: S106 - a token of text
    return tokenizer


def _preparation(path: Path) -> ImagePreparation:
    """What the model's file says, with the published values for what it leaves out."""
    from PIL import Image

    try:
        settings = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        size = settings.get("size", IMAGE_SIZE_PX)
        edge = int(size if isinstance(size, int) else max(size))
        red, green, blue = map(float, settings.get("mean", CLIP_MEAN))
        red_std, green_std, blue_std = map(float, settings.get("std", CLIP_STD))
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise _broken(path, error) from error
    mean, std = (red, green, blue), (red_std, green_std, blue_std)
    return ImagePreparation(edge, edge, edge, Image.Resampling.BICUBIC, mean, std)


def _session(path: Path, device: str, memory_share: float) -> Any:  # noqa: ANN401 - of onnxruntime, which has no types
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = compute_threads()
    providers: list[Any] = ["CPUExecutionProvider"]
    if kind_of(device) == "cuda":
        onnxruntime.preload_dlls()  # CUDA's libraries, where torch or the packages of NVIDIA brought them
        memory = {gpu.index: gpu.memory_bytes for gpu in visible_gpus()}
        settings: dict[str, Any] = {"device_id": index_of(device), "arena_extend_strategy": "kSameAsRequested"}
        if memory_share < 1:
            settings["gpu_mem_limit"] = int(memory_share * memory[index_of(device)])
        providers = [("CUDAExecutionProvider", settings), *providers]
    try:
        # Without fallback: a failed load on a GPU would be tried once more on the CPU, with its memory.
        session = onnxruntime.InferenceSession(path, options, providers=providers, enable_fallback=0)
    except Exception as error:  # onnxruntime's classes have no base of their own
        if is_out_of_memory(error):
            raise
        raise _broken(path, error) from error
    if kind_of(device) == "cuda" and "CUDAExecutionProvider" not in session.get_providers():
        raise ConfigurationError(
            f"onnxruntime cannot use {device}: CUDA or cuDNN is missing, or of another version than it was built for.",
            "Install them (pip install 'onnxruntime-gpu[cuda,cudnn]'), or set LABELING_DEVICE=cpu.",
        )
    return session


def _broken(path: Path, error: BaseException) -> ConfigurationError:
    return ConfigurationError(
        f"{path} cannot be loaded: {first_line(error)}", "Delete it and start again: it is downloaded anew."
    )
