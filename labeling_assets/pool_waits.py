"""Keeps a run that waits for a pool from using a whole core.

While a step waits, dagster 1.13 sleeps for `min([0, …])` seconds between looks, that is not at all
(`InstanceConcurrencyContext.interval_to_next_pending_claim_check`); it is meant to sleep until the next look is due.
"""

from __future__ import annotations

import time

from dagster._core.execution.plan.instance_concurrency_context import InstanceConcurrencyContext


def _seconds_to_next_look(self: InstanceConcurrencyContext) -> float:
    now = time.time()
    return max(0.0, min((due - now for due in self._pending_timeouts.values()), default=0.0))


def sleep_while_waiting() -> None:
    """Let waiting runs of this process sleep."""
    InstanceConcurrencyContext.interval_to_next_pending_claim_check = _seconds_to_next_look  # type: ignore[method-assign]
