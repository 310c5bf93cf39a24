"""Claims on images, so that two processes never ask a model about the same image at the same time.

A claim is an advisory lock of PostgreSQL: other processes see it at once, and it goes with the connection, also on
kill -9. All claims of one labeler share one connection.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
import time
from collections.abc import Iterator

import sqlalchemy as sa

from labeling_assets.errors import ServiceUnavailableError
from labeling_assets.services.ledger import waits_out_outages
from labeling_assets.services.postgres import database_errors

POLL_SECONDS = 0.1
MAX_WAIT_SECONDS = 600.0
"""When a host dies without closing its connections, PostgreSQL keeps their locks for hours; nobody waits that long."""


class Claims:
    """Claims of one labeler. Thread-safe.

    Args:
        engine: From `create_engine`.
        namespace: What else, besides the name, makes two claims the same.
    """

    def __init__(self, engine: sa.Engine, namespace: str) -> None:
        self._engine = engine
        self._namespace = namespace
        self._connection: sa.Connection | None = None
        self._one_at_a_time = threading.Lock()
        self._is_closing = threading.Event()

    @contextlib.contextmanager
    def hold(self, name: str) -> Iterator[None]:
        """Claim a name, waiting while another process has it, but not for ever.

        Raises:
            InterruptedError: The claims were closed meanwhile.
            ServiceUnavailableError: PostgreSQL does not answer.
        """
        key = int.from_bytes(hashlib.sha256(f"{self._namespace}:{name}".encode()).digest()[:8], "big", signed=True)
        deadline = time.monotonic() + MAX_WAIT_SECONDS
        while not (is_mine := self._take(key)) and time.monotonic() < deadline:
            if self._is_closing.wait(POLL_SECONDS):
                raise InterruptedError("closed while another process has the claim")
        try:
            yield
        finally:
            if is_mine:
                # Where the connection is lost, so is the lock: nothing is left to give up.
                with contextlib.suppress(ServiceUnavailableError):
                    self._call("select pg_advisory_unlock(:key)", key)

    @waits_out_outages
    def _take(self, key: int) -> bool:
        return self._call("select pg_try_advisory_lock(:key)", key)

    def _call(self, statement: str, key: int) -> bool:
        with self._one_at_a_time, database_errors("An image cannot be claimed"):
            if self._connection is None:
                self._connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
            try:
                return bool(self._connection.execute(sa.text(statement), {"key": key}).scalar())
            except sa.exc.DBAPIError:
                self._drop_connection()
                raise

    def interrupt(self) -> None:
        """End all waiting."""
        self._is_closing.set()

    def close(self) -> None:
        """Give up all claims."""
        self.interrupt()
        with self._one_at_a_time:
            self._drop_connection()

    def _drop_connection(self) -> None:
        """Close the connection in earnest: one that goes back to the pool keeps its locks."""
        if self._connection is not None:
            self._connection.invalidate()
            self._connection.close()
            self._connection = None
