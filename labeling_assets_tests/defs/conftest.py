"""What tests of sensors and schedules need: an instance, a source table, and the definitions on it."""

from __future__ import annotations

from collections.abc import Iterator

import dagster as dg
import pytest
import sqlalchemy as sa

from labeling_assets.definitions import build_defs
from labeling_assets.products.queries import SOURCE_COLUMNS
from labeling_assets_tests.defs.source_rows import TABLE


@pytest.fixture(scope="module")
def module_instance() -> Iterator[dg.DagsterInstance]:
    """One that is kept on disk, as the contexts of sensors and schedules need it."""
    with dg.instance_for_test() as instance:
        yield instance


@pytest.fixture
def instance(module_instance: dg.DagsterInstance) -> dg.DagsterInstance:
    """Without runs and events."""
    module_instance.wipe()
    return module_instance


@pytest.fixture
def source(engine: sa.Engine) -> sa.Engine:
    with engine.begin() as connection:
        connection.execute(sa.text("create schema ai_craw"))
        names = ", ".join(f"{name} {kind}" for name, kind in SOURCE_COLUMNS.items())
        connection.execute(sa.text(f"create table {TABLE} ({names})"))
    return engine


@pytest.fixture(scope="module")
def module_definitions() -> dg.Definitions:
    return build_defs()


@pytest.fixture
def definitions(
    module_definitions: dg.Definitions, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> dg.Definitions:
    """Those of the code location, on the shared PostgreSQL."""
    monkeypatch.setenv("LABELING_POSTGRES_URL", postgres_url)
    return module_definitions
