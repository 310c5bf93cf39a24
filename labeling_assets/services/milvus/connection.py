"""One connection to Milvus: deadlines, retries, and pymilvus errors turned into ours.

Everything that the store asks of Milvus goes through `MilvusConnection.call`. All calls may be repeated: reads, upserts by key,
deletes by key, flush and load give the same state however often they run.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_exponential_jitter

from labeling_assets.errors import ConfigurationError, ServiceUnavailableError

if TYPE_CHECKING:
    from pymilvus import MilvusClient

CONNECT_SECONDS = 10.0
"""A Milvus that is down when first asked is reported after this time."""
OUTAGE_SECONDS = 30.0
"""How long a call outlasts a server that went away: Milvus Lite restarts in 4 s and then replays its log."""
CALL_SECONDS = 60.0
FLUSH_SECONDS = 300.0
LOAD_SECONDS = 600.0

NOT_LOADED_CODES = {101, 103}
"""Collection not loaded, not fully loaded (milvus pkg/util/merr): so after a restart of the server."""
TRANSIENT_CODES = {2, 4, 8}
"""Service unavailable, too many requests, rate limit (milvus pkg/util/merr); 2 is also pymilvus's failed connection."""


class MilvusConnection:
    """A connection that is opened at the first call and shared by the threads of this process.

    Args:
        uri: `http://host:port`.
        token: `user:password` or API key; empty where the server asks for none.
    """

    def __init__(self, uri: str, token: str = "") -> None:
        self._uri = uri
        self._token = token
        self._client: MilvusClient | None = None
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        """The address, without user, password and token."""
        return f"MilvusConnection({self.address})"

    @property
    def address(self) -> str:
        """Scheme, host and port of the server; fit for messages."""
        parts = urlsplit(self._uri)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"

    def call(self, method: str, *args: Any, seconds: float = CALL_SECONDS, **kwargs: Any) -> Any:  # noqa: ANN401 - pymilvus has no types
        """The result of a method of `MilvusClient`, asked again while the server is away or loads the collection.

        Args:
            method: Name of the method.
            *args: Its arguments; the first is the collection or alias concerned.
            seconds: Deadline of one attempt.
            **kwargs: Its named arguments.

        Raises:
            ServiceUnavailableError: The server does not answer, also after retries.
            ConfigurationError: The server refuses the token.
        """
        retrying = Retrying(
            retry=retry_if_exception_type(_TransientError),
            stop=stop_after_delay(OUTAGE_SECONDS),
            wait=wait_exponential_jitter(initial=0.2, max=5),
            reraise=True,
        )
        try:
            return retrying(self._attempt, method, args, seconds, kwargs)
        except _TransientError as error:
            raise self._unavailable(error.__cause__) from error.__cause__

    def _attempt(self, method: str, args: tuple[Any, ...], seconds: float, kwargs: dict[str, Any]) -> Any:  # noqa: ANN401 - idem
        client = self._connected()
        try:
            return getattr(client, method)(*args, timeout=seconds, **kwargs)
        except Exception as error:
            if _code(error) in NOT_LOADED_CODES:
                self._reload(client, args[0])
                raise _TransientError from error
            if _is_transient(error):
                raise _TransientError from error
            raise
