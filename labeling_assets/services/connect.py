"""Builds each service from plain values, once a process: a model loads once, a pool of connections is shared.

Dagster resources and the command line both come here, so that they never differ. Values are strings and numbers,
because they are the key under which a service is kept.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
from collections.abc import Hashable
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar
from zoneinfo import ZoneInfo

from labeling_assets.errors import ConfigurationError
from labeling_assets.services.postgres import ProductDatabase, create_engine
from labeling_assets.services.source_days import SourceDays
from labeling_assets.services.writer_lease import writer_lease
from labeling_assets.settings import Settings

if TYPE_CHECKING:
    from labeling_assets.services.embedding import Embedder, EmbedderIdentity
    from labeling_assets.services.images.store import ImageStore
    from labeling_assets.services.milvus import MilvusStore
    from labeling_assets.services.ray_cluster import RayCluster
    from labeling_assets.services.vision import VisionModel


class _Closeable(Protocol):
    def close(self) -> None: ...


Service = TypeVar("Service", bound=_Closeable)
_kept = contextlib.ExitStack()


@functools.cache
def product_database(url: str, source_table: str, timezone: str) -> ProductDatabase:
    """The source table, `data_label` and the engine that all tables of ours are reached by."""
    engine = create_engine(url)
    _kept.callback(engine.dispose)
    return ProductDatabase(engine, source_table, ZoneInfo(timezone))


def source_days(database: ProductDatabase) -> SourceDays:
    """The fingerprints of the source's days."""
    return SourceDays(database.engine, database.source_table, database.zone)


@functools.cache
def image_store(database: ProductDatabase, root: str, allowed_hosts: tuple[str, ...]) -> ImageStore:
    """The content-addressed store, with the one fetcher of outside URLs."""
    from labeling_assets.services.images.addresses import AddressPolicy
    from labeling_assets.services.images.fetcher import ImageFetcher
    from labeling_assets.services.images.store import ImageStore

    fetcher = ImageFetcher(AddressPolicy(allowed_hosts))
    _kept.callback(fetcher.close)
    return ImageStore(root, database.engine, fetcher)


@functools.cache
def vision_model(
    backend: str,
    model: str,
    hosts: tuple[str, ...],
    api_key: str,
    slots: int,
    timeout_seconds: float,
    context_tokens: int,
    requests_per_minute: int = 0,
    tokens_per_minute: int = 0,
) -> VisionModel:
    """The vision model of a backend; the limits a minute hold for all its hosts together, within this process.

    Raises:
        ConfigurationError: The backend needs an address that is not set.
    """
    if backend == "embedded":
        from labeling_assets.services.vision.embedded import EmbeddedVisionModel

        return _closed_at_end(EmbeddedVisionModel())
    from labeling_assets.services.vision.pacing import Pacing

    pacing = Pacing(requests_per_minute, tokens_per_minute)
    if backend == "ollama":
        from labeling_assets.services.vision.ollama import OllamaVisionModel

        return _closed_at_end(OllamaVisionModel(hosts, model, slots, timeout_seconds, context_tokens, pacing=pacing))
    if not hosts:
        raise ConfigurationError("LABELING_OPENAI_BASE_URL is not set.", "Set it to http://host:8000/v1, say.")
    from labeling_assets.services.vision.openai import OpenAIVisionModel

    return _closed_at_end(OpenAIVisionModel(hosts, model, api_key, slots, timeout_seconds, pacing=pacing))


@functools.cache
def embedder(
    name: str, device: str, dtype: str, dimension: int = 0, batch_size: int = 0, memory_share: float = 1.0
) -> Embedder:
    """The embedder of a name.

    Raises:
        ConfigurationError: There is no such embedder, or it does not run on the device.
    """
    from labeling_assets.services.embedding.loading import load_embedder

    return _closed_at_end(load_embedder(name, device, dtype, dimension, batch_size, memory_share))


class Engine(NamedTuple):
    """Where the models of a stage compute.

    Attributes:
        name: `local`, in this process, or `ray`.
        ray_address: Address of the Ray cluster; empty: one on this machine.
        ray_cpus_per_worker: CPUs of a Ray worker without a GPU.
    """

    name: str
    ray_address: str
    ray_cpus_per_worker: float


def vision_model_on(engine: Engine, *values: Hashable) -> VisionModel:
    """The vision model of `vision_model(*values)`; on Ray, where that is the engine, unless a server computes it."""
    is_on_ray = engine.name == "ray" and values[0] == "embedded"
    return _vision_model_on_ray(ray_cluster(*engine[1:])) if is_on_ray else vision_model(*values)


