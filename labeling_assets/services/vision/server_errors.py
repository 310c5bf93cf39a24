"""What goes wrong between us and a model server, and what each answer and broken connection means.

The statuses and texts are those of Ollama's `server/routes.go` and `server/sched.go`, of llama-server, vLLM and SGLang.
Neither the image nor a key gets into a message. What is done about an error is in `endpoints.py`.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import email.utils
import re
from collections.abc import Iterator
from typing import Literal

import httpx

from labeling_assets.errors import (
    ConfigurationError,
    ContextOverflowError,
    LabelingError,
    ModelRunnerError,
    ModelTimeoutError,
    ServiceUnavailableError,
)

BUSY_ATTEMPTS = 10
UNREACHABLE_ATTEMPTS = 10
RUNNER_ATTEMPTS = 2
TIMEOUT_ATTEMPTS = 2

MAX_RETRY_AFTER_SECONDS = 120.0
"""Longest that an endpoint is left alone because it asks for it; then it is asked again, and may fail for good."""

Cause = Literal["request", "silence", "load", "outage"]
"""What may be behind a failure.

- request: the image; the endpoint goes on as before.
- silence: the image, or the endpoint hangs or has too much to do; it is probed before it is used again.
- load: the endpoint has too much to do; another may have time, and this one is given fewer requests at once.
- outage: the endpoint; another takes the request, and this one is left alone until it passes a probe.
"""

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
        final: The error that stands when it has not passed after `max_attempts` attempts.
        max_attempts: Attempts that are made in all.
        cause: What may be behind it.
        pause_seconds: How long the endpoint asks to be left alone.
    """

    def __init__(
        self, final: LabelingError, max_attempts: int, cause: Cause = "request", pause_seconds: float = 0.0
    ) -> None:
        super().__init__(str(final))
        self.final = final
        self.max_attempts = max_attempts
        self.cause = cause
        self.pause_seconds = pause_seconds


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
        raise TransientError(timeout, TIMEOUT_ATTEMPTS, "silence") from error
    except (httpx.RequestError, ConnectionError) as error:
        raise unreachable(url, type(error).__name__) from error


def unreachable(url: str, reason: str) -> TransientError:
    """The error of an endpoint that cannot be reached, breaks the connection or answers what it should not."""
    final = ServiceUnavailableError(f"{url} does not answer ({reason}).", "Is the model server up?")
    return TransientError(final, UNREACHABLE_ATTEMPTS, "outage")


def status_error(
    status: int,
    body: str,
    *,
    url: str,
    model: str,
    missing_remedy: str,
    key: str = "",
    retry_after: str | None = None,
) -> LabelingError | TransientError:
    """The error that an HTTP status of a model server means.

    Args:
        status: HTTP status, no success.
        body: What the server says.
        url: The endpoint.
        model: Name of the model.
        missing_remedy: What to do when the model is not there.
        key: The API key that was sent, see `excerpt`.
        retry_after: The header of this name.

    Returns:
        `ConfigurationError` when no request can succeed, `ContextOverflowError` or `ModelRunnerError` when this one
        cannot, `TransientError` when it may succeed later.
    """
    said = excerpt(body, key)
    if status in (401, 403):
        return ConfigurationError(f"{url} refuses access ({status}): {said}.", "Check its API key.")
    if status == 404:
        return ConfigurationError(f"{url} has no model {model!r}: {said}.", missing_remedy)
    if status in (429, 503):
        final = ServiceUnavailableError(
            f"{url} stays busy ({status}): {said}.",
            "Lower LABELING_VISION_SLOTS or LABELING_VISION_REQUESTS_PER_MINUTE.",
        )
        return TransientError(final, BUSY_ATTEMPTS, "load", retry_after_seconds(retry_after))
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


def retry_after_seconds(header: str | None) -> float:
    """The seconds that a `Retry-After` header asks for, as a number or a date (RFC 9110, 10.2.3), at most 120.

    A header of another form asks for nothing.
    """
    text = (header or "").strip()
    if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text):
        seconds = float(text)
    else:
        try:
            at = email.utils.parsedate_to_datetime(text)
        except (ValueError, OverflowError):
            return 0.0
        at = at if at.tzinfo else at.replace(tzinfo=dt.UTC)  # none for the zone -0000, which means UTC
        seconds = (at - dt.datetime.now(dt.UTC)).total_seconds()
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_SECONDS)


def excerpt(body: str, key: str = "") -> str:
    """The start of what a server says, on one line and without what may be the image or a key sent to it.

    Args:
        body: What the server says.
        key: The API key that was sent; servers and proxies may repeat it, and keys have all forms.
    """
    body = body.replace(key, "…") if key else body
    storable = body.replace("\0", " ").encode(errors="replace").decode()
    line = re.sub(r"[A-Za-z0-9+/_=-]{60,}", "…", " ".join(storable.split()))
    line = re.sub(r"(?i)(bearer\s+|\bsk-)\S+", r"\1…", line)
    return line[:200].rstrip(".") or "no explanation"
