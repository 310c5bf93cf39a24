"""A run that waits for a pool or a retry sleeps, and can be cancelled meanwhile."""

from __future__ import annotations

import os
import signal
import threading

import dagster as dg
import pytest
from dagster._core.execution.plan.active import ActiveExecution
from dagster._utils.interrupts import capture_interrupts

from labeling_assets.pool_waits import sleep_while_waiting


class Waiting:
    """A plan whose next step is due in an hour."""

    def sleep_interval(self) -> float:
        return 3600.0


def test_a_waiting_run_is_cancelled_at_once() -> None:
    sleep_while_waiting()
    cancel = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT))
    with capture_interrupts():  # as Dagster does in every run
        cancel.start()
        with pytest.raises(dg.DagsterExecutionInterruptedError):
            ActiveExecution.sleep_til_ready(Waiting())  # type: ignore[arg-type]


def test_a_run_that_was_cancelled_before_it_waits_does_not_wait() -> None:
    sleep_while_waiting()
    with capture_interrupts():
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(dg.DagsterExecutionInterruptedError):
            ActiveExecution.sleep_til_ready(Waiting())  # type: ignore[arg-type]
