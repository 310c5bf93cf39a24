"""Connections of the image fetcher: checked addresses, pinned, and a deadline that no slow host can stretch.

What belongs here is below HTTP: resolving, connecting, TLS, reading bytes. Requests, redirects and retries are in
`fetcher.py`.
"""

from __future__ import annotations

import contextlib
import contextvars
import socket
import ssl
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpcore

from labeling_assets.services.images.addresses import AddressPolicy


@dataclass(frozen=True)
class Deadline:
    """When a fetch must end.

    Attributes:
        expires_at: In seconds of `time.monotonic`.
        cancelled: Ends the fetch earlier when set, at its next read.
    """

    expires_at: float
    cancelled: threading.Event

    def left_seconds(self) -> float:
        """Seconds left; 0 when none are, or when the fetch is cancelled."""
        return 0.0 if self.cancelled.is_set() else max(0.0, self.expires_at - time.monotonic())


# httpcore does all work of a request in the thread that asks, so a context variable reaches every read of it; a
# connection outlives the request and cannot hold the deadline itself.
_deadline: contextvars.ContextVar[Deadline] = contextvars.ContextVar("image_fetch_deadline")


@contextlib.contextmanager
def within(deadline: Deadline) -> Iterator[None]:
    """End every operation of this thread's requests inside the block at the deadline."""
    token = _deadline.set(deadline)
    try:
        yield
    finally:
        _deadline.reset(token)


def _capped(timeout_seconds: float | None, expired: type[httpcore.TimeoutException]) -> float:
    """The time-out of one operation, at most what is left until the deadline.

    Raises:
        httpcore.TimeoutException: Nothing is left; of class `expired`.
    """
    left_seconds = _deadline.get().left_seconds()
    if left_seconds == 0:
        raise expired("the deadline has passed")
    return left_seconds if timeout_seconds is None else min(timeout_seconds, left_seconds)


class _DeadlineStream(httpcore.NetworkStream):
    """A stream whose every operation ends at the deadline of the request at hand, however slowly bytes drip."""

    def __init__(self, stream: httpcore.NetworkStream) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, _capped(timeout, httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, _capped(timeout, httpcore.WriteTimeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        # The ssl module takes the time-out for the whole handshake, so this cannot be dripped either.
        left = _capped(timeout, httpcore.ConnectTimeout)
        return _DeadlineStream(self._stream.start_tls(ssl_context, server_hostname, left))

    def get_extra_info(self, info: str) -> Any:  # noqa: ANN401 - the type depends on the name asked for
        return self._stream.get_extra_info(info)


class UnknownHostError(httpcore.ConnectError):
    """The name system says that the host does not exist; asking again at once cannot help."""


class CheckedBackend(httpcore.NetworkBackend):
    """Connects only to addresses that the policy returned, so every hop of every request is checked in one place.

    The name stays with httpcore, which needs it for the Host header, TLS server name and certificate check.

    Args:
        policy: Decides which addresses may be connected to.
        threads: Names that may be resolved at once.
    """

    def __init__(self, policy: AddressPolicy, threads: int) -> None:
        self._policy = policy
        self._backend = httpcore.SyncBackend()
        # The operating system's resolver knows no time-out, so a thread waits for it and the request does not.
        self._resolving = ThreadPoolExecutor(threads, thread_name_prefix="image-dns")

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        """Connect to the first address of the host that answers.

        Raises:
            ImageAddressRefusedError: An address of the host is not public.
            UnknownHostError: The host does not exist.
            httpcore.ConnectError: No name server answers, or no address accepts.
            httpcore.ConnectTimeout: The name server or the host does not answer in time.
        """
        failure: httpcore.ConnectError | httpcore.ConnectTimeout = httpcore.ConnectError(f"{host} has no address")
        for address in self._resolve(host, port, timeout):
            try:
                stream = self._backend.connect_tcp(
                    address, port, _capped(timeout, httpcore.ConnectTimeout), local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
            else:
                return _DeadlineStream(stream)
        raise failure

    def _resolve(self, host: str, port: int, timeout: float | None) -> Sequence[str]:
        future = self._resolving.submit(self._policy.addresses, host, port)
        try:
            return future.result(_capped(timeout, httpcore.ConnectTimeout))
        except TimeoutError as error:
            future.cancel()
            raise httpcore.ConnectTimeout(f"{host} is not resolved in time") from error
        except OSError as error:
            is_unknown = isinstance(error, socket.gaierror) and error.errno == socket.EAI_NONAME
            failure = UnknownHostError if is_unknown else httpcore.ConnectError
            raise failure(f"{host} cannot be resolved: {error.strerror}") from error

    def close(self) -> None:
        """Stop resolving; names being resolved are left to end by themselves."""
        self._resolving.shutdown(wait=False, cancel_futures=True)
