"""Dagster's storage waits for its database, for a bounded time."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import psycopg2
import pytest
import sqlalchemy as sa
from dagster_postgres import utils
from dagster_postgres.utils import DagsterPostgresException

from labeling_assets import storage_waits

MORE_THAN_DAGSTER_TRIES = 8


@pytest.fixture
def attempts(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How often a connection was asked for; the pauses are short."""
    monkeypatch.setattr(utils, "retry_pg_connection_fn", utils.retry_pg_connection_fn)  # puts it back at the end
    monkeypatch.setattr(storage_waits, "LONGEST_PAUSE_SECONDS", 0.01)
    storage_waits.wait_out_outages()
    return itertools.count(1).__next__


def engine_that(connect: Callable[[], object]) -> sa.Engine:
    return sa.create_engine("postgresql+psycopg2://", creator=connect, poolclass=sa.NullPool)


def test_a_database_that_comes_back_is_waited_for(postgres_url: str, attempts: Callable[[], int]) -> None:
    def connect() -> object:
        if attempts() <= MORE_THAN_DAGSTER_TRIES:
            raise psycopg2.OperationalError("connection refused")
        url = sa.make_url(postgres_url)
        place = {"host": url.host, "port": url.port, "user": url.username, "dbname": url.database}
        return psycopg2.connect(**place, password=url.password)

    with utils.create_pg_connection(engine_that(connect)) as connection:
        assert connection.execute(sa.text("select 1")).scalar_one() == 1
    assert attempts() == MORE_THAN_DAGSTER_TRIES + 2


def test_a_database_that_stays_away_ends_in_dagsters_error(
    monkeypatch: pytest.MonkeyPatch, attempts: Callable[[], int]
) -> None:
    def connect() -> object:
        attempts()
        raise psycopg2.OperationalError("connection refused")

    monkeypatch.setattr(storage_waits, "OUTAGE_SECONDS", 0.05)
    with (
        pytest.raises(DagsterPostgresException, match="does not answer"),
        utils.create_pg_connection(engine_that(connect)),
    ):
        pass
    assert attempts() > 2


def test_an_error_that_is_not_of_the_connection_is_raised_at_once(attempts: Callable[[], int]) -> None:
    def connect() -> object:
        attempts()
        raise TypeError("a bug")

    with pytest.raises(TypeError), utils.create_pg_connection(engine_that(connect)):
        pass
    assert attempts() == 2
