"""The endpoints that serve one vision model: which takes the next request, and what happens when one fails.

Shared by the backends that speak HTTP (`ollama.py`, `openai.py`). What an answer means is in `server_errors.py`, how
many requests an endpoint is given in `concurrency.py`.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from tenacity import Retrying, retry_if_exception_type, wait_random

from labeling_assets.errors import ConfigurationError, LabelingError
from labeling_assets.services.pipeline import StoppedError, raise_if_stopped, sleep
from labeling_assets.services.vision import VisionReply
from labeling_assets.services.vision.concurrency import AdaptiveConcurrency
from labeling_assets.services.vision.pacing import Pacing
from labeling_assets.services.vision.server_errors import Cause, TransientError, unreachable

FIRST_WAIT_SECONDS = 0.1
MAX_WAIT_SECONDS = 15.0
MAX_REST_SECONDS = 30.0
"""Longest that an endpoint that failed is left alone until it is probed."""

PROBE_TIMEOUT_SECONDS = 5.0
CHECK_TIMEOUT_SECONDS = 30.0

logger = logging.getLogger(__name__)


@dataclass
class _Endpoint:
    """One endpoint as the pool sees it.

    Attributes:
        is_out: Whether it must pass a probe before it gets a request.
        rests_until: Time, on the monotonic clock, before which it is left alone.
        failures: Failures since its last reply.
    """

    url: str
    concurrency: AdaptiveConcurrency
    in_flight: int = 0
    is_out: bool = False
    rests_until: float = 0.0
    failures: int = 0

    @property
    def load(self) -> float:
        """Share of its permits in use."""
        return self.in_flight / self.concurrency.permits


@dataclass
class _Past:
    """What one request went through.

    Attributes:
        suspected: Endpoints on which it failed.
        replies: Replies of the pool to all requests, when its refusals were last counted anew.
        failures: Attempts that failed, by cause.
        last_error: Why the last attempt failed.
    """

    suspected: set[str] = field(default_factory=set)
    replies: int = 0
    failures: Counter[Cause] = field(default_factory=Counter)
    last_error: TransientError | None = None

    def note(self, error: TransientError, replies: int) -> None:
        """Count an attempt that failed, after so many replies of the pool."""
        if error.cause == "load" and replies != self.replies:
            self.replies, self.failures["load"] = replies, 0
        self.failures[error.cause] += 1
        self.last_error = error

    @property
    def failures_alike(self) -> int:
        """Attempts that failed like the last one."""
        return self.failures[self.last_error.cause] if self.last_error else 0

    @property
    def is_spent(self) -> bool:
        """Whether no further attempt is made."""
        return self.last_error is not None and self.failures_alike >= self.last_error.max_attempts

    @property
    def failed_attempts(self) -> int:
        """Attempts that failed although the server may have worked on them, and may bill."""
        return self.failures["request"] + self.failures["silence"]


class EndpointPool:
    """Gives each request to the least loaded endpoint, and no endpoint more requests at once than it has slots.

    Requests over the slots of a server only wait in its queue, where their deadline already runs. A request that an
    endpoint fails or refuses goes to another one at once. An endpoint that fails is out: it is left alone, each time
    twice as long, and then gets a request only after a probe, which is cheap. While all are out, a request probes
    whichever comes first, with back-off between its attempts.

    Args:
        urls: Addresses of the endpoints.
        slots_per_endpoint: Requests that each serves at once; 0: to be found.
        probe: Makes sure that the endpoint of an address is alive; raises `TransientError` when it is not.
        pacing: The rate limit of all endpoints together.
        first_wait_seconds: Longest wait before the second attempt, and first rest of an endpoint; both double.

    Raises:
        ConfigurationError: An address contains a user or password, which messages would show.
    """

    def __init__(
        self,
        urls: Sequence[str],
        slots_per_endpoint: int,
        probe: Callable[[str], None],
        pacing: Pacing,
        first_wait_seconds: float = FIRST_WAIT_SECONDS,
    ) -> None:
        if any("@" in url for url in urls):
            raise ConfigurationError(
                "The address of a model server contains a user or password.", "LABELING_OPENAI_API_KEY takes a key."
            )
        self.urls = tuple(dict.fromkeys(urls))
        self._endpoints = [_Endpoint(url, AdaptiveConcurrency(slots_per_endpoint)) for url in self.urls]
        self._probe = probe
        self._pacing = pacing
        self._first_wait_seconds = first_wait_seconds
        self._changed = threading.Condition()
        self._replies = 0

    @property
    def slots(self) -> int:
        """Requests that all endpoints together are given at once at most."""
        return sum(endpoint.concurrency.maximum for endpoint in self._endpoints)

    def check_each(self, check: Callable[[str], str]) -> dict[str, str]:
        """What `check` returns for each endpoint that answers; the others are out until they pass a probe.

        Args:
            check: Gets an address; its `ConfigurationError` has a `TransientError` as cause where nobody answers.

        Raises:
            ConfigurationError: An endpoint is not as it should be, or none answers.
        """
        found: dict[str, str] = {}
        silent: dict[str, ConfigurationError] = {}
        for endpoint in self._endpoints:
            try:
                found[endpoint.url] = check(endpoint.url)
            except ConfigurationError as error:
                if not isinstance(error.__cause__, TransientError):
                    raise
                silent[endpoint.url] = error
        if not found:
            raise next(iter(silent.values()))
        for endpoint in self._endpoints:
            if endpoint.url in silent:
                self._note_failure(endpoint, unreachable(endpoint.url, "at the check"))
        return found

    def call(self, request: Callable[[str], VisionReply], estimated_tokens: int) -> VisionReply:
        """The result of `request(url)`, repeated with back-off while it raises `TransientError`.

        The attempts are counted for each cause: one that passed leaves the others theirs. Refusals count only while
        the endpoints answer no other request either: of many requests to a server with few slots, chance picks the one
        that is refused again and again.

        Args:
            request: Sends the request to the endpoint of an address.
            estimated_tokens: Tokens that it will take, read and written, for the rate limit.

        Returns:
            The reply, with the number of attempts that failed before; errors have it too.

        Raises:
            LabelingError: `TransientError.final`, when the last attempt failed too.
            StoppedError: The pipeline of this thread was stopped while the request waited.
        """
        past = _Past(replies=self._replies)
        retrying = Retrying(
            retry=retry_if_exception_type(TransientError),
            stop=lambda _: past.is_spent,
            wait=lambda state: wait_random(0, self._longest_wait_seconds(past))(state),
            sleep=sleep,
            reraise=True,
        )

        def attempt() -> VisionReply:
            try:
                return self._attempt(request, estimated_tokens, past.suspected)
            except TransientError as error:
                past.note(error, self._replies)
                raise

        try:
            reply: VisionReply = retrying(attempt)
        except (TransientError, LabelingError, StoppedError) as error:
            final = error.final if isinstance(error, TransientError) else error
            final.failed_attempts = past.failed_attempts
            raise final from error.__cause__
        return replace(reply, failed_attempts=past.failed_attempts)

    def _attempt(
        self, request: Callable[[str], VisionReply], estimated_tokens: int, suspected: set[str]
    ) -> VisionReply:
        """One attempt: an endpoint that is busy or down costs none as long as there is one that was not tried.

        Endpoints on which the request failed in earlier attempts are suspected: they are tried when no other is left.
        """
        tried = set(suspected) if self._has_untried(suspected) else set()
        while True:
            with self._slot(tried) as endpoint:
                try:
                    return self._ask(endpoint, request, estimated_tokens)
                except ConfigurationError as error:  # where another may serve, it is this endpoint's alone
                    tried.add(endpoint.url)
                    if not self._has_untried(tried):
                        raise
                    self._note_failure(endpoint, unreachable(endpoint.url, error.message))
                except TransientError as error:
                    self._note_failure(endpoint, error)
                    if error.cause in ("request", "silence"):
                        suspected.add(endpoint.url)
                        raise
                    tried.add(endpoint.url)
                    if not self._has_untried(tried):
                        raise

    def _longest_wait_seconds(self, past: _Past) -> float:
        return min(self._first_wait_seconds * 2.0 ** min(past.failures_alike - 1, 20), MAX_WAIT_SECONDS)

    def _ask(self, endpoint: _Endpoint, request: Callable[[str], VisionReply], estimated_tokens: int) -> VisionReply:
        if endpoint.is_out:
            self._probe(endpoint.url)
            self._let_in(endpoint)
        self._pacing.wait(estimated_tokens)
        reply = request(endpoint.url)
        if tokens := reply.prompt_tokens + reply.output_tokens:
            self._pacing.correct(estimated_tokens, tokens)
        with self._changed:
            self._replies += 1
            endpoint.failures = 0
            endpoint.concurrency.on_reply(endpoint.in_flight, time.monotonic())
        return reply

    def _let_in(self, endpoint: _Endpoint) -> None:
        with self._changed:
            if endpoint.is_out:
                endpoint.is_out, endpoint.rests_until = False, 0.0
                logger.info("%s answers again.", endpoint.url)
                self._changed.notify_all()

    def _note_failure(self, endpoint: _Endpoint, error: TransientError) -> None:
        now = time.monotonic()
        with self._changed:
            if error.cause == "load":
                endpoint.concurrency.on_refusal()
                endpoint.rests_until = max(endpoint.rests_until, now + error.pause_seconds)
            elif error.cause == "silence":
                endpoint.concurrency.on_refusal()
                endpoint.is_out = True
            elif error.cause == "outage":
                if not endpoint.is_out:
                    logger.warning("%s It is left alone until it passes a probe.", error.final.message)
                endpoint.is_out = True
                endpoint.rests_until = now + self._rest_seconds(endpoint)
                endpoint.failures += 1
            self._changed.notify_all()  # those who wait for this endpoint may find another

    def _rest_seconds(self, endpoint: _Endpoint) -> float:
        return min(self._first_wait_seconds * 2.0 ** min(endpoint.failures, 20), MAX_REST_SECONDS)

    def _has_untried(self, tried: set[str]) -> bool:
        """Whether an endpoint that was not tried is in and need not rest."""
        now = time.monotonic()
        with self._changed:
            return any(
                endpoint.url not in tried and not endpoint.is_out and endpoint.rests_until <= now
                for endpoint in self._endpoints
            )

    @contextlib.contextmanager
    def _slot(self, tried: set[str]) -> Iterator[_Endpoint]:
        with self._changed:
            while (endpoint := self._free_endpoint(tried)) is None:
                self._changed.wait(self._seconds_to_end_of_rest())
                raise_if_stopped()
            endpoint.in_flight += 1
            if endpoint.is_out:  # one request probes it; the others look elsewhere meanwhile
                endpoint.rests_until = time.monotonic() + PROBE_TIMEOUT_SECONDS
        try:
            yield endpoint
        finally:
            with self._changed:
                endpoint.in_flight -= 1
                self._changed.notify_all()

    def _seconds_to_end_of_rest(self) -> float:
        """Time until the next endpoint has rested, which wakes nobody; at most a second."""
        now = time.monotonic()
        return min([endpoint.rests_until - now for endpoint in self._endpoints if endpoint.rests_until > now] + [1.0])

    def _free_endpoint(self, tried: set[str]) -> _Endpoint | None:
        now = time.monotonic()
        untried = [endpoint for endpoint in self._endpoints if endpoint.url not in tried]
        is_none_in = all(endpoint.is_out for endpoint in untried)
        awake = [endpoint for endpoint in untried if is_none_in or endpoint.rests_until <= now]
        free = [endpoint for endpoint in awake if endpoint.in_flight < endpoint.concurrency.permits]
        return min(free, key=lambda each: (each.failures if is_none_in else 0, each.load), default=None)
