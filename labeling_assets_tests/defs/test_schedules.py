"""The schedules on an instance of their own with a real PostgreSQL, and their ticks where clocks change."""

from __future__ import annotations

import datetime as dt
import json
import subprocess
import sys
from typing import Any

import dagster as dg
import pytest
import sqlalchemy as sa

from labeling_assets.defs.products import columns, partitions
from labeling_assets.errors import ConfigurationError, ImageNotFoundError, ImageUnavailableError
from labeling_assets.services.day_state import SyncedDays
from labeling_assets.services.quarantine import Quarantine
from labeling_assets_tests.defs.source_rows import SETTINGS, TODAY, YESTERDAY, ago, insert, process

YESTERDAY_SCHEDULE, NIGHTLY_SCHEDULE = "yesterday_schedule", "backfill_missing_days_schedule"
ONE_DAY = dt.timedelta(days=1)


def tick(
    schedule: str,
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    day: dt.date = TODAY,
) -> Any:
    """What the daemon gets from the tick of a day: run requests and skip message."""
    hour, minute = (int(part) for part in SETTINGS.nightly_at.split(":"))
    with dg.build_schedule_context(
        instance=instance,
        scheduled_execution_time=dt.datetime.combine(day, dt.time(hour, minute), SETTINGS.zone),
        repository_def=definitions.get_repository_def(),
        resources={"product_database": definitions.resources["product_database"]},
    ) as context:
        return definitions.resolve_schedule_def(schedule).evaluate_tick(context)


def requested(data: Any) -> list[tuple[str, str]]:
    """First and last day of each request."""
    return [
        (
            request.tags.get("dagster/asset_partition_range_start", request.partition_key),
            request.tags.get("dagster/asset_partition_range_end", request.partition_key),
        )
        for request in data.run_requests
    ]


def on_their_own(*days: dt.date) -> list[tuple[str, str]]:
    return [(str(day), str(day)) for day in days]


def add_run(instance: dg.DagsterInstance, day: dt.date) -> None:
    tags = {"dagster/partition": str(day)}
    instance.add_run(dg.DagsterRun("products_job", "0" * 32, status=dg.DagsterRunStatus.STARTED, tags=tags))


def test_yesterday_is_requested_with_a_key_of_its_own(
    definitions: dg.Definitions, instance: dg.DagsterInstance
) -> None:
    data = tick(YESTERDAY_SCHEDULE, definitions, instance)
    assert requested(data) == on_their_own(YESTERDAY)
    assert data.run_requests[0].run_key == f"yesterday_schedule/{YESTERDAY}"
    assert data.run_requests[0].tags["dagster/partition"] == str(YESTERDAY)


def test_yesterday_is_not_requested_while_a_run_of_it_is_on_its_way(
    definitions: dg.Definitions, instance: dg.DagsterInstance
) -> None:
    add_run(instance, YESTERDAY)
    data = tick(YESTERDAY_SCHEDULE, definitions, instance)
    assert not data.run_requests
    assert "on its way" in data.skip_message


def test_on_the_first_day_there_is_no_yesterday(definitions: dg.Definitions, instance: dg.DagsterInstance) -> None:
    first = SETTINGS.first_day
    assert "before the first day" in tick(YESTERDAY_SCHEDULE, definitions, instance, first).skip_message
    assert requested(tick(YESTERDAY_SCHEDULE, definitions, instance, first + dt.timedelta(days=1))) == on_their_own(
        first
    )


def test_the_night_runs_days_that_are_missing_or_changed_oldest_first(
    definitions: dg.Definitions, source: sa.Engine, instance: dg.DagsterInstance
) -> None:
    insert(source, ago(9), ago(7), ago(5), ago(2))
    process(source, ago(9), ago(7), ago(5))
    insert(source, ago(7))
    SyncedDays(source).record(ago(5), "data_label", None)
    data = tick(NIGHTLY_SCHEDULE, definitions, instance)
    assert requested(data) == on_their_own(ago(7), ago(5), ago(2))
    assert len({request.run_key for request in data.run_requests}) == 3


def test_the_night_has_nothing_to_do_where_the_stores_hold_everything(
    definitions: dg.Definitions, source: sa.Engine, instance: dg.DagsterInstance
) -> None:
    insert(source, YESTERDAY)
    process(source, YESTERDAY)
    data = tick(NIGHTLY_SCHEDULE, definitions, instance)
    assert not data.run_requests
    assert "no day needs mending" in data.skip_message


@pytest.mark.parametrize("asset", list(columns.COLUMNS))
def test_the_night_runs_days_of_which_an_asset_failed(
    definitions: dg.Definitions, source: sa.Engine, instance: dg.DagsterInstance, asset: str
) -> None:
    insert(source, ago(3), ago(2))
    process(source, ago(3), ago(2))

    @dg.asset(name=asset, partitions_def=partitions.product_days)
    def broken() -> None:
        raise dg.Failure("no")

    dg.materialize([broken], partition_key=str(ago(3)), instance=instance, raise_on_error=False)
    assert requested(tick(NIGHTLY_SCHEDULE, definitions, instance)) == on_their_own(ago(3))


def test_a_day_that_has_succeeded_since_is_not_failed(
    definitions: dg.Definitions, source: sa.Engine, instance: dg.DagsterInstance
) -> None:
    outcomes = [dg.Failure("no"), None]

    @dg.asset(name="qwen_labels", partitions_def=partitions.product_days)
    def mended() -> None:
        if error := outcomes.pop(0):
            raise error

    for _ in range(2):
        dg.materialize([mended], partition_key=str(YESTERDAY), instance=instance, raise_on_error=False)
    assert not tick(NIGHTLY_SCHEDULE, definitions, instance).run_requests


