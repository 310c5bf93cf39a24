"""Claims on images, so that two processes never ask a model about the same image at the same time.

A claim is an advisory lock of PostgreSQL: other processes see it at once, and it goes with the connection, also on
kill -9. All claims of one labeler share one connection.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
import time

import sqlalchemy as sa

from labeling_assets.errors import ServiceUnavailableError
from labeling_assets.services.postgres import database_errors, waits_out_outages

MAX_WAIT_SECONDS = 900.0
"""When a host dies without closing its connections, PostgreSQL keeps their locks for hours; nobody waits that long."""


class Claims:
    """Claims of one labeler. Thread-safe. Nothing here waits for another process, so no two can wait for each other.

    Args:
        engine: From `create_engine`.
        namespace: What else, besides the name, makes two claims the same.
    """

    def __init__(self, engine: sa.Engine, namespace: str) -> None:
        self._engine = engine
        self._namespace = namespace
        self._connection: sa.Connection | None = None
        self._first_refusals: dict[str, float] = {}
        self._one_at_a_time = threading.Lock()

    @waits_out_outages
    def take(self, name: str) -> bool:
        """Claim a name; False when another process has it, unless it has had it for too long.

        Raises:
            ServiceUnavailableError: PostgreSQL does not answer.
        """
        if self._call("select pg_try_advisory_lock(%s)", name):
            return True
        first_refusal = self._first_refusals.setdefault(name, time.monotonic())
        return time.monotonic() - first_refusal > MAX_WAIT_SECONDS

    def give_up(self, name: str) -> None:
        """Let others claim a name that was taken here."""
        # Where the connection is lost, so is the lock: nothing is left to give up.
        with contextlib.suppress(ServiceUnavailableError):
            self._call("select pg_advisory_unlock(%s)", name)

    def _call(self, statement: str, name: str) -> bool:
        digest = hashlib.sha256(f"{self._namespace}:{name}".encode()).digest()
        key = int.from_bytes(digest[:8], "big", signed=True)
        with self._one_at_a_time, database_errors("An image cannot be claimed"):
            if self._connection is None:
                self._connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
            try:
                return bool(self._connection.exec_driver_sql(statement, (key,)).scalar())
            except sa.exc.DBAPIError:
                self._drop_connection()
                raise

    def close(self) -> None:
        """Give up all claims."""
        with self._one_at_a_time:
            self._drop_connection()

    def _drop_connection(self) -> None:
        """Close the connection in earnest: one that goes back to the pool keeps its locks."""
        if self._connection is not None:
            self._connection.invalidate()
            self._connection.close()
            self._connection = None
