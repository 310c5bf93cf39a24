"""Lets a run that waits for a pool or a retry sleep, and be cancelled meanwhile.

While a step waits for a pool, dagster 1.13 sleeps for `min([0, …])` seconds between looks, that is not at all
(`InstanceConcurrencyContext.interval_to_next_pending_claim_check`); it is meant to sleep until the next look is due.
While it sleeps, its in-process executor only notes that it is to stop (`ActiveExecution.sleep_til_ready`), and would go
on waiting until a step begins.
"""

from __future__ import annotations

import time

import dagster as dg
from dagster._core.execution.plan.active import ActiveExecution
from dagster._core.execution.plan.instance_concurrency_context import InstanceConcurrencyContext


def _seconds_to_next_look(self: InstanceConcurrencyContext) -> float:
    now = time.time()
    return max(0.0, min((due - now for due in self._pending_timeouts.values()), default=0.0))


def _sleep_until_ready(self: ActiveExecution) -> None:
    with dg.raise_execution_interrupts():
        time.sleep(max(0.0, self.sleep_interval()))  # type: ignore[no-untyped-call]


def sleep_while_waiting() -> None:
    """Let waiting runs of this process sleep, until they are cancelled."""
    InstanceConcurrencyContext.interval_to_next_pending_claim_check = _seconds_to_next_look  # type: ignore[method-assign]
    ActiveExecution.sleep_til_ready = _sleep_until_ready  # type: ignore[method-assign]
