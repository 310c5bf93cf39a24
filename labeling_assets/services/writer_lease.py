"""One writer at a time for a store that cannot exclude writers by itself, also when a writer is cut off.

A lock of PostgreSQL alone does not do: it goes when the connection breaks, while its holder, who does not know, writes
on beside the next one. So each writer has a token, greater than that of all before it, and extends its lease before
every write. A writer whose token is no longer the greatest, or whose connection is gone, is refused. The next writer
waits until the last write that its predecessor can have begun is over.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

import sqlalchemy as sa

from labeling_assets.errors import SupersededError
from labeling_assets.services.postgres import advisory_lock, database_errors

LEASE_SECONDS = 60.0
"""Longer than one write may take, its repetitions included; see `services/milvus/rows.py`."""

Guard = Callable[[], None]

_TAKE = sa.text(
    "insert into labeling.writer_leases as held (name, token, valid_until) values (:name, 1, now()) "
    "on conflict (name) do update set token = held.token + 1 "
    "returning token, greatest(extract(epoch from valid_until - clock_timestamp()), 0) as wait_seconds"
)
_EXTEND = sa.text(
    "update labeling.writer_leases set valid_until = clock_timestamp() + make_interval(secs => :seconds) "
    "where name = :name and token = :token"
)


@contextlib.contextmanager
def writer_lease(engine: sa.Engine, name: str, lease_seconds: float = LEASE_SECONDS) -> Iterator[Guard]:
    """Be the only writer of what the name says; waits for the one before.

    Args:
        engine: From `create_engine`, on a migrated database.
        name: What is written, such as `milvus:<collection>`.
        lease_seconds: Time in which a write that the guard let pass is over.

    Yields:
        The guard, to be called before every write. It raises `SupersededError` when another writer has taken over, and
        `ServiceUnavailableError` when PostgreSQL cannot be asked.
    """
    with advisory_lock(engine, name) as connection:
        token, wait_seconds = connection.execute(_TAKE, {"name": name}).one()
        time.sleep(float(wait_seconds))

        def extend(seconds: float) -> bool:
            values = {"name": name, "token": token, "seconds": seconds}
            return connection.execute(_EXTEND, values).rowcount == 1

        def guard() -> None:
            with database_errors(f"The lease of {name} cannot be extended"):
                if not extend(lease_seconds):
                    raise SupersededError(f"Another writer has taken {name} over.", "The run is tried again.")

        yield guard
        extend(0)  # not after an error: what was begun may still be at work in the store
