"""Real services with one day of the demo catalogue, for benchmarks of whole days.

The services are always temporary ones of our own, never those of the caller's settings: what a round leaves behind is
emptied before the next.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import shutil
import uuid
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from urllib.parse import urlsplit

import sqlalchemy as sa

from benchmarks.measure import temporary_folder
from labeling_assets.embedded.demo.catalogue import build_catalogue
from labeling_assets.embedded.demo.catalogue_folder import write_catalogue
from labeling_assets.embedded.demo.source_table import load_catalogue_rows
from labeling_assets.embedded.image_host import ImageHostServer
from labeling_assets.embedded.milvus import MilvusServer
from labeling_assets.embedded.postgres import PostgresServer
from labeling_assets.services.postgres import create_engine, migrate
from labeling_assets.services.tables import data_label, metadata

DAY = dt.date(2026, 3, 14)


@dataclass(frozen=True)
class DemoServers:
    """PostgreSQL, Milvus Lite and the demo's image host, each a process of its own.

    Attributes:
        folder: Where everything lies.
        engine: On the migrated database with the source table.
        milvus_uri: Address of Milvus.
        image_host_url: Address of the image host.
    """

    folder: Path
    engine: sa.Engine
    milvus_uri: str
    image_host_url: str

    def fill(self, products: int, image_reuse: float) -> set[str]:
        """Make the source table and the image host hold `DAY` with so many ordinary products; returns their ids.

        The images are drawn in a process of its own, which takes the memory of drawing with it.
        """
        catalogue = build_catalogue(
            days=1, products_per_day=products, last_day=DAY, image_reuse=image_reuse, has_traps=False
        )
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as child:
            child.submit(write_catalogue, catalogue, self.folder / "demo").result()
        load_catalogue_rows(self.engine, catalogue, self.image_host_url)
        return {str(row.product_id) for row in catalogue.rows}

    def empty(self) -> dict[str, str]:
        """Forget every day that was run; returns the settings of an installation that has never run one."""
        tables = ", ".join(f"{table.schema}.{table.name}" for table in metadata.sorted_tables)
        with self.engine.begin() as connection:
            connection.execute(sa.text(f"truncate {tables}"))
            data_label.drop(connection, checkfirst=True)
        shutil.rmtree(self.folder / "home", ignore_errors=True)
        return {
            "LABELING_HOME": str(self.folder / "home"),
            "LABELING_POSTGRES_URL": self.engine.url.render_as_string(hide_password=False),
            "LABELING_MILVUS_URI": self.milvus_uri,
            "LABELING_MILVUS_COLLECTION": f"bench_{uuid.uuid4().hex}",
            "LABELING_ALLOW_PRIVATE_IMAGE_HOSTS": urlsplit(self.image_host_url).netloc,
        }


@contextlib.contextmanager
def demo_servers(image_latency_ms: float) -> Iterator[DemoServers]:
    """The services, as long as the block lasts.

    Args:
        image_latency_ms: What the image host waits before each answer.
    """
    with contextlib.ExitStack() as running:
        folder = running.enter_context(temporary_folder())
        postgres = running.enter_context(PostgresServer(folder / "postgres"))
        milvus = running.enter_context(MilvusServer(folder / "milvus"))
        images = running.enter_context(_SlowImageHost(folder / "demo", image_latency_ms))
        engine = create_engine(postgres.url("labeling"))
        running.callback(engine.dispose)
        migrate(engine)
        yield DemoServers(folder, engine, milvus.uri, f"http://127.0.0.1:{images.port}")


class _SlowImageHost(ImageHostServer):
    """The demo's image host, as far away as `latency_ms`."""

    def __init__(self, demo_folder: Path, latency_ms: float) -> None:
        super().__init__(demo_folder.with_name("image_host"), 0, demo_folder)
        self._latency_ms = latency_ms

    def command(self) -> list[str]:
        return [*super().command(), "--latency-ms", str(self._latency_ms)]
