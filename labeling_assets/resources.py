"""One thin resource for each outside system, and the settings they are bound to.

A resource holds plain values, which the UI shows, and hands out the service of `services/connect.py`. Addresses and
keys that may hold a secret are `dg.EnvVar`, so that the UI shows the name of the variable alone.
"""

import datetime as dt
from collections.abc import Sequence
from typing import Any

import dagster as dg
import pyarrow as pa
from upath import UPath

from labeling_assets.products.cost import Prices
from labeling_assets.services import connect
from labeling_assets.services.day_state import SyncedDays
from labeling_assets.services.day_tables import (
    day_file,
    earlier_rows,
    newest_rows_elsewhere,
    read_day,
    write_table,
)
from labeling_assets.services.embedding import Embedder
from labeling_assets.services.embedding.devices import Gpu, visible_gpus
from labeling_assets.services.images.files import open_root
from labeling_assets.services.images.store import ImageStore
from labeling_assets.services.ledger import LabelLedger
from labeling_assets.services.milvus import MilvusStore
from labeling_assets.services.near_duplicates import NearDuplicates
from labeling_assets.services.postgres import ProductDatabase
from labeling_assets.services.quarantine import Quarantine
from labeling_assets.services.source_days import SourceDays
from labeling_assets.services.vision import VisionModel
from labeling_assets.services.vision.budget import Budget, shared_budget
from labeling_assets.settings import Settings


class ProductDatabaseResource(dg.ConfigurableResource[ProductDatabase]):
    """PostgreSQL: the source table, `data_label`, and the tables of ours."""

    url: str
    source_table: str
    timezone: str

    def get(self) -> ProductDatabase:
        """The service; connections are made when first used."""
        return connect.product_database(self.url, self.source_table, self.timezone)

    def quarantine(self) -> Quarantine:
        """The quarantine in the same database."""
        return Quarantine(self.get().engine)

    def source_days(self) -> SourceDays:
        """The fingerprints of the source's days."""
        return connect.source_days(self.get())

    def synced_days(self) -> SyncedDays:
        """Which state of the source each store holds."""
        return SyncedDays(self.get().engine)

    def ledger(self) -> LabelLedger:
        """The label ledger in the same database."""
        return LabelLedger(self.get().engine)


class ImageStoreResource(dg.ConfigurableResource[ImageStore]):
    """Images by content, fetched once; private addresses are refused unless allowed."""

    product_database: dg.ResourceDependency[ProductDatabaseResource]
    root: str
    allowed_private_hosts: str
    near_duplicate_bits: int

    def get(self) -> ImageStore:
        """The service."""
        hosts = tuple(filter(None, self.allowed_private_hosts.split(",")))
        return connect.image_store(self.product_database.get(), self.root, hosts)

    def near_duplicates(self) -> NearDuplicates:
        """The near duplicates among all images."""
        return NearDuplicates(self.product_database.get().engine, self.near_duplicate_bits)


class GpuResource(dg.ConfigurableResource[Sequence[Gpu]]):
    """Where models compute: in this process or on Ray; on which device, in which number type, in how much memory.

    Works without a GPU: `auto` is then the CPU.
    """

    device: str
    dtype: str
    memory_share: float
    engine: str = "local"
    ray_address: str = ""
    ray_cpus_per_worker: float = 1.0

    def visible_devices(self) -> Sequence[Gpu]:
        """The GPUs that this process sees; none where there is none."""
        return visible_gpus()

    def compute_engine(self) -> connect.Engine:
        """This process or the Ray cluster."""
        return connect.Engine(self.engine, self.ray_address, self.ray_cpus_per_worker)


class VisionModelResource(dg.ConfigurableResource[VisionModel]):
    """The model that labels images."""

    gpu: dg.ResourceDependency[GpuResource]
    backend: str
    model: str
    hosts: list[str]
    api_key: str
    slots_per_host: int
    timeout_seconds: float
    context_tokens: int
    description_language: str
    share_labels: str
    requests_per_minute: int = 0
    tokens_per_minute: int = 0
    price_prompt_tokens: float = 0.0
    price_output_tokens: float = 0.0
    price_gpu_hour: float = 0.0

    def get(self) -> VisionModel:
        """The model; loaded once a process."""
        return connect.vision_model_on(
            self.gpu.compute_engine(),
            self.backend,
            self.model,
            tuple(self.hosts),
            self.api_key,
            self.slots_per_host,
            self.timeout_seconds,
            self.context_tokens,
            self.requests_per_minute,
            self.tokens_per_minute,
        )

    @property
    def prices(self) -> Prices:
        """What tokens and time of the model cost."""
        return Prices(self.price_prompt_tokens, self.price_output_tokens, self.price_gpu_hour)

    def budget(self, amount: float, spender: str) -> Budget:
        """What may be spent on the model, by all that spend under a name.

        Raises:
            ConfigurationError: The amount is no amount, or nothing has a price.
        """
        return shared_budget(spender, amount, self.prices, self.timeout_seconds, self.context_tokens)

    def other(self, backend: str, model: str) -> VisionModel:
        """A model of another backend or name, at the addresses of this process's settings; to compare with."""
        if (backend, model) == (self.backend, self.model):
            return self.get()
        return connect.Services(Settings.load()).other_vision_model(backend, model)


