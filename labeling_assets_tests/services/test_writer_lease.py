"""The writer lease: one writer at a time, and one that was cut off is refused."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
import sqlalchemy as sa

from labeling_assets.errors import ServiceUnavailableError, SupersededError
from labeling_assets.services.postgres import create_engine
from labeling_assets.services.writer_lease import writer_lease


def remaining_seconds(engine: sa.Engine) -> float:
    query = (
        "select extract(epoch from valid_until - clock_timestamp()) from labeling.writer_leases where name = 'store'"
    )
    with engine.connect() as connection:
        return float(connection.execute(sa.text(query)).scalar_one())


def cut_off(engine: sa.Engine) -> None:
    """End the connection of the one who holds the lock, as a restart of PostgreSQL does."""
    with engine.connect() as connection:
        connection.execute(sa.text("select pg_terminate_backend(pid) from pg_locks where locktype = 'advisory'"))


def write_after(event: Callable[[], None], engine: sa.Engine, lease_seconds: float = 60.0) -> None:
    """Write once, and once more after something happened."""
    with writer_lease(engine, "store", lease_seconds) as guard:
        guard()
        event()
        guard()


def test_writers_come_one_after_the_other(engine: sa.Engine) -> None:
    inside, order = threading.Event(), []

    def second() -> None:
        inside.wait()
        with writer_lease(engine, "store") as guard:
            guard()
            order.append("second")

    other = threading.Thread(target=second)
    other.start()
    with writer_lease(engine, "store") as guard:
        inside.set()
        guard()
        order.append("first")
    other.join()
    assert order == ["first", "second"]


def test_a_writer_whose_lock_is_gone_may_not_write(engine: sa.Engine, postgres_url: str) -> None:
    own = create_engine(postgres_url)
    with pytest.raises(ServiceUnavailableError):
        write_after(lambda: cut_off(engine), own)
    own.dispose()


def test_a_writer_that_was_overtaken_is_refused(engine: sa.Engine) -> None:
    def overtake() -> None:
        with engine.begin() as connection:
            connection.execute(sa.text("update labeling.writer_leases set token = token + 1"))

    with pytest.raises(SupersededError):
        write_after(overtake, engine)


def test_the_next_writer_waits_until_the_last_write_of_a_lost_one_is_over(engine: sa.Engine, postgres_url: str) -> None:
    lost = create_engine(postgres_url)
    with pytest.raises(ServiceUnavailableError):
        write_after(lambda: cut_off(engine), lost, lease_seconds=1.0)
    lost.dispose()
    assert remaining_seconds(engine) > 0
    with writer_lease(engine, "store"):
        assert remaining_seconds(engine) <= 0


def test_a_writer_that_ended_in_good_order_lets_the_next_in_at_once(engine: sa.Engine) -> None:
    with writer_lease(engine, "store", lease_seconds=3600) as guard:
        guard()
    assert remaining_seconds(engine) <= 0
