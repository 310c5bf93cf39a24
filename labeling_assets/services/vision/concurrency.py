"""How many requests at once one endpoint is given: fewer when it refuses, more while that makes it faster.

Pure: it is told what happened and reads no clock. The endpoints themselves are in `endpoints.py`.
"""

from __future__ import annotations

DECREASE_FACTOR = 0.9
"""Of the limit, for each refusal: one in twenty hardly counts, a server that refuses all ends at 1. As the default
`backoffRatio` of Netflix's concurrency-limits (`AIMDLimit`)."""

MAX_FOUND_SLOTS = 16
"""Most that is tried where the slots are to be found. Each is a thread of the labeler."""

MIN_GAIN = 1.25
"""Throughput after a doubling, as a multiple of that before, from which on the doubling stays: a server with free slots
gives 2, one without gives 1."""

WINDOW_REQUESTS = 8
"""Replies of one measurement; four times the limit where that is more, since replies may come in waves."""

SETTLED_REQUESTS = 500
"""Replies after which a limit that was found is questioned again."""


class AdaptiveConcurrency:
    """The limit of one endpoint: additive increase, multiplicative decrease, below a ceiling that is set or found.

    A refusal (429, 503) takes a tenth off the limit; as many replies as the limit is high add one. Where the slots are
    to be found, the ceiling begins at 1 and doubles as long as the throughput grows with it; the last doubling that
    brought nothing is undone. Only replies that came while every permit was in use are measured.

    Not thread-safe.

    Args:
        slots: Requests that the endpoint serves at once; 0: to be found.
    """

    def __init__(self, slots: int) -> None:
        self.maximum = slots or MAX_FOUND_SLOTS
        self._is_searching = not slots
        self._ceiling = slots or 1
        self._limit = float(self._ceiling)
        self._last_rate = 0.0
        self._settled_for = 0
        self._window_began: float | None = None
        self._window_replies = 0

    @property
    def permits(self) -> int:
        """Requests that may be under way at once, from 1 to `maximum`."""
        return max(1, round(self._limit))

    def on_reply(self, in_flight: int, at_seconds: float) -> None:
        """A request was answered.

        Args:
            in_flight: Requests under way when the reply came, the answered one included.
            at_seconds: When, on any clock that does not go back.
        """
        self._limit = min(self._limit + 1 / self._limit, self._ceiling)
        if self._is_searching:
            self._measure(in_flight, at_seconds)

    def on_refusal(self) -> None:
        """The endpoint was too busy for a request."""
        self._limit = max(self._limit * DECREASE_FACTOR, 1.0)
        self._window_began = None

    def _measure(self, in_flight: int, at_seconds: float) -> None:
        if self._settled_for:
            self._settled_for -= 1
        elif min(in_flight, self.permits) < self._ceiling:
            self._window_began = None
        elif self._window_began is None:
            self._window_began, self._window_replies = at_seconds, 0
        else:
            self._window_replies += 1
            if self._window_replies >= max(WINDOW_REQUESTS, 4 * self._ceiling):
                self._judge(self._window_replies / max(at_seconds - self._window_began, 1e-9))

    def _judge(self, rate: float) -> None:
        """Double the ceiling when the last doubling paid; otherwise undo it and let it be for a while."""
        self._window_began = None
        if rate < self._last_rate * MIN_GAIN:
            self._ceiling //= 2
            self._last_rate, self._settled_for = 0.0, SETTLED_REQUESTS
        elif self._ceiling < self.maximum:
            self._ceiling = min(self._ceiling * 2, self.maximum)
            self._last_rate = rate
        else:
            self._last_rate, self._settled_for = 0.0, SETTLED_REQUESTS
        self._limit = float(self._ceiling)