class EmbedderResource(dg.ConfigurableResource[Embedder]):
    """The model that turns texts and images into vectors."""

    gpu: dg.ResourceDependency[GpuResource]
    name: str
    dimension: int
    batch_size: int

    def get(self) -> Embedder:
        """The embedder; loaded once a process."""
        return connect.embedder_on(
            self.gpu.compute_engine(),
            self.name,
            self.gpu.device,
            self.gpu.dtype,
            self.dimension,
            self.batch_size,
            self.gpu.memory_share,
        )


class VectorStoreResource(dg.ConfigurableResource[MilvusStore]):
    """The Milvus collection."""

    product_database: dg.ResourceDependency[ProductDatabaseResource]
    embedder: dg.ResourceDependency[EmbedderResource]
    uri: str
    token: str
    collection: str
    index: str

    def get(self) -> MilvusStore:
        """The store."""
        identity = self.embedder.get().identity
        return connect.vector_store(
            self.product_database.get(), self.uri, self.token, self.collection, self.index, identity
        )


class StorageResource(dg.ConfigurableResource[UPath]):
    """Where the files between the stages are, one per asset and day: a folder, `s3://…` or `gs://…`.

    The assets read and write through here and not through an IO manager: a run of many days writes each day's file as
    soon as it is done, and holds one day in memory.
    """

    root: str

    def read(self, asset: str, day: dt.date) -> pa.Table:
        """The table of an asset of a day.

        Raises:
            DayError: There is no file, or it cannot be read.
        """
        return read_day(open_root(self.root), asset, day)

    def write(self, asset: str, day: dt.date, table: pa.Table) -> dict[str, Any]:
        """Write the table of an asset of a day, so that a reader never sees a part; returns metadata for Dagster."""
        path = day_file(open_root(self.root), asset, day)
        write_table(path, table)
        return {"path": dg.MetadataValue.path(str(path)), "size_bytes": path.stat().st_size}

    def newest_elsewhere(self, asset: str, day: dt.date, ids: Sequence[str]) -> pa.Table | None:
        """The newest row of each product among the files of an asset's other days; None when there is none."""
        return newest_rows_elsewhere(open_root(self.root), asset, day, ids)

    def earlier_rows(self, asset: str, day: dt.date, days: int, columns: Sequence[str]) -> pa.Table | None:
        """Some columns of an asset's files of up to so many earlier days; None when there is none."""
        return earlier_rows(open_root(self.root), asset, day, days, columns)


def default_resources(settings: Settings) -> dict[str, Any]:
    """The resources of the settings, by role. Only variables that may hold a secret are read later, by name."""
    product_database = ProductDatabaseResource(
        url=dg.EnvVar("LABELING_POSTGRES_URL"), source_table=settings.source_table, timezone=settings.timezone
    )
    storage = StorageResource(root=settings.storage_root)
    gpu = GpuResource(
        device=settings.device,
        dtype=settings.dtype,
        memory_share=settings.gpu_memory_share,
        engine=settings.engine,
        ray_address=settings.ray_address or "",
        ray_cpus_per_worker=settings.ray_cpus_per_worker,
    )
    embedder = EmbedderResource(
        gpu=gpu, name=settings.embedder, dimension=settings.embedder_dimension, batch_size=settings.embedder_batch
    )
    return {
        "product_database": product_database,
        "image_store": ImageStoreResource(
            product_database=product_database,
            root=settings.storage_root,
            allowed_private_hosts=",".join(settings.allow_private_image_hosts),
            near_duplicate_bits=settings.near_duplicate_bits,
        ),
        "vision_model": VisionModelResource(
            gpu=gpu,
            backend=settings.vision_backend,
            model=settings.vision_model,
            hosts=list(settings.vision_hosts),
            api_key=dg.EnvVar("LABELING_OPENAI_API_KEY") if settings.openai_api_key else "",
            slots_per_host=settings.vision_slots,
            timeout_seconds=settings.vision_timeout_seconds,
            context_tokens=settings.vision_context_tokens,
            description_language=settings.description_language,
            requests_per_minute=settings.vision_requests_per_minute,
            tokens_per_minute=settings.vision_tokens_per_minute,
            price_prompt_tokens=settings.prices.prompt_tokens,
            price_output_tokens=settings.prices.output_tokens,
            price_gpu_hour=settings.prices.gpu_hour,
            share_labels=settings.share_labels,
        ),
        "gpu": gpu,
        "embedder": embedder,
        "vector_store": VectorStoreResource(
            product_database=product_database,
            embedder=embedder,
            uri=dg.EnvVar("LABELING_MILVUS_URI"),
            token=dg.EnvVar("LABELING_MILVUS_TOKEN") if settings.milvus_token else "",
            collection=settings.milvus_collection,
            index=settings.milvus_index,
        ),
        "storage": storage,
    }
