"""How a test waits for what a platform does by itself, and tells its figures."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

POLL_SECONDS = 0.2


def tell(text: str) -> None:
    """Print figures also where output is captured, or comes from a process of its own."""
    print(f"\n{text}", file=sys.stderr, flush=True)


def wait_until(is_so: Callable[[], bool], timeout_seconds: float = 600) -> None:
    """Wait until something is so; fails when it is not in time."""
    deadline = time.monotonic() + timeout_seconds
    while not is_so():
        assert time.monotonic() < deadline, f"it did not happen within {timeout_seconds:.0f} s"
        time.sleep(POLL_SECONDS)
