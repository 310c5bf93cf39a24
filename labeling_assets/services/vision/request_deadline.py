"""How a model server is connected to, and the deadline of a request to it.

The time-outs of httpx hold between two reads: a server or proxy that sends a blank now and then, so that the connection
stays open, would keep a request for ever. So the read time-out of a request is also the deadline of its whole reply. It
is looked at with each part of the body, so a server that falls silent after some is left one more time-out later.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Iterator
from typing import Any, cast
from urllib.parse import urlsplit

import httpx

CONNECT_TIMEOUT_SECONDS = 5.0
WRITE_TIMEOUT_SECONDS = 60.0


def client_options(url: str, slots: int, timeout_seconds: float) -> dict[str, Any]:
    """Options of the httpx client for one endpoint: deadlines, enough connections, and no proxy to loopback."""
    return {
        "timeout": httpx.Timeout(
            connect=CONNECT_TIMEOUT_SECONDS,
            read=timeout_seconds,
            write=WRITE_TIMEOUT_SECONDS,
            pool=timeout_seconds,
        ),
        "limits": httpx.Limits(max_connections=slots, max_keepalive_connections=slots),
        "trust_env": not _is_loopback(url),
        "event_hooks": {"request": [_begin], "response": [_limit]},
    }


def _begin(request: httpx.Request) -> None:
    # A request that follows a redirect takes the deadline of the first one with it.
    request.extensions.setdefault("expires_at", time.monotonic() + request.extensions["timeout"]["read"])


def _limit(response: httpx.Response) -> None:
    response.stream = _LimitedStream(response)


class _LimitedStream(httpx.SyncByteStream):
    """The body of a response, whose reading ends at the deadline however slowly its bytes drip."""

    def __init__(self, response: httpx.Response) -> None:
        self._stream = cast("httpx.SyncByteStream", response.stream)
        self._request = response.request

    def __iter__(self) -> Iterator[bytes]:
        for part in self._stream:
            if time.monotonic() > self._request.extensions["expires_at"]:
                raise httpx.ReadTimeout("the deadline has passed", request=self._request)
            yield part

    def close(self) -> None:
        self._stream.close()


def _is_loopback(url: str) -> bool:
    host = urlsplit(url if "://" in url else f"//{url}").hostname or "localhost"
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
