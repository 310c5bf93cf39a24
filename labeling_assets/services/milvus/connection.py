"""One connection to Milvus: deadlines, retries, and pymilvus errors turned into ours.

Everything that the store asks of Milvus goes through `MilvusConnection.call`. Calls may be repeated: reads, upserts and
deletes by key, flush and load give the same state however often they run. Where the answer to a creation is lost, the
repetition fails, and the next `MilvusStore.ensure` finds it done.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tenacity import Retrying, retry_if_exception_type, stop_before_delay, wait_random_exponential

from labeling_assets.errors import ConfigurationError, LabelingError, ServiceUnavailableError

if TYPE_CHECKING:
    from pymilvus import MilvusClient

CONNECT_SECONDS = 10.0
"""A Milvus that is down when first asked is reported within this time."""
OUTAGE_SECONDS = 30.0
"""How long a call outlasts a server that went away: Milvus Lite restarts in 4 s and then replays its log."""
CALL_SECONDS = 60.0
FLUSH_SECONDS = 300.0
LOAD_SECONDS = 600.0

NOT_LOADED_CODES = {101, 103}
"""Collection not loaded, not fully loaded (milvus pkg/util/merr): so after a restart of the server."""
TRANSIENT_CODES = {2, 4, 8}
"""Unavailable, too many requests, rate limit (milvus pkg/util/merr); 2 is also pymilvus's failed connection."""

_GRPC_OPTIONS = {
    # pymilvus pings every 10 s, which a Milvus Lite server answers with `too_many_pings` and a closed connection.
    "grpc.keepalive_time_ms": 300_000,
    "grpc.keepalive_permit_without_calls": False,
    # gRPC's own pause between attempts grows to two minutes.
    "grpc.max_reconnect_backoff_ms": 2_000,
    "grpc.use_local_subchannel_pool": 1,
}


class _TransientError(Exception):
    """Another attempt may succeed; the cause is pymilvus's error."""


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

    @property
    def address(self) -> str:
        """Scheme, host and port of the server, fit for messages: without user, password and token."""
        parts = urlsplit(self._uri)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"

    @property
    def is_lite(self) -> bool:
        """Whether the server is Milvus Lite."""
        return self.server_version().startswith("milvus_lite")

    def server_version(self) -> str:
        """Version as the server tells it, such as `milvus_lite-3.2.2` or `v2.6.6`."""
        return str(self.call("get_server_version"))

    def call(self, method: str, *args: Any, seconds: float = CALL_SECONDS, **kwargs: Any) -> Any:  # noqa: ANN401 - pymilvus has no types
        """The result of a method of `MilvusClient`, asked again while the server is away or loads the collection.

        Args:
            method: Name of the method.
            *args: Its arguments; the first one names the collection or alias.
            seconds: Deadline of one attempt.
            **kwargs: Its named arguments.

        Raises:
            ServiceUnavailableError: The server does not answer, also after retries.
            ConfigurationError: The address is wrong or the token is refused.
        """
        return self._retried(lambda: self._attempt(method, args, seconds, kwargs), OUTAGE_SECONDS)

    def close(self) -> None:
        """Close the connection; the next call opens it again."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    def _retried(self, attempt: Callable[[], Any], outage_seconds: float) -> Any:  # noqa: ANN401 - idem
        retrying = Retrying(
            retry=retry_if_exception_type(_TransientError),
            stop=stop_before_delay(outage_seconds),
            wait=wait_random_exponential(multiplier=0.2, max=5),
            reraise=True,
        )
        try:
            return retrying(attempt)
        except _TransientError as error:
            raise ServiceUnavailableError(
                f"Milvus at {self.address} does not answer.",
                "Start it, or correct LABELING_MILVUS_URI; `labeling doctor` tests it.",
            ) from error.__cause__

    def _attempt(self, method: str, args: tuple[Any, ...], seconds: float, kwargs: dict[str, Any]) -> Any:  # noqa: ANN401 - idem
        client = self._connected()
        try:
            return getattr(client, method)(*args, timeout=seconds, **kwargs)
        except Exception as error:
            if method != "load_collection" and getattr(error, "code", None) in NOT_LOADED_CODES:
                self.call("load_collection", args[0], seconds=LOAD_SECONDS)
                raise _TransientError from error
            raise self._translated(error) from error

    def _connected(self) -> MilvusClient:
        with self._lock:
            if self._client is None:
                self._client = self._retried(self._connect, CONNECT_SECONDS)
            return self._client

    def _connect(self) -> MilvusClient:
        from pymilvus import MilvusClient

        parts = urlsplit(self._uri)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ConfigurationError(
                "The address of Milvus cannot be read.", "LABELING_MILVUS_URI looks like http://host:19530."
            )
        # It prints each error with a stack trace before it raises it; whoever catches the error reports it once.
        logging.getLogger("pymilvus").setLevel(logging.CRITICAL)
        options = dict(_GRPC_OPTIONS)
        if parts.hostname in {"127.0.0.1", "::1", "localhost"}:
            options["grpc.enable_http_proxy"] = 0
        try:
            return MilvusClient(
                self._uri, token=self._token, dedicated=True, timeout=CONNECT_SECONDS / 2, grpc_options=options
            )
        except Exception as error:
            translated = self._translated(error)
            if translated is error:
                translated = self._refused(f"does not speak Milvus's protocol: {_reason(error)}")
            raise translated from error

    def _translated(self, error: Exception) -> Exception:
        """The error to raise in place of pymilvus's: transient, ours, or the same where it is neither."""
        import grpc

        status = _grpc_status(error)
        if status in {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED}:
            return self._refused("refuses the token")
        if status in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.ABORTED}:
            return _TransientError()
        if getattr(error, "code", None) in TRANSIENT_CODES:
            return _TransientError()
        return error

    def _refused(self, what: str) -> LabelingError:
        return ConfigurationError(
            f"The server at {self.address} {what}.", "Check LABELING_MILVUS_URI and LABELING_MILVUS_TOKEN."
        )


def _grpc_status(error: BaseException | None) -> object:
    """The gRPC status behind a pymilvus error: its own, its code, or that of its cause."""
    import grpc

    seen = set()  # pymilvus makes errors their own cause (`raise e from e`)
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, grpc.RpcError):
            return error.code()
        if isinstance(code := getattr(error, "code", None), grpc.StatusCode):
            return code
        error = error.__cause__
    return None


def _reason(error: Exception) -> str:
    return str(getattr(error, "message", error)).splitlines()[0]