def test_the_night_runs_days_with_rows_whose_retry_may_help(
    definitions: dg.Definitions, source: sa.Engine, instance: dg.DagsterInstance
) -> None:
    insert(source, ago(4), ago(3))
    process(source, ago(4), ago(3))
    quarantine = Quarantine(source)
    quarantine.report(ago(4), "product_images", {"p": ImageUnavailableError("503")})
    quarantine.report(ago(3), "product_images", {"p": ImageNotFoundError("404")})
    quarantine.report(ago(400), "product_images", {"p": ImageUnavailableError("503")})
    assert requested(tick(NIGHTLY_SCHEDULE, definitions, instance)) == on_their_own(ago(4))


def test_the_night_keeps_to_its_budget_groups_days_and_leaves_out_those_in_flight(
    definitions: dg.Definitions, source: sa.Engine, instance: dg.DagsterInstance
) -> None:
    insert(source, *map(ago, range(1, 31)))
    add_run(instance, ago(29))
    assert SETTINGS.nightly_days == 14
    data = tick(NIGHTLY_SCHEDULE, definitions, instance)
    assert requested(data) == [*on_their_own(ago(30)), (str(ago(28)), str(ago(16)))]
    assert data.run_requests[1].partition_key is None


def test_the_keys_of_two_nights_differ(
    definitions: dg.Definitions, source: sa.Engine, instance: dg.DagsterInstance
) -> None:
    insert(source, ago(5))
    keys = [
        request.run_key
        for day in (YESTERDAY, TODAY)
        for request in tick(NIGHTLY_SCHEDULE, definitions, instance, day).run_requests
    ]
    assert len(set(keys)) == 2


def test_a_failed_read_is_a_failed_tick(
    definitions: dg.Definitions, engine: sa.Engine, instance: dg.DagsterInstance
) -> None:
    with pytest.raises(Exception, match="backfill_missing_days_schedule") as caught:
        tick(NIGHTLY_SCHEDULE, definitions, instance)
    assert isinstance(caught.value.__cause__, ConfigurationError)


def test_on_the_first_day_the_night_has_nothing_to_look_at(
    definitions: dg.Definitions, source: sa.Engine, instance: dg.DagsterInstance
) -> None:
    data = tick(NIGHTLY_SCHEDULE, definitions, instance, SETTINGS.first_day)
    assert "is not over" in data.skip_message


@pytest.mark.parametrize("name", [YESTERDAY_SCHEDULE, NIGHTLY_SCHEDULE])
def test_the_schedules_run_by_default_in_the_business_time_zone(definitions: dg.Definitions, name: str) -> None:
    schedule = definitions.resolve_schedule_def(name)
    assert schedule.default_status is dg.DefaultScheduleStatus.RUNNING
    assert schedule.execution_timezone == SETTINGS.timezone


def test_a_time_of_day_is_a_cron_expression(definitions: dg.Definitions) -> None:
    crons = [definitions.resolve_schedule_def(name).cron_schedule for name in (YESTERDAY_SCHEDULE, NIGHTLY_SCHEDULE)]
    assert (SETTINGS.daily_at, SETTINGS.nightly_at) == ("00:30", "02:00")
    assert crons == ["30 0 * * *", "0 2 * * *"]


TICKS_AROUND = """
import datetime as dt, itertools, json, sys
import dagster as dg
from dagster._utils.schedules import schedule_execution_time_iterator
from labeling_assets.defs.products.schedules import daily_cron, yesterday_schedule
from labeling_assets.settings import Settings

zone = Settings.load().zone
ticks, keys = [], []
with dg.instance_for_test() as instance:
    for start, time_of_day in json.loads(sys.argv[1]):
        midnight = dt.datetime.combine(dt.date.fromisoformat(start), dt.time(), zone)
        found = schedule_execution_time_iterator(
            midnight.timestamp(), daily_cron(time_of_day), yesterday_schedule.execution_timezone
        )
        ticks.append([tick.isoformat() for tick in itertools.islice(found, 4)])
    for tick in ticks[-1]:
        with dg.build_schedule_context(
            instance=instance, scheduled_execution_time=dt.datetime.fromisoformat(tick)
        ) as context:
            keys.append(yesterday_schedule(context).partition_key)
print(json.dumps([ticks, keys]))
"""


@pytest.mark.parametrize(
    ("zone", "changes"),
    [
        ("America/New_York", [dt.date(2026, 11, 1), dt.date(2026, 3, 8)]),
        ("Australia/Lord_Howe", [dt.date(2026, 10, 4), dt.date(2026, 4, 5)]),  # by half an hour
    ],
)
def test_every_day_is_requested_once_where_clocks_change(
    zone: str, changes: list[dt.date], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At times of day that do not exist, that come twice, and that are near."""
    monkeypatch.setenv("LABELING_TIMEZONE", zone)
    cases = [(change - ONE_DAY, time) for change in changes for time in ("00:30", "01:30", "01:45", "02:15", "02:30")]
    argument = json.dumps([(str(start), time) for start, time in cases])
    command = [sys.executable, "-W", "ignore", "-c", TICKS_AROUND, argument]
    ticks, keys = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    for (start, _), found in zip(cases, ticks, strict=True):
        assert [tick[:10] for tick in found] == [str(start + number * ONE_DAY) for number in range(4)]
    start = cases[-1][0]
    assert keys == [str(start + number * ONE_DAY) for number in range(-1, 3)]
