"""Real services that the tests share, one of each for the whole session."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, settings

from labeling_assets.embedded.milvus import MilvusServer
from labeling_assets.embedded.postgres import PostgresServer
from labeling_assets.services.postgres import create_engine, migrate
from labeling_assets.services.tables import metadata

# No test asserts a time: a busy machine is not a bug. Examples are the same on every run.
settings.register_profile("labeling", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("labeling")


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests see none of the caller's settings."""
    for name in list(os.environ):
        if name.startswith("LABELING_") and not name.startswith("LABELING_TEST_"):
            monkeypatch.delenv(name)


def _traversable_folder() -> Path:
    """A folder that user `nobody` may enter, which pytest's own temporary folders are not."""
    folder = Path(tempfile.mkdtemp(prefix="labeling test "))
    folder.chmod(0o755)
    return folder


@pytest.fixture
def home() -> Iterator[Path]:
    """A fresh folder for LABELING_HOME; its path contains a space."""
    folder = _traversable_folder()
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A real PostgreSQL."""
    folder = _traversable_folder()
    with PostgresServer(folder / "postgres") as server:
        yield server
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def postgres_url(postgres_server: PostgresServer) -> str:
    """URL of a migrated database on a real PostgreSQL."""
    url = str(postgres_server.url("labeling"))
    engine = create_engine(url)
    migrate(engine)
    engine.dispose()
    return url


@pytest.fixture
def engine(postgres_url: str) -> Iterator[sa.Engine]:
    """An engine on the shared database, whose tables are empty."""
    engine = create_engine(postgres_url)
    with engine.begin() as connection:
        tables = ", ".join(f"{table.schema}.{table.name}" for table in metadata.sorted_tables)
        connection.execute(sa.text(f"truncate {tables}"))
        connection.execute(sa.text("drop schema if exists ai_craw cascade"))
    yield engine
    engine.dispose()


@pytest.fixture(scope="session")
def milvus_uri() -> Iterator[str]:
    """Address of a real Milvus Lite server."""
    folder = _traversable_folder()
    with MilvusServer(folder / "milvus") as server:
        yield server.uri
    shutil.rmtree(folder)
