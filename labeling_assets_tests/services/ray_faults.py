"""Services for the workers of a Ray cluster that break in the ways in which real ones do.

A file of its own, because a worker imports what it builds by name.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from labeling_assets.errors import ConfigurationError, VectorError
from labeling_assets.services.embedding.embedded import EmbeddedEmbedder

FATAL_PIXEL, FAULTY_PIXEL = 13, 14


class FragileEmbedder(EmbeddedEmbedder):
    """Dies of one image, and refuses another; says which process it is in."""

    def embed_images(self, images: Sequence[Image.Image]) -> np.ndarray:
        pixels = [image.getpixel((0, 0)) for image in images]
        if (FATAL_PIXEL, 0, 0) in pixels:
            os.kill(os.getpid(), signal.SIGKILL)
        if (FAULTY_PIXEL, 0, 0) in pixels:
            raise VectorError("the model gave NaN", "Leave it out.")
        return super().embed_images(images)

    @property
    def process_id(self) -> int:
        return os.getpid()


class OnceFatalEmbedder(EmbeddedEmbedder):
    """Dies of its first batch of images, and of no other."""

    def __init__(self, marker: str) -> None:
        super().__init__()
        self._marker = Path(marker)

    def embed_images(self, images: Sequence[Image.Image]) -> np.ndarray:
        try:
            self._marker.touch(exist_ok=False)
        except FileExistsError:
            return super().embed_images(images)
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


class Unbuildable:
    """A service that needs what the node does not have."""

    def __init__(self) -> None:
        raise ConfigurationError("The weights are missing.", "Download them.")
