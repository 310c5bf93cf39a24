"""The sensors that tell people of failed runs and failed checks.

They read Dagster's event log by a cursor of their own. `@dg.run_failure_sensor` moves on also when its function
raises, which would lose the alert of a webhook that is down; here the cursor stays until the alert is delivered.
"""

import time
from collections.abc import Callable, Iterable, Sequence

import dagster as dg

from labeling_assets.defs.platform.alerts import check_alert, joined, run_alerts
from labeling_assets.errors import LabelingError
from labeling_assets.resources import ProductDatabaseResource
from labeling_assets.services.alert_messages import Alert
from labeling_assets.services.alerts import Alerts
from labeling_assets.services.day_state import DayFailures
from labeling_assets.settings import Settings

INTERVAL_SECONDS = 30
SETTLE_SECONDS = 5.0
"""Younger events are left to the next tick: one with a lower number may still be on its way into the log."""
SENDING_SECONDS = 20.0
"""No delivery begins later in a tick, for which Dagster gives 60 s."""
RUNS_PER_TICK = 200
CHECKS_PER_TICK = 1_000
NOT_SET = "LABELING_ALERT_WEBHOOK_URL is not set, so nobody is told."

AlertsOf = Callable[[dg.EventLogRecord], Iterable[Alert]]


@dg.sensor(
    minimum_interval_seconds=INTERVAL_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Posts each failed run to LABELING_ALERT_WEBHOOK_URL, with days, stage, cause and remedy.",
)
def run_failure_alerts_sensor(
    context: dg.SensorEvaluationContext, product_database: ProductDatabaseResource
) -> dg.SensorResult:
    """Posts each failed run to the webhook: day, stage, cause, remedy and link; alerts of one cause are joined."""
    instance, settings = context.instance, Settings.load()

    def alerts_of(record: dg.EventLogRecord) -> Iterable[Alert]:
        run = instance.get_run_by_id(record.run_id)
        if run is None:  # deleted by a person, who knows
            return []
        steps = instance.get_records_for_run(run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE).records
        return run_alerts(
            run,
            record.event_log_entry.get_dagster_event(),
            [step.event_log_entry.get_dagster_event() for step in steps],
            DayFailures(product_database.get().engine).find(run_id=run.run_id),
            settings.ui_url.rstrip("/"),
        )

    return _tell(context, product_database, settings, dg.DagsterEventType.RUN_FAILURE, RUNS_PER_TICK, alerts_of)


@dg.sensor(
    minimum_interval_seconds=INTERVAL_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Posts each failed check to LABELING_ALERT_WEBHOOK_URL, with day, evidence and remedy.",
)
def failed_check_alerts_sensor(
    context: dg.SensorEvaluationContext, product_database: ProductDatabaseResource
) -> dg.SensorResult:
    """Posts each failed check to the webhook: errors, and warnings as such; alerts of one check are joined."""
    settings = Settings.load()

    def alerts_of(record: dg.EventLogRecord) -> Iterable[Alert]:
        evaluation = record.event_log_entry.get_dagster_event().asset_check_evaluation_data
        alert = check_alert(evaluation, record.run_id, settings.ui_url.rstrip("/"))
        return [alert] if alert else []

    event_type = dg.DagsterEventType.ASSET_CHECK_EVALUATION
    return _tell(context, product_database, settings, event_type, CHECKS_PER_TICK, alerts_of)


def _tell(
    context: dg.SensorEvaluationContext,
    product_database: ProductDatabaseResource,
    settings: Settings,
    event_type: dg.DagsterEventType,
    limit: int,
    alerts_of: AlertsOf,
) -> dg.SensorResult:
    """One tick: alert on the events since the cursor, and tell what was held back and is due.

    Where a delivery fails, the cursor stops before the first event that was not told. Events behind it that were told
    are met again; they fall into the interval of their cause, so they are counted, not sent.
    """
    if settings.alert_webhook_url is None or not context.cursor:
        # Whoever sets the address, or starts the sensor, asks for what happens from now on.
        reason = NOT_SET if settings.alert_webhook_url is None else "Alerts begin with what happens from now on."
        return dg.SensorResult(skip_reason=reason, cursor=str(_newest(context.instance, event_type)))
    start = int(context.cursor)
    records = _records(context.instance, event_type, start, limit)
    groups: dict[str, list[tuple[int, Alert]]] = {}
    for record in records:
        for alert in alerts_of(record):
            groups.setdefault(alert.cause, []).append((record.storage_id, alert))
    alerts, began = Alerts(product_database.get().engine, settings), time.monotonic()
    told_up_to = start
    try:
        for group in groups.values():  # by first event
            told_up_to = group[0][0] - 1
            if time.monotonic() - began > SENDING_SECONDS:
                return dg.SensorResult(
                    skip_reason="The webhook is slow; the next tick goes on.", cursor=str(told_up_to)
                )
            alerts.report(joined(alert for _, alert in group))
        told_up_to = records[-1].storage_id if records else start
        held_back = alerts.send_held_back()
    except LabelingError as error:
        if not records or told_up_to < records[0].storage_id:  # nothing was achieved
            raise
        return dg.SensorResult(skip_reason=f"Tried again at the next tick: {error}", cursor=str(told_up_to))
    failures = sum(map(len, groups.values()))
    reason = f"{failures} failures among {len(records)} events; {held_back} told that had been held back."
    return dg.SensorResult(skip_reason=reason, cursor=str(told_up_to))


def _newest(instance: dg.DagsterInstance, event_type: dg.DagsterEventType) -> int:
    newest = instance.event_log_storage.get_event_records(dg.EventRecordsFilter(event_type), limit=1)
    return newest[0].storage_id if newest else 0


def _records(
    instance: dg.DagsterInstance, event_type: dg.DagsterEventType, cursor: int, limit: int
) -> Sequence[dg.EventLogRecord]:
    wanted = dg.EventRecordsFilter(event_type, after_cursor=cursor, before_timestamp=time.time() - SETTLE_SECONDS)
    return instance.event_log_storage.get_event_records(wanted, limit=limit, ascending=True)
