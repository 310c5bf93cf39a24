"""Embedders: what one must offer (`Embedder`), its identity, and a file for each family.

Text and image vectors of one embedder have the same dimension. Who made a vector is stored with it and compared before
a search, so that vectors of two embedders never meet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image


@dataclass(frozen=True)
class EmbedderIdentity:
    """What decides the vectors of an embedder.

    Attributes:
        name: Model id or preset, such as `embedded-hash-v1`.
        revision: Revision or digest of the weights.
        preprocessing_version: Version of the text and image preparation.
        dimension: Length of each vector.
    """

    name: str
    revision: str
    preprocessing_version: str
    dimension: int

    @property
    def key(self) -> str:
        """One string that differs when any part differs."""
        return f"{self.name}@{self.revision}/{self.preprocessing_version}/{self.dimension}"


class Embedder(Protocol):
    """Turns texts and images into unit vectors. All arrays: float32, shape (n, dimension), row i belongs to item i."""

    @property
    def identity(self) -> EmbedderIdentity:
        """What is stored with every vector."""

    @property
    def workers(self) -> int:
        """Threads that keep every device busy; calls of more wait for each other."""

    @property
    def image_edge_px(self) -> int:
        """Pixels that both edges of an image should have; a larger one is made smaller anyway. 0: all there are."""

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        """L2-normalised vectors of the texts; the zero vector for an empty or blank text."""

    def embed_query(self, text: str) -> np.ndarray:
        """L2-normalised vector of a search text, shape (dimension,)."""

    def embed_images(self, images: Sequence[Image.Image]) -> np.ndarray:
        """L2-normalised vectors of RGB images of any size.

        Raises:
            VectorError: The model returned a non-finite or zero vector; batches are halved to find the image concerned.
        """

    def model_info(self) -> dict[str, str | int]:
        """What metadata and `labeling doctor` show.

        Name, revision, dimension, device, dtype, batch_size (images computed at once), peak_memory_bytes (of the GPU, 0
        without), workers and licence.
        """

    def close(self) -> None:
        """Release memory."""
