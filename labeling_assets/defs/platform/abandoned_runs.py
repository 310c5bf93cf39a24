"""Ends runs whose process was killed while the daemon lives."""

from __future__ import annotations

import dagster as dg

from labeling_assets.abandoned_runs import end_abandoned_runs

INTERVAL_SECONDS = 30


@dg.sensor(
    minimum_interval_seconds=INTERVAL_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Ends runs whose process was killed, and frees the pool slots that they hold.",
)
def abandoned_runs_sensor(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    """Reports runs of this host whose process is gone as failed, and frees the slots of pools that they hold.

    Dagster then starts such a run again, once; where that does not help, `changed_products_sensor` does.
    """
    ended = end_abandoned_runs(context.instance)
    return dg.SkipReason(f"Ended {', '.join(ended)}." if ended else "Every run at work has its process.")
