"""Models on Ray: the same services as in the run, built in actors of a cluster, behind the same protocols.

Everything else stays where it is: the run prepares, asks and writes, and ledger and cache are the only truth.

Only models that compute come here. A vision model behind HTTP computes on its server, whose slots are the limit;
asking it from actors would add a hop and take the limits and the counts of its requests apart.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from labeling_assets.errors import EmbedderWorkerError, ModelRunnerError
from labeling_assets.services.ray_cluster import RayCluster
from labeling_assets.services.ray_workers import RemoteService

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from labeling_assets.services.embedding import EmbedderIdentity
    from labeling_assets.services.vision import VisionReply


class RayEmbedder:
    """An embedder in the workers of a cluster; implements `Embedder`.

    Args:
        cluster: Where it computes: on its GPUs if it has some and the embedder can use one.
        factory: Builds the embedder from `values` in a worker.
        values: Plain values.
        on_gpu: Whether the embedder computes on a GPU where there is one.
    """

    def __init__(
        self, cluster: RayCluster, factory: Callable[..., Any], values: tuple[Any, ...], *, on_gpu: bool
    ) -> None:
        self._workers = cluster.workers(on_gpu=on_gpu and cluster.gpus > 0)
        self._service = RemoteService(factory, values, "identity")
        self._identity: EmbedderIdentity = self._workers.call(self._service, "identity")
        self._image_edge_px: int = self._workers.call(self._service, "image_edge_px")

    @property
    def identity(self) -> EmbedderIdentity:
        """See `Embedder.identity`; the same on all workers."""
        return self._identity

    @property
    def workers(self) -> int:
        """Actors of the cluster."""
        return self._workers.count

    @property
    def image_edge_px(self) -> int:
        """See `Embedder.image_edge_px`."""
        return self._image_edge_px

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        """See `Embedder.embed_texts`.

        Raises:
            VectorError: The embedder gave no usable vector.
            EmbedderWorkerError: Workers die on the texts.
            ServiceUnavailableError: The cluster has no worker.
        """
        return self._call("embed_texts", list(texts))

    def embed_query(self, text: str) -> np.ndarray:
        """See `Embedder.embed_query`."""
        return self._call("embed_query", text)

    def embed_images(self, images: Sequence[Image.Image]) -> np.ndarray:
        """See `Embedder.embed_images`; pixels travel as they are.

        Raises:
            VectorError: The embedder gave no usable vector.
            EmbedderWorkerError: Workers die on the images.
            ServiceUnavailableError: The cluster has no worker.
        """
        # A copy is the decoded picture alone, without the file that it was read from.
        return self._call("embed_images", [image.copy() for image in images])

    def model_info(self) -> dict[str, str | int]:
        """See `Embedder.model_info`; with the engine and its workers."""
        info: dict[str, str | int] = self._workers.call(self._service, "model_info")
        return info | {"engine": "ray", "ray_workers": self.workers}

    def close(self) -> None:
        """The workers end with their cluster."""

    def _call(self, name: str, argument: object) -> np.ndarray:
        import numpy as np

        mark, fault = self._identity, EmbedderWorkerError
        # What comes from shared memory is read-only, and holds it.
        return np.array(self._workers.call(self._service, name, argument, expected_mark=mark, fault=fault))


class RayVisionModel:
    """A vision model in the workers of a cluster; implements `VisionModel`.

    Args:
        cluster: Where it computes.
        factory: Builds the model from `values` in a worker.
        values: Plain values.
    """

    def __init__(self, cluster: RayCluster, factory: Callable[..., Any], values: tuple[Any, ...]) -> None:
        self._workers = cluster.workers(on_gpu=False)
        self._service = RemoteService(factory, values, "digest")

    @functools.cached_property
    def name(self) -> str:
        """See `VisionModel.name`."""
        name: str = self._workers.call(self._service, "name")
        return name

    @functools.cached_property
    def digest(self) -> str:
        """See `VisionModel.digest`; the same on all workers."""
        digest: str = self._workers.call(self._service, "digest")
        return digest

    @property
    def slots(self) -> int:
        """Actors of the cluster."""
        return self._workers.count

    def check(self) -> None:
        """See `VisionModel.check`; of one worker."""
        self._workers.call(self._service, "check")

    def ask(self, image_jpeg: bytes, prompt: str, schema: Mapping[str, Any]) -> VisionReply:
        """See `VisionModel.ask`.

        Raises:
            ModelRunnerError: The model broke on this image, or workers die on it.
            ServiceUnavailableError: The cluster has no worker.
        """
        reply: VisionReply = self._workers.call(
            self._service,
            "ask",
            *(image_jpeg, prompt, dict(schema)),
            expected_mark=self.digest,
            fault=ModelRunnerError,
        )
        return reply

    def close(self) -> None:
        """The workers end with their cluster."""
