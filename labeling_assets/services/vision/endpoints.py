"""The endpoints that serve one vision model: which takes the next request, and what is tried again when one fails.

Shared by the backends that speak HTTP (`ollama.py`, `openai.py`). The statuses and texts are those of Ollama's
`server/routes.go` and `server/sched.go`, of llama-server, vLLM and SGLang. Neither the image nor a key gets into a
message.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx
from tenacity import RetryCallState, Retrying, retry_if_exception_type, wait_exponential, wait_random

from labeling_assets.errors import (
    ConfigurationError,
    ContextOverflowError,
    LabelingError,
    ModelRunnerError,
    ModelTimeoutError,
    ServiceUnavailableError,
)

Result = TypeVar("Result")

BUSY_ATTEMPTS = 8
UNREACHABLE_ATTEMPTS = 6
RUNNER_ATTEMPTS = 2
TIMEOUT_ATTEMPTS = 2
MAX_WAIT_SECONDS = 15.0
REST_SECONDS = 30.0
"""How long an endpoint that could not be reached is left alone while another can be asked."""

CONNECT_TIMEOUT_SECONDS = 5.0
CHECK_TIMEOUT_SECONDS = 30.0
WRITE_TIMEOUT_SECONDS = 60.0

_OVERFLOW_TEXTS = (
    "exceeds the available context size",  # llama-server, passed through by Ollama
    "exceed_context_size",
    "longer than the context length",  # Ollama, text only
    "maximum context length",  # vLLM, OpenAI
    "context_length_exceeded",
    "longer than the maximum model length",  # vLLM
    "longer than the model's context length",  # SGLang
)
_CONFIGURATION_TEXTS = ("does not support", "invalid option", "invalid format", "must be of type", "unsupported")


class TransientError(Exception):
    """One request failed in a way that may pass.

    Args:
        final: The error that stands when it has not passed after `max_attempts` requests.
        max_attempts: Requests that are made in all.
        is_endpoint_down: Whether another endpoint should be preferred for a while.
    """

    def __init__(self, final: LabelingError, max_attempts: int, *, is_endpoint_down: bool = False) -> None:
        super().__init__(str(final))
        self.final = final
        self.max_attempts = max_attempts
        self.is_endpoint_down = is_endpoint_down


class EndpointPool:
    """Gives each request to the least busy endpoint, and no endpoint more requests at once than it has slots.

    Requests over the slots of a server only wait in its queue, where their deadline already runs.

    Args:
        urls: Addresses of the endpoints.
        slots_per_endpoint: Requests that each serves at once.
        first_wait_seconds: Wait before the second attempt; it doubles with each one, with jitter.

    Raises:
        ConfigurationError: An address contains a user or password, which messages would show.
    """

    def __init__(self, urls: Sequence[str], slots_per_endpoint: int, first_wait_seconds: float = 0.5) -> None:
        if any("@" in url for url in urls):
            raise ConfigurationError(
                "The address of a model server contains a user or password.", "LABELING_OPENAI_API_KEY takes a key."
            )
        self.urls = tuple(dict.fromkeys(urls))
        self.slots = len(self.urls) * slots_per_endpoint
        self._slots_per_endpoint = slots_per_endpoint
        self._first_wait_seconds = first_wait_seconds
        self._in_flight = dict.fromkeys(self.urls, 0)
        self._resting_until = dict.fromkeys(self.urls, 0.0)
        self._changed = threading.Condition()

    def call(self, request: Callable[[str], Result]) -> Result:
        """The result of `request(url)`, repeated with back-off while it raises `TransientError`.

        Raises:
            LabelingError: `TransientError.final`, when the last attempt failed too.
        """
        first = self._first_wait_seconds
        retrying = Retrying(
            retry=retry_if_exception_type(TransientError),
            stop=_is_spent,
            wait=wait_exponential(multiplier=first, max=MAX_WAIT_SECONDS) + wait_random(0, first),
            reraise=True,
        )
        try:
            result: Result = retrying(self._call_once, request)
        except TransientError as error:
            raise error.final from error.__cause__
        return result

    def _call_once(self, request: Callable[[str], Result]) -> Result:
        with self._slot() as url:
            try:
                result = request(url)
            except TransientError as error:
                if error.is_endpoint_down:
                    self._resting_until[url] = time.monotonic() + REST_SECONDS
                raise
            self._resting_until[url] = 0.0
            return result

    @contextlib.contextmanager
    def _slot(self) -> Iterator[str]:
        with self._changed:
            while (url := self._free_endpoint()) is None:
                self._changed.wait(timeout=1.0)  # the end of a rest wakes nobody
            self._in_flight[url] += 1
        try:
            yield url
        finally:
            with self._changed:
                self._in_flight[url] -= 1
                self._changed.notify()

    def _free_endpoint(self) -> str | None:
        now = time.monotonic()
        awake = [url for url in self.urls if self._resting_until[url] <= now] or self.urls
        free = [url for url in awake if self._in_flight[url] < self._slots_per_endpoint]
        return min(free, key=self._in_flight.__getitem__, default=None)


def _is_spent(state: RetryCallState) -> bool:
    error = state.outcome.exception() if state.outcome else None
    return isinstance(error, TransientError) and state.attempt_number >= error.max_attempts


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
    }


def _is_loopback(url: str) -> bool:
    host = urlsplit(url if "://" in url else f"//{url}").hostname or "localhost"
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@contextlib.contextmanager
def transport_errors(url: str) -> Iterator[None]:
    """Turn the errors of httpx, and the `ConnectionError` that the Ollama client makes of one, into ours.

    Raises:
        TransientError: Always; its `final` is `ModelTimeoutError` or `ServiceUnavailableError`.
    """
    try:
        yield
    except (httpx.ReadTimeout, httpx.WriteTimeout) as error:
        timeout = ModelTimeoutError(f"{url} did not reply in time.", "LABELING_VISION_TIMEOUT_SECONDS is the deadline.")
        raise TransientError(timeout, TIMEOUT_ATTEMPTS) from error
    except (httpx.TransportError, ConnectionError) as error:
        raise unreachable(url, type(error).__name__) from error


def unreachable(url: str, reason: str) -> TransientError:
    """The error of an endpoint that cannot be reached, breaks the connection or answers what it should not."""
    final = ServiceUnavailableError(f"{url} does not answer ({reason}).", "Is the model server up?")
    return TransientError(final, UNREACHABLE_ATTEMPTS, is_endpoint_down=True)


def status_error(
    status: int, body: str, *, url: str, model: str, missing_remedy: str
) -> LabelingError | TransientError:
    """The error that an HTTP status of a model server means.

    Args:
        status: HTTP status, no success.
        body: What the server says.
        url: The endpoint.
        model: Name of the model.
        missing_remedy: What to do when the model is not there.

    Returns:
        `ConfigurationError` when no request can succeed, `ContextOverflowError` or `ModelRunnerError` when this one
        cannot, `TransientError` when it may succeed later.
    """
    said = excerpt(body)
    if status in (401, 403):
        return ConfigurationError(f"{url} refuses access ({status}): {said}.", "Check its API key.")
    if status == 404:
        return ConfigurationError(f"{url} has no model {model!r}: {said}.", missing_remedy)
    if status in (429, 503):
        final = ServiceUnavailableError(f"{url} stays busy ({status}): {said}.", "Lower LABELING_VISION_SLOTS.")
        return TransientError(final, BUSY_ATTEMPTS)
    if status in (502, 504):
        return unreachable(url, f"{status}: {said}")
    if any(text in body.lower() for text in _OVERFLOW_TEXTS):
        return ContextOverflowError(f"image and prompt do not fit in the context of {model!r}: {said}")
    if status >= 500:
        return TransientError(ModelRunnerError(f"the model server broke ({status}): {said}"), RUNNER_ATTEMPTS)
    if status < 400 or any(text in body.lower() for text in _CONFIGURATION_TEXTS):
        return ConfigurationError(
            f"{url} cannot serve {model!r} ({status}): {said}.", "Choose another model or server."
        )
    return ModelRunnerError(f"the model server refuses the image ({status}): {said}")


def excerpt(body: str) -> str:
    """The start of what a server says, on one line and without what may be the image or a key sent to it."""
    storable = body.replace("\0", " ").encode(errors="replace").decode()
    line = re.sub(r"[A-Za-z0-9+/_=-]{60,}", "…", " ".join(storable.split()))
    line = re.sub(r"(?i)(bearer\s+|\bsk-)\S+", r"\1…", line)
    return line[:200].rstrip(".") or "no explanation"
