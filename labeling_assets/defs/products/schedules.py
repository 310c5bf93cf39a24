"""The schedules of the products domain: yesterday every day, and the days that need mending every night.

Which days need mending is decided in `products/detection.py`; changes of the source are found by `sensors.py`.
"""

import datetime as dt

import dagster as dg

from labeling_assets.defs.products import columns, jobs, run_requests
from labeling_assets.products.day_ranges import DayRange
from labeling_assets.products.detection import days_for_the_night, group_days
from labeling_assets.resources import ProductDatabaseResource
from labeling_assets.services.day_state import STORES

SETTINGS = columns.SETTINGS


def daily_cron(time_of_day: str) -> str:
    """The cron expression of every day at HH:MM."""
    hour, minute = time_of_day.split(":")
    return f"{int(minute)} {int(hour)} * * *"


@dg.schedule(
    job=jobs.products_job,
    cron_schedule=daily_cron(SETTINGS.daily_at),
    execution_timezone=SETTINGS.timezone,
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Runs yesterday, also when it has no rows.",
)
def yesterday_schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
    """Requests yesterday, also when it has no rows, so that its partition tells that it was looked at."""
    today = context.scheduled_execution_time.astimezone(SETTINGS.zone).date()
    yesterday = today - dt.timedelta(days=1)
    if yesterday < SETTINGS.first_day:
        return dg.SkipReason(f"{yesterday} is before the first day, {SETTINGS.first_day}.")
    if yesterday in run_requests.days_in_flight(context.instance):
        return dg.SkipReason(f"A run of {yesterday} is on its way.")
    return run_requests.run_request(DayRange(yesterday, yesterday), f"yesterday_schedule/{yesterday}")


@dg.schedule(
    job=jobs.products_job,
    cron_schedule=daily_cron(SETTINGS.nightly_at),
    execution_timezone=SETTINGS.timezone,
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Runs missing, changed and failed days of the look-back window, then those with rows to retry.",
)
def backfill_missing_days_schedule(
    context: dg.ScheduleEvaluationContext, product_database: ProductDatabaseResource
) -> list[dg.RunRequest] | dg.SkipReason:
    """Requests up to LABELING_NIGHTLY_DAYS days of the last LABELING_LOOK_BACK_DAYS that need mending, oldest first.

    These are the days that a store does not hold in the state of Postgres (missing, changed), that failed in any asset,
    and, with what is left of the budget, those with rows in quarantine that may succeed when tried again. Contiguous
    days become one run; a day with a run on its way is left out.
    """
    window = run_requests.look_back_window(context.scheduled_execution_time)
    if not window:
        return dg.SkipReason(f"The first day, {SETTINGS.first_day}, is not over.")
    in_flight = run_requests.days_in_flight(context.instance)
    failed = run_requests.failed_days(context.instance, window)
    retryable = {row.day for row in product_database.quarantine().find(can_retry=True)}
    synced = product_database.synced_days().find(window[0], window[-1])
    source = product_database.source_days().fingerprints(window[0], window[-1])
    days = days_for_the_night(source, synced, STORES, failed, retryable, in_flight, SETTINGS.nightly_days)
    if not days:
        return dg.SkipReason(f"From {window[0]} to {window[-1]}, no day needs mending.")
    night = context.scheduled_execution_time.astimezone(SETTINGS.zone).date()
    return [
        run_requests.run_request(group, f"backfill_missing_days_schedule/{night}/{group}") for group in group_days(days)
    ]
