"""The embedder that needs no download: hashed words for text, shape and colour for pictures.

A vector has three blocks: text | shape | colour. A text fills only the first and a picture only the other two, so
text finds text and picture finds picture, and the similarity of a text with a picture is always 0: there is no meaning
across the two, nor of synonyms or of other languages. How the blocks are made is in `hashed_text.py` and
`picture_features.py`.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from labeling_assets.errors import ConfigurationError, VectorError
from labeling_assets.services.embedding import EmbedderIdentity
from labeling_assets.services.embedding.hashed_text import TEXT_DIMENSIONS, TEXT_PARAMETERS, hash_texts
from labeling_assets.services.embedding.picture_features import (
    COLOUR_DIMENSIONS,
    EDGE_PX,
    PICTURE_PARAMETERS,
    SHAPE_DIMENSIONS,
    colour_block,
    read_pixels,
    shape_block,
)

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from PIL import Image

    FloatArray = npt.NDArray[np.float32]

NAME = "embedded-hash-v1"
PREPROCESSING_VERSION = "2"
"""Raise it with any change of code that can change a vector."""

DIMENSION = TEXT_DIMENSIONS + SHAPE_DIMENSIONS + COLOUR_DIMENSIONS
_SHAPE_WEIGHT = 0.8
_COLOUR_WEIGHT = 0.6
_TEXT_CHUNK = 256
"""Texts worked on at once, however many are given: bounds memory."""


class EmbeddedEmbedder:
    """Hashed text, oriented gradients and colours as 1024-d unit vectors; implements `Embedder`.

    Deterministic. Words match without regard to case, and nearly without regard to accents and order.

    Raises:
        ConfigurationError: scikit-learn is not installed.
    """

    def __init__(self) -> None:
        self._identity = EmbedderIdentity(NAME, _revision(), PREPROCESSING_VERSION, DIMENSION)

    @property
    def identity(self) -> EmbedderIdentity:
        """Name, digest of everything that decides the vectors, version of the code and dimension."""
        return self._identity

    @property
    def workers(self) -> int:
        """1: it holds Python's lock most of the time."""
        return 1

    @property
    def image_edge_px(self) -> int:
        """Twice the edge that the features are made of: their cosine with those of the whole image is above 0.999."""
        return 2 * EDGE_PX

    def embed_texts(self, texts: Sequence[str]) -> FloatArray:
        """Unit vectors, float32, shape (len(texts), 1024), only the text block filled; zero for a blank text.

        Raises:
            VectorError: A text that is not blank has no feature at all, or its features cancel each other.
        """
        import numpy as np

        vectors = np.zeros((len(texts), DIMENSION), np.float32)
        for start in range(0, len(texts), _TEXT_CHUNK):
            chunk = texts[start : start + _TEXT_CHUNK]
            filled = [index for index, text in enumerate(chunk) if text.strip()]
            if filled:
                rows = [start + index for index in filled]
                vectors[rows, :TEXT_DIMENSIONS] = _unit(hash_texts([chunk[index] for index in filled]))
        return vectors

    def embed_query(self, text: str) -> FloatArray:
        """Unit vector of a search text, float32, shape (1024,); it finds texts, never pictures."""
        vector: FloatArray = self.embed_texts([text])[0]
        return vector

    def embed_images(self, images: Sequence[Image.Image]) -> FloatArray:
        """Unit vectors, float32, shape (len(images), 1024), text block zero; pictures of any mode and size.

        Raises:
            VectorError: A picture cannot be read.
        """
        import numpy as np

        vectors = np.zeros((len(images), DIMENSION), np.float32)
        for index, image in enumerate(images):
            pixels = read_pixels(image)
            shape, colour = _SHAPE_WEIGHT * shape_block(pixels), _COLOUR_WEIGHT * colour_block(pixels)
            vectors[index, TEXT_DIMENSIONS:] = _unit(np.concatenate([shape, colour])[None])[0]
        return vectors

    def model_info(self) -> dict[str, str | int]:
        """See `Embedder.model_info`; and what the vectors cannot do."""
        return {
            "name": NAME,
            "revision": self.identity.revision,
            "dimension": DIMENSION,
            "device": "cpu",
            "dtype": "float32",
            "batch_size": 16,
            "peak_memory_bytes": 0,
            "workers": self.workers,
            "licence": "Apache-2.0",
            "note": "Hashed words, shapes and colours: texts find texts and images find images, never each other.",
        }

    def close(self) -> None:
        """Nothing is held."""


def _revision() -> str:
    """Digest over parameters and libraries. Patch releases do not change hashing or resampling.

    Raises:
        ConfigurationError: scikit-learn is not installed.
    """
    try:
        versions = [importlib.metadata.version(package).split(".")[:2] for package in ("scikit-learn", "pillow")]
    except importlib.metadata.PackageNotFoundError as error:
        message = f"The embedded embedder needs the package {error.name}."
        raise ConfigurationError(message, "Install it: pip install 'labeling-assets[embedded]'") from error
    decisive = json.dumps([TEXT_PARAMETERS, PICTURE_PARAMETERS, _SHAPE_WEIGHT, _COLOUR_WEIGHT, versions])
    return hashlib.sha256(decisive.encode()).hexdigest()[:16]


def _unit(vectors: FloatArray) -> FloatArray:
    """Rows scaled to length 1.

    Raises:
        VectorError: A row is zero or not finite.
    """
    import numpy as np

    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not (np.isfinite(norms).all() and (norms > 0).all()):
        raise VectorError(f"{NAME} gave a zero or non-finite vector.")
    unit: FloatArray = (vectors / norms).astype(np.float32)
    return unit
