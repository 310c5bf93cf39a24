"""The daemon looks after backfills within seconds."""

from __future__ import annotations

import logging
import threading
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest
from dagster._daemon import controller
from dagster._daemon.backfill import execute_backfill_iteration_loop

from labeling_assets.daemon import BACKFILL_LOOK_SECONDS, look_after_backfills_often


class Pauses(threading.Event):
    """Notes how long the daemon pauses, and does not."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.seconds.append(timeout or 0.0)
        return False


def test_a_backfill_is_looked_after_every_few_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(controller, "DEFAULT_DAEMON_INTERVAL_SECONDS", controller.DEFAULT_DAEMON_INTERVAL_SECONDS)
    look_after_backfills_often()
    pauses = Pauses()
    with dg.DagsterInstance.ephemeral() as instance:
        context: Any = SimpleNamespace(instance=instance)
        loop = execute_backfill_iteration_loop(context, logging.getLogger(__name__), pauses)
        while not pauses.seconds:
            next(loop)
    assert 0 < pauses.seconds[0] <= BACKFILL_LOOK_SECONDS
