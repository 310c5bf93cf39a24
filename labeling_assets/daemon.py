"""Dagster's daemon, looking after backfills every few seconds: `python -m labeling_assets.daemon run -w …`.

Dagster 1.13 looks after backfills, their cancelling too, every 30 seconds and has no setting for it; the constant is
read when the daemon's loop begins (`dagster._daemon.backfill.execute_backfill_iteration_loop`). A look is two small
queries. Everything else is `dagster-daemon`.
"""

from __future__ import annotations

from dagster._daemon import controller
from dagster._daemon.cli import main

BACKFILL_LOOK_SECONDS = 3


def look_after_backfills_often() -> None:
    """Let the daemon of this process begin and cancel backfills within seconds."""
    controller.DEFAULT_DAEMON_INTERVAL_SECONDS = BACKFILL_LOOK_SECONDS


if __name__ == "__main__":
    look_after_backfills_often()
    main()
