"""Services that the settings give: they are used, and not started."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa
from pydantic import SecretStr

from labeling_assets.embedded import stack
from labeling_assets.embedded.postgres import PostgresServer
from labeling_assets.errors import ConfigurationError
from labeling_assets.settings import Settings
from labeling_assets_tests.embedded.stack_probes import (
    execute,
    urls,
)


def test_services_that_the_settings_give_are_not_started(other: Settings, postgres_url: str, milvus_uri: str) -> None:
    bare = postgres_url.replace("postgresql+psycopg2://", "postgres://")
    given = other.model_copy(update={"postgres_url": SecretStr(bare), "milvus_uri": milvus_uri})
    started = stack.start(given)
    assert not other.home.exists()
    assert urls(started) == [postgres_url, milvus_uri]
    assert started.dagster_postgres_url == SecretStr(postgres_url.removesuffix("labeling") + "dagster")
    shown = stack.status(given)
    assert shown.is_running
    assert [(service.is_external, service.is_healthy) for service in shown.services] == [(True, True), (True, True)]
    assert not stack.stop(given)


def test_one_external_service_leaves_the_other_ours(other: Settings, postgres_url: str) -> None:
    given = other.model_copy(update={"postgres_url": SecretStr(postgres_url)})
    started = stack.start(given)
    assert not (other.home / "postgres").exists()
    assert urls(started)[0] == postgres_url
    assert [service.is_external for service in stack.status(given).services] == [True, False]
    with pytest.raises(ConfigurationError, match="started without postgres of its own") as caught:
        stack.start(other)
    assert "labeling down" in caught.value.remedy


@pytest.mark.parametrize(
    ("change", "kind", "match"),
    [
        (("//labeling:", "//stranger:"), ConfigurationError, "authentication failed"),
        (("/labeling?", "/missing?"), ConfigurationError, "does not exist"),
        (("postgresql+psycopg2", "mysql"), ConfigurationError, "cannot be read"),
    ],
)
def test_a_wrong_external_address_is_refused_without_its_password(
    other: Settings, postgres_url: str, change: tuple[str, str], kind: type[Exception], match: str
) -> None:
    url = (postgres_url + "?").replace(*change)
    with pytest.raises(kind, match=match) as caught:
        stack.start(other.model_copy(update={"postgres_url": SecretStr(url), "milvus_uri": "http://127.0.0.1:1"}))
    password = sa.make_url(postgres_url).password
    assert isinstance(password, str)
    assert password not in str(caught.value)


def test_dagsters_database_is_made_on_an_external_server_or_its_absence_explained(other: Settings, home: Path) -> None:
    given = other.model_copy(update={"milvus_uri": "http://127.0.0.1:1"})
    with PostgresServer(home / "postgres") as server:
        ours = Settings(postgres_url=SecretStr(server.url()))
        engine = sa.create_engine(server.url(), isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
        with engine.connect() as connection:
            connection.execute(sa.text("drop database dagster"))
            connection.execute(sa.text("create role guest login password 'p'"))
        url = sa.make_url(server.url()).set(username="guest", password="p").render_as_string(hide_password=False)
        guest = given.model_copy(update={"postgres_url": SecretStr(url)})
        with pytest.raises(ConfigurationError, match="permission denied to create database") as caught:
            stack.start(guest)
        assert "LABELING_DAGSTER_POSTGRES_URL" in caught.value.remedy
        elsewhere = guest.model_copy(update={"dagster_postgres_url": SecretStr("postgresql://u:p@elsewhere/d")})
        assert stack.start(elsewhere).dagster_postgres_url == SecretStr("postgresql+psycopg2://u:p@elsewhere/d")
        stack.start(given.model_copy(update={"postgres_url": ours.postgres_url}))
        assert execute(ours, "select 1 from pg_database where datname = 'dagster'") == [(1,)]
