"""The rate limit of hosted models: requests and tokens a minute over all endpoints of a process.

Each request books its turn and waits for it, so that turns come evenly and in order: a token bucket without bursts. In
any minute go out as many requests and tokens as allowed and one request more.
"""

from __future__ import annotations

import threading
import time

from labeling_assets.services.pipeline import sleep

SECONDS_A_MINUTE = 60


class Pacing:
    """Lets requests go out no faster than the limits. Thread-safe.

    Args:
        requests_per_minute: 0: no limit.
        tokens_per_minute: Tokens read and written; 0: no limit.
    """

    def __init__(self, requests_per_minute: int = 0, tokens_per_minute: int = 0) -> None:
        self._request_seconds = SECONDS_A_MINUTE / requests_per_minute if requests_per_minute else 0.0
        self._token_seconds = SECONDS_A_MINUTE / tokens_per_minute if tokens_per_minute else 0.0
        self._next_request_at = 0.0
        self._next_token_at = 0.0
        self._lock = threading.Lock()

    def wait(self, tokens: int) -> None:
        """Wait until a request of so many tokens, by estimate, may go out.

        Raises:
            StoppedError: The pipeline of this thread was stopped meanwhile.
        """
        if seconds := self.book(tokens, time.monotonic()):
            sleep(seconds)

    def book(self, tokens: int, now_seconds: float) -> float:
        """Take the next turn of a request of so many tokens; returns the seconds until then."""
        with self._lock:
            turn = max(now_seconds, self._next_request_at, self._next_token_at)
            self._next_request_at = turn + self._request_seconds
            self._next_token_at = turn + tokens * self._token_seconds
            return turn - now_seconds

    def correct(self, estimated_tokens: int, tokens: int) -> None:
        """Tell how many tokens a request took that was booked with an estimate."""
        with self._lock:
            self._next_token_at += (tokens - estimated_tokens) * self._token_seconds
