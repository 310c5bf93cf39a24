"""An embedder made of a text tower and an image tower on one device, whatever runtime computes them.

What all such models share is here: blank texts, order, batches that fit, preparation of images ahead of the device,
unit length, and what is told about the model. What a model does by itself stands behind `Towers`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from labeling_assets.errors import ConfigurationError, VectorError
from labeling_assets.services.embedding import EmbedderIdentity
from labeling_assets.services.embedding.batches import (
    Batches,
    first_line,
    is_dtype_error,
    is_out_of_memory,
    prepared_ahead,
)
from labeling_assets.services.embedding.devices import BATCH_SIZE_CPU, BATCH_SIZE_GPU, CPU, cpu_threads

if TYPE_CHECKING:
    from PIL import Image

FloatArray = npt.NDArray[np.float32]

MAX_PREPARING_THREADS = 8
"""One of them prepares about 200 images of 512 px a second; a large GPU embeds about a thousand."""

_log = logging.getLogger(__name__)


class Towers(Protocol):
    """A loaded model. All arrays: float32 on the host, shape (n, dimension), of any length; row i belongs to item i."""

    @property
    def device(self) -> str:
        """Where it computes, such as `cuda:0`."""

    @property
    def dtype(self) -> str:
        """In which number type it computes."""

    @property
    def revision(self) -> str:
        """Digest of the files in use."""

    @property
    def preprocessing_version(self) -> str:
        """Version of the preparation of texts and images."""

    @property
    def query_prefix(self) -> str:
        """What stands before a search text."""

    @property
    def max_batch_size(self) -> int | None:
        """Items that may be computed at once without a change of the vectors; None: any number."""

    @property
    def image_edge_px(self) -> int:
        """See `Embedder.image_edge_px`."""

    @property
    def may_be_cut(self) -> bool:
        """Whether the first numbers of a vector are a vector too (Matryoshka training)."""

    def prepare_image(self, image: Image.Image) -> Any:  # noqa: ANN401 - each model has a form of its own
        """The image in the form that `embed_images` takes; called in many threads."""

    def embed_texts(self, texts: Sequence[str]) -> FloatArray:
        """Vectors of texts that are not blank."""

    def embed_images(self, prepared: Sequence[Any]) -> FloatArray:
        """Vectors of what `prepare_image` gave."""

    def use_float32(self) -> None:
        """Compute in float32 from here on."""

    def release_memory(self) -> None:
        """Give back what the runtime holds in reserve."""

    def peak_memory_bytes(self) -> int:
        """Most memory of the device that was in use; 0 on a CPU."""

    def close(self) -> None:
        """Release the model."""


class TowerEmbedder:
    """Towers as an `Embedder`; calls from several threads take turns on the device.

    Args:
        towers: The model; closed with this.
        name: Name in the identity.
        licence: Licence of the weights.
        dimension: Numbers of a vector; 0: all.
        batch_size: Items computed at once; 0: 16 on a CPU, 64 on a GPU.

    Raises:
        ConfigurationError: The towers do not agree, or their vectors may not be cut to the dimension.
        VectorError: They give no finite numbers, in float32 either.
    """

    def __init__(self, towers: Towers, *, name: str, licence: str, dimension: int = 0, batch_size: int = 0) -> None:
        self._towers = towers
        self._licence = licence
        self._lock = threading.Lock()
        size = batch_size or (BATCH_SIZE_CPU if towers.device == CPU else BATCH_SIZE_GPU)
        size = min(size, towers.max_batch_size or size)
        self._text_batches = Batches(size, towers.release_memory)
        self._image_batches = Batches(size, towers.release_memory)
        full = self._probe()
        if dimension not in (0, full) and not (towers.may_be_cut and 0 < dimension < full):
            allowed = f"at most {full}" if towers.may_be_cut else f"{full}, and its vectors may not be cut"
            raise ConfigurationError(
                f"LABELING_EMBEDDER_DIMENSION is {dimension}; {name} has {allowed}.", "Set it to 0 for all."
            )
        self._full_dimension = full
        self._identity = EmbedderIdentity(name, towers.revision, towers.preprocessing_version, dimension or full)
        threads = min(MAX_PREPARING_THREADS, cpu_threads())
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="prepare-image")

    @property
    def identity(self) -> EmbedderIdentity:
        """Model, revision with the digest of its files, version of the preparation, and dimension."""
        return self._identity

    @property
    def workers(self) -> int:
        """2: the images of one call are prepared while those of another are on the device."""
        return 2

    @property
    def image_edge_px(self) -> int:
        """See `Embedder.image_edge_px`."""
        return self._towers.image_edge_px

    def embed_texts(self, texts: Sequence[str]) -> FloatArray:
        """See `Embedder.embed_texts`. Texts are computed sorted by length, so that a batch has little padding.

        Raises:
            VectorError: The model returned a vector that is not finite or zero.
        """
        vectors = np.zeros((len(texts), self._identity.dimension), np.float32)
        # Half of a surrogate pair is no text to a tokenizer.
        texts = [text.encode(errors="replace").decode() for text in texts]
        filled = [position for position, text in enumerate(texts) if text.strip()]
        longest_first = sorted(filled, key=lambda position: len(texts[position]), reverse=True)
        parts = self._text_batches.run((texts[position] for position in longest_first), self._compute_texts)
        if longest_first:
            vectors[longest_first] = np.concatenate(list(parts))
        return vectors

    def embed_query(self, text: str) -> FloatArray:
        """Unit vector of a search text, float32, shape (dimension,); the zero vector for a blank one."""
        vector: FloatArray = self.embed_texts([self._towers.query_prefix + text if text.strip() else ""])[0]
        return vector

    def embed_images(self, images: Sequence[Image.Image]) -> FloatArray:
        """See `Embedder.embed_images`. Images are prepared in threads, two batches ahead of the device.

        Raises:
            VectorError: An image cannot be read, or the model returned a vector that is not finite or zero.
        """
        if not images:
            return np.zeros((0, self._identity.dimension), np.float32)
        ahead = 2 * self._image_batches.size
        prepared = prepared_ahead(self._pool, self._towers.prepare_image, images, ahead)
        return np.concatenate(list(self._image_batches.run(prepared, self._compute_images)))

    def model_info(self) -> dict[str, str | int]:
        """See `Embedder.model_info`."""
        return {
            "name": self._identity.name,
            "revision": self._identity.revision,
            "dimension": self._identity.dimension,
            "device": self._towers.device,
            "dtype": self._towers.dtype,
            "batch_size": self._image_batches.size,
            "peak_memory_bytes": self._towers.peak_memory_bytes(),
            "workers": self.workers,
            "licence": self._licence,
        }

    def close(self) -> None:
        """Release the model and the threads."""
        self._pool.shutdown(cancel_futures=True)
        self._towers.close()

    def _compute_texts(self, texts: Sequence[str]) -> FloatArray:
        with self._lock:
            return self._unit(self._towers.embed_texts(texts))

    def _compute_images(self, prepared: Sequence[Any]) -> FloatArray:
        with self._lock:
            return self._unit(self._towers.embed_images(prepared))

    def _unit(self, vectors: FloatArray) -> FloatArray:
        return unit_vectors(vectors[:, : self._identity.dimension])

    def _probe(self) -> int:
        """The dimension of the vectors, found with one text and one image.

        An operation that does not exist in the chosen number type, or numbers that overflow in it, show here: the model
        then computes in float32.
        """
        try:
            return self._dimension()
        except Exception as error:
            if is_out_of_memory(error) or self._towers.dtype == "float32":
                raise
            if not (is_dtype_error(error) or isinstance(error, VectorError)):
                raise
            _log.warning(
                "%s on %s fails (%s); the model computes in float32.",
                self._towers.dtype,
                self._towers.device,
                first_line(error),
            )
        self._towers.use_float32()
        return self._dimension()

    def _dimension(self) -> int:
        from PIL import Image

        texts = unit_vectors(self._towers.embed_texts(["a red mug"]))
        image = self._towers.prepare_image(Image.linear_gradient("L"))
        images = unit_vectors(self._towers.embed_images([image]))
        if texts.shape != images.shape or texts.ndim != 2:
            raise ConfigurationError(
                f"Text vectors have shape {texts.shape} and image vectors {images.shape}: they cannot be compared.",
                "Set LABELING_EMBEDDER to a dual encoder, such as siglip2-large.",
            )
        return int(texts.shape[1])


def unit_vectors(vectors: FloatArray) -> FloatArray:
    """Rows scaled to length one, in float32.

    Args:
        vectors: Any floating-point type, shape (n, dimension).

    Raises:
        VectorError: A row is zero or not finite.
    """
    vectors = np.asarray(vectors, np.float32)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not (np.isfinite(lengths) & (lengths > 0)).all():
        raise VectorError("The embedder returned a vector that is not finite, or zero.")
    unit: FloatArray = vectors / lengths
    return unit