def embedder_on(engine: Engine, *values: Hashable) -> Embedder:
    """The embedder of `embedder(*values)`, in this process or on Ray."""
    return _embedder_on_ray(ray_cluster(*engine[1:]), *values) if engine.name == "ray" else embedder(*values)


@functools.cache
def ray_cluster(address: str, cpus_per_worker: float) -> RayCluster:
    """The connection to Ray, whose workers all models of this process share.

    Raises:
        ConfigurationError: Ray is not installed, or the cluster cannot be reached.
    """
    from labeling_assets.services.ray_cluster import RayCluster

    return _closed_at_end(RayCluster(address, cpus_per_worker))


@functools.cache
def _vision_model_on_ray(cluster: RayCluster) -> VisionModel:
    from labeling_assets.services.ray_engine import RayVisionModel
    from labeling_assets.services.vision.embedded import EmbeddedVisionModel

    return _closed_at_end(RayVisionModel(cluster, EmbeddedVisionModel, (1,)))


@functools.cache
def _embedder_on_ray(cluster: RayCluster, name: str, device: str, *others: Hashable) -> Embedder:
    from labeling_assets.services.ray_engine import RayEmbedder

    may_use_gpu = name != "embedded" and device.startswith(("auto", "cuda"))
    # Ray shows a worker its own GPU alone, whose number is 0 there.
    values = (name, device.partition(":")[0], *others)
    return _closed_at_end(RayEmbedder(cluster, embedder, values, on_gpu=may_use_gpu))


@functools.cache
def vector_store(
    database: ProductDatabase, uri: str, token: str, collection: str, index: str, identity: EmbedderIdentity
) -> MilvusStore:
    """The Milvus collection for the vectors of an embedder; one writer at a time, by a lease in Postgres."""
    from labeling_assets.services.milvus import MilvusStore

    return _closed_at_end(
        MilvusStore(
            uri, token, collection, index, identity, lambda: writer_lease(database.engine, f"milvus:{collection}")
        )
    )


def close_services() -> None:
    """Close every service of this process, last made first, and forget it; called at exit."""
    for factory in (product_database, image_store, vision_model, embedder, vector_store):
        factory.cache_clear()
    for on_ray in (ray_cluster, _vision_model_on_ray, _embedder_on_ray):
        on_ray.cache_clear()
    _kept.close()


atexit.register(close_services)


def _closed_at_end(service: Service) -> Service:
    _kept.callback(service.close)
    return service


class Services:
    """The services of a home, for callers outside Dagster; models compute in this process, whatever the engine is.

    Args:
        settings: With all addresses filled in, as `instance.prepare` returns them.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @property
    def product_database(self) -> ProductDatabase:
        """See `product_database`."""
        url = self._settings.postgres_url
        if url is None:
            raise ConfigurationError("LABELING_POSTGRES_URL is not known.", "Run `labeling up`.")
        return product_database(url.get_secret_value(), self._settings.source_table, self._settings.timezone)

    @property
    def source_days(self) -> SourceDays:
        """See `source_days`."""
        return source_days(self.product_database)

    @property
    def image_store(self) -> ImageStore:
        """See `image_store`."""
        settings = self._settings
        return image_store(self.product_database, settings.storage_root, settings.allow_private_image_hosts)

    @property
    def vision_model(self) -> VisionModel:
        """See `vision_model`."""
        settings = self._settings
        key = settings.openai_api_key
        return vision_model(
            settings.vision_backend,
            settings.vision_model,
            settings.vision_hosts,
            key.get_secret_value() if key else "",
            settings.vision_slots,
            settings.vision_timeout_seconds,
            settings.vision_context_tokens,
            settings.vision_requests_per_minute,
            settings.vision_tokens_per_minute,
        )

    def other_vision_model(self, backend: str, model: str) -> VisionModel:
        """The vision model of another backend or name, as it would be were it the one in the settings."""
        chosen = {"vision_backend": backend, "vision_model": model}
        return Services(self._settings.model_copy(update=chosen)).vision_model

    @property
    def embedder(self) -> Embedder:
        """See `embedder`."""
        settings = self._settings
        return embedder(
            settings.embedder,
            settings.device,
            settings.dtype,
            settings.embedder_dimension,
            settings.embedder_batch,
            settings.gpu_memory_share,
        )

    @property
    def vector_store(self) -> MilvusStore:
        """See `vector_store`."""
        settings = self._settings
        token = settings.milvus_token
        return vector_store(
            self.product_database,
            settings.milvus_uri or "",
            token.get_secret_value() if token else "",
            settings.milvus_collection,
            settings.milvus_index,
            self.embedder.identity,
        )
