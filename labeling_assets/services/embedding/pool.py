"""One embedder per device, as one embedder: each call takes a free one and gives it back."""

from __future__ import annotations

import contextlib
import queue
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from labeling_assets.errors import ConfigurationError
from labeling_assets.services.embedding import Embedder, EmbedderIdentity

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from PIL import Image

    FloatArray = npt.NDArray[np.float32]


class EmbedderPool:
    """Several copies of one embedder that work at once; implements `Embedder`.

    A call is computed by one of them, and waits while all are at work: `workers` threads that call keep all devices
    busy. The free one that has waited longest is taken.

    Args:
        embedders: At least one, all of the same identity; closed with this.

    Raises:
        ConfigurationError: Their identities differ.
    """

    def __init__(self, embedders: Sequence[Embedder]) -> None:
        identities = {embedder.identity for embedder in embedders}
        if len(identities) != 1:
            shown = ", ".join(sorted(identity.key for identity in identities))
            raise ConfigurationError(
                f"The copies of the embedder differ: {shown}.", "Set LABELING_DEVICE to one device."
            )
        self._embedders = list(embedders)
        self._free: queue.SimpleQueue[Embedder] = queue.SimpleQueue()
        for _ in range(max(embedder.workers for embedder in embedders)):
            for embedder in embedders:
                self._free.put(embedder)

    @property
    def identity(self) -> EmbedderIdentity:
        """The identity of each."""
        return self._embedders[0].identity

    @property
    def workers(self) -> int:
        """Calls that are served at once, by all of them together."""
        return sum(embedder.workers for embedder in self._embedders)

    @property
    def image_edge_px(self) -> int:
        """Of each."""
        return self._embedders[0].image_edge_px

    def embed_texts(self, texts: Sequence[str]) -> FloatArray:
        """See `Embedder.embed_texts`."""
        with self._free_one() as embedder:
            return embedder.embed_texts(texts)

    def embed_query(self, text: str) -> FloatArray:
        """See `Embedder.embed_query`."""
        with self._free_one() as embedder:
            return embedder.embed_query(text)

    def embed_images(self, images: Sequence[Image.Image]) -> FloatArray:
        """See `Embedder.embed_images`."""
        with self._free_one() as embedder:
            return embedder.embed_images(images)

    def model_info(self) -> dict[str, str | int]:
        """Of the first, with all devices, the smallest batch and the highest memory."""
        infos = [embedder.model_info() for embedder in self._embedders]
        return infos[0] | {
            "device": ", ".join(str(info["device"]) for info in infos),
            "batch_size": min(int(info["batch_size"]) for info in infos),
            "peak_memory_bytes": max(int(info["peak_memory_bytes"]) for info in infos),
            "workers": self.workers,
        }

    def close(self) -> None:
        """Close all of them."""
        with contextlib.ExitStack() as closing:
            for embedder in self._embedders:
                closing.callback(embedder.close)

    @contextlib.contextmanager
    def _free_one(self) -> Iterator[Embedder]:
        embedder = self._free.get()
        try:
            yield embedder
        finally:
            self._free.put(embedder)
