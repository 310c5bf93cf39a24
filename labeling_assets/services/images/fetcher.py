"""Fetching of one image URL over HTTP: safe, bounded in time and size, conditional, and retried where that can help.

Every part of the platform that fetches an outside URL does so through `ImageFetcher`. What the bytes mean is in
`decoding.py`, where they are kept in `store.py`, and which addresses are allowed in `addresses.py`.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import email.utils
import importlib.metadata
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import httpcore
import httpx
import tenacity

from labeling_assets.errors import (
    ImageAddressRefusedError,
    ImageNotFoundError,
    ImageTooLargeError,
    ImageUnavailableError,
    InvalidImageError,
)
from labeling_assets.services.images.addresses import AddressPolicy, parse_image_url, shown
from labeling_assets.services.images.connections import CheckedBackend, Deadline, UnknownHostError, within

USER_AGENT = f"labeling-assets/{importlib.metadata.version('labeling-assets')} (+product image fetcher)"
# Hosts that choose the format by this header send one that `decoding.py` reads.
ACCEPT = "image/jpeg,image/png,image/webp,image/gif,image/bmp,*/*;q=0.1"

MAX_IMAGE_BYTES = 20_000_000
MAX_REDIRECTS = 5
MAX_ATTEMPTS = 4
CONNECT_TIMEOUT_SECONDS = 5.0
READ_TIMEOUT_SECONDS = 15.0
TOTAL_TIMEOUT_SECONDS = 60.0
BACKOFF_SECONDS = 0.5
MAX_WAIT_SECONDS = 20.0

_REDIRECTS = {301, 302, 303, 307, 308}
_RETRIED_CLIENT_STATUSES = {408, 425, 429}  # time-out, too early, too many requests; besides every 5xx


@dataclass(frozen=True)
class Validators:
    """What a host said to recognise its content by, for a conditional request.

    Attributes:
        etag: `ETag` header, as sent.
        last_modified: `Last-Modified` header, as sent.
    """

    etag: str | None = None
    last_modified: str | None = None

    def __bool__(self) -> bool:
        """Whether there is anything to ask conditionally with."""
        return self.etag is not None or self.last_modified is not None


@dataclass(frozen=True)
class FetchedBody:
    """A complete body, as the host sent it, and what to recognise it by."""

    body: bytes
    validators: Validators


@dataclass(frozen=True)
class NotModified:
    """The host says that the content is still the one with the validators asked for."""


class _TransientError(Exception):
    """An attempt failed in a way that another one may not."""

    def __init__(self, reason: str, retry_after_seconds: float = 0.0) -> None:
        super().__init__(reason)
        self.retry_after_seconds = retry_after_seconds


class ImageFetcher:
    """Fetches images by HTTP. Thread-safe: one pool of connections serves all threads.

    Args:
        policy: Which addresses may be fetched.
        max_connections: Connections open at once, over all hosts.
        max_bytes: Largest body taken.
        connect_timeout_seconds: Resolving a name, connecting to an address, the TLS handshake: each.
        read_timeout_seconds: Silence of the host in the middle of a response.
        total_timeout_seconds: Everything for one URL: attempts, redirects and waits included.
        backoff_seconds: Wait before the second attempt; doubled for each further one, with jitter.
        ssl_context: For hosts of a private certificate authority; the public ones by default.
    """

    def __init__(
        self,
        policy: AddressPolicy,
        *,
        max_connections: int = 64,
        max_bytes: int = MAX_IMAGE_BYTES,
        connect_timeout_seconds: float = CONNECT_TIMEOUT_SECONDS,
        read_timeout_seconds: float = READ_TIMEOUT_SECONDS,
        total_timeout_seconds: float = TOTAL_TIMEOUT_SECONDS,
        backoff_seconds: float = BACKOFF_SECONDS,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._max_bytes = max_bytes
        self._total_timeout_seconds = total_timeout_seconds
        self._backoff = tenacity.wait_exponential(backoff_seconds) + tenacity.wait_random(0, backoff_seconds)
        self._timeouts = {
            "connect": connect_timeout_seconds,
            "read": read_timeout_seconds,
            "write": read_timeout_seconds,
        }
        self._backend = CheckedBackend(policy, max_connections)
        self._pool = httpcore.ConnectionPool(
            ssl_context=ssl_context or httpcore.default_ssl_context(),
            max_connections=max_connections,
            keepalive_expiry=5.0,
            network_backend=self._backend,
        )

    def fetch(
        self,
        url: str,
        known: Validators | None = None,
        *,
        cancelled: threading.Event | None = None,
        on_retry: Callable[[], None] = lambda: None,
    ) -> FetchedBody | NotModified:
        """Fetch one URL.

        Args:
            url: As the source has it.
            known: Validators of content that is at hand; the host then sends a body only if its content differs.
            cancelled: Ends the fetch when set, at its next read or wait.
            on_retry: Called when an attempt failed and another one follows.

        Raises:
            ImageAddressRefusedError: The URL, or a redirect of it, leads where nothing is fetched.
            ImageNotFoundError: The host's final answer is that there is no such image for us.
            ImageTooLargeError: The body is over the limit.
            ImageUnavailableError: The host does not deliver, also after the last attempt.
            InvalidImageError: The body is compressed although that was not asked for.
        """
        first = parse_image_url(url)
        cancelled = cancelled or threading.Event()
        deadline = Deadline(time.monotonic() + self._total_timeout_seconds, cancelled)
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_TransientError),
            stop=tenacity.stop_after_attempt(MAX_ATTEMPTS)
            | tenacity.stop_before_delay(self._total_timeout_seconds)
            | tenacity.stop_when_event_set(cancelled),
            wait=self._wait_seconds,
            sleep=tenacity.sleep_using_event(cancelled),
            before_sleep=lambda _: on_retry(),
            reraise=True,
        )
        try:
            with within(deadline):
                return retrying(self._attempt, first, known or Validators(), deadline)
        except _TransientError as error:
            attempts = retrying.statistics["attempt_number"]
            raise ImageUnavailableError(f"{shown(first)}: {error} (attempts: {attempts}).") from error

    def close(self) -> None:
        """Close all connections."""
        self._pool.close()
        self._backend.close()

    def _wait_seconds(self, state: tenacity.RetryCallState) -> float:
        """Exponential back-off, or what the host asks for with `Retry-After`, up to a limit."""
        error = state.outcome.exception() if state.outcome else None
        asked = error.retry_after_seconds if isinstance(error, _TransientError) else 0.0
        return min(max(self._backoff(state), asked), MAX_WAIT_SECONDS)

    def _attempt(self, first: httpx.URL, known: Validators, deadline: Deadline) -> FetchedBody | NotModified:
        """One attempt, through all redirects."""
        url = first
        for hop in range(MAX_REDIRECTS + 1):
            # A date belongs to one file: of an older file behind the same redirect it would wrongly say "not modified".
            asked = known if hop == 0 else Validators(known.etag)
            with self._request(url, asked, deadline) as response:
                if response.status not in _REDIRECTS:
                    answer = self._answer(response, url, asked)
                    if isinstance(answer, FetchedBody) and hop > 0:
                        return FetchedBody(answer.body, Validators(answer.validators.etag))
                    return answer
                url = _redirected(url, response)
        raise ImageAddressRefusedError(f"{shown(first)} is redirected more than {MAX_REDIRECTS} times.")

    @contextlib.contextmanager
    def _request(self, url: httpx.URL, asked: Validators, deadline: Deadline) -> Iterator[httpcore.Response]:
        """Ask for one URL without following redirects; failures of the transport come out as `_TransientError`."""
        headers = {
            "Host": url.netloc.decode("ascii"),
            "User-Agent": USER_AGENT,
            "Accept": ACCEPT,
            "Accept-Encoding": "identity",
        }
        if asked.etag is not None:
            headers["If-None-Match"] = asked.etag
        if asked.last_modified is not None:
            headers["If-Modified-Since"] = asked.last_modified
        timeouts = {**self._timeouts, "pool": deadline.left_seconds()}
        target = httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)
        fields = [(name.encode("ascii"), value.encode("latin-1")) for name, value in headers.items()]
        try:
            with self._pool.stream("GET", target, headers=fields, extensions={"timeout": timeouts}) as response:
                yield response
        # What the transport says may repeat bytes of the host, so the reasons are in our own words.
        except UnknownHostError as error:
            raise ImageUnavailableError(f"{shown(url)}: the host name is unknown.") from error
        except httpcore.TimeoutException as error:
            raise _TransientError("the host did not answer in time") from error
        except httpcore.NetworkError as error:
            raise _TransientError("the connection failed or was closed") from error
        except httpcore.RemoteProtocolError as error:
            raise _TransientError("the host broke off or does not speak HTTP") from error

    def _answer(self, response: httpcore.Response, url: httpx.URL, asked: Validators) -> FetchedBody | NotModified:
        """What a response that is no redirect means."""
        status = response.status
        if status == 304 and asked:
            return NotModified()
        if status in _RETRIED_CLIENT_STATUSES or status >= 500 or status == 304:
            raise _TransientError(f"the host answered {status}", _retry_after_seconds(_header(response, "retry-after")))
        if status != 200:
            raise ImageNotFoundError(f"{shown(url)}: the host answered {status}.")
        if (_header(response, "content-encoding") or "identity").lower() != "identity":
            raise InvalidImageError(f"{shown(url)}: the body is compressed although that was not asked for.")
        validators = Validators(_header(response, "etag"), _header(response, "last-modified"))
        return FetchedBody(self._body(response, url), validators)

    def _body(self, response: httpcore.Response, url: httpx.URL) -> bytes:
        """The body; a host that tells of too much is believed, one that tells of less is not."""
        told = _header(response, "content-length")
        size_bytes = int(told) if told is not None and told.isdecimal() else 0
        body = bytearray()  # chunks kept apart would take a hundred times their size where each has one byte
        if size_bytes <= self._max_bytes:
            for chunk in response.iter_stream():
                body += chunk
                if len(body) > self._max_bytes:
                    break
        if max(size_bytes, len(body)) > self._max_bytes:
            raise ImageTooLargeError(f"{shown(url)}: the body is larger than {self._max_bytes} bytes.")
        return bytes(body)


def _redirected(url: httpx.URL, response: httpcore.Response) -> httpx.URL:
    """The URL that a redirect leads to."""
    location = _header(response, "location")
    if location is None:
        raise ImageNotFoundError(f"{shown(url)}: the host answered {response.status} without a location.")
    # Letters outside ASCII are UTF-8 where a host writes them at all.
    with contextlib.suppress(UnicodeDecodeError):
        location = location.encode("latin-1").decode("utf-8")
    try:
        target = str(url.join(location))
    except (httpx.InvalidURL, ValueError) as error:
        raise ImageAddressRefusedError(f"{shown(url)} is redirected to a URL that cannot be read.") from error
    return parse_image_url(target)


def _header(response: httpcore.Response, name: str) -> str | None:
    """The first header of that name; one that is too long to be meant is taken as absent."""
    for field, value in response.headers:
        if field.decode("ascii").lower() == name:
            return value.decode("latin-1") if len(value) <= 4096 else None
    return None


def _retry_after_seconds(value: str | None) -> float:
    """Seconds that a `Retry-After` header asks for, as a number or a date; 0 where it says neither."""
    if value is None:
        return 0.0
    if value.isdecimal():
        return float(value[:9])
    try:
        wanted = email.utils.parsedate_to_datetime(value)
    except (ValueError, IndexError, TypeError, OverflowError):
        return 0.0
    wanted = wanted if wanted.tzinfo else wanted.replace(tzinfo=dt.UTC)
    return max(0.0, (wanted - dt.datetime.now(dt.UTC)).total_seconds())
