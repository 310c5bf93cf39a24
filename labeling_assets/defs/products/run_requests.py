"""What the sensor and the schedules share: the days they look at, the runs on their way, and their requests."""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Iterator, Sequence

import dagster as dg

from labeling_assets.defs.products import columns, partitions
from labeling_assets.products.day_ranges import DayRange

JOB_NAME = "products_job"
ASSET_KEYS = frozenset(dg.AssetKey(name) for name in columns.COLUMNS)
ASSET_JOB_PREFIX = "__ASSET_JOB"  # of runs that the UI or a backfill starts for chosen assets
PARTITION_TAG = "dagster/partition"
RANGE_START_TAG = "dagster/asset_partition_range_start"
RANGE_END_TAG = "dagster/asset_partition_range_end"
DAYS_TAG = "labeling/days"
"""Tells people: the list of runs in the UI shows the day of a run, and not the range."""
CREATED = dg.DagsterRunStatus.NOT_STARTED
ON_THEIR_WAY = [
    CREATED,
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
LAUNCH_LIMIT = dt.timedelta(minutes=10)
"""A run that was created earlier and still is not queued was left behind by a process that died; it will not start."""


def look_back_window(now: dt.datetime) -> list[dt.date]:
    """The partitions of the last LABELING_LOOK_BACK_DAYS days before today, in order; none before the first."""
    known = partitions.product_days.get_partition_keys(current_time=now)
    first = str(now.astimezone(columns.SETTINGS.zone).date() - dt.timedelta(days=columns.SETTINGS.look_back_days))
    return [dt.date.fromisoformat(key) for key in known if key >= first]


def days_in_flight(instance: dg.DagsterInstance) -> set[dt.date]:
    """Days that a run of the products covers which has not ended."""
    now = dt.datetime.now(dt.UTC)
    records = instance.get_run_records(dg.RunsFilter(statuses=ON_THEIR_WAY))
    runs = (
        record.dagster_run
        for record in records
        if record.dagster_run.status is not CREATED or now - record.create_timestamp < LAUNCH_LIMIT
    )
    return set(itertools.chain.from_iterable(map(_days, filter(_is_of_products, runs))))


def run_request(days: DayRange, key: str) -> dg.RunRequest:
    """A run of `products_job` for one day, or for a range of days in one run."""
    if days.first == days.last:
        return dg.RunRequest(run_key=key, partition_key=str(days.first))
    return dg.RunRequest(run_key=key, tags=range_tags(str(days.first), str(days.last)))


def range_tags(first: str, last: str) -> dict[str, str]:
    """Tags of a run of all days from the first to the last."""
    return {RANGE_START_TAG: first, RANGE_END_TAG: last, DAYS_TAG: f"{first} to {last}"}


def failed_days(instance: dg.DagsterInstance, days: Sequence[dt.date]) -> set[dt.date]:
    """Those of the days on which the last run of an asset failed before the asset was materialized."""
    keys = [str(day) for day in days]
    failed = set()
    for asset_key in ASSET_KEYS:
        # None: no run of the asset was ever planned.
        statuses = instance.get_status_by_partition(asset_key, keys, partitions.product_days) or {}
        failed |= {key for key, status in statuses.items() if status is dg.AssetPartitionStatus.FAILED}
    return {dt.date.fromisoformat(key) for key in failed}


def _is_of_products(run: dg.DagsterRun) -> bool:
    if not run.job_name.startswith(ASSET_JOB_PREFIX):
        return run.job_name == JOB_NAME
    return run.asset_selection is None or not run.asset_selection.isdisjoint(ASSET_KEYS)


def _days(run: dg.DagsterRun) -> Iterator[dt.date]:
    """Days of the tags of a run; none where it is of assets with other partitions."""
    try:
        first = dt.date.fromisoformat(run.tags.get(RANGE_START_TAG) or run.tags[PARTITION_TAG])
        last = dt.date.fromisoformat(run.tags.get(RANGE_END_TAG) or run.tags[PARTITION_TAG])
    except (KeyError, ValueError):
        return
    yield from DayRange(first, last).days
