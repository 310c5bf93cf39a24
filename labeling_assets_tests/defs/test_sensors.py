"""The sensor of changed products on an instance of its own with a real PostgreSQL."""

from __future__ import annotations

import datetime as dt
from typing import Any

import dagster as dg
import pytest
import sqlalchemy as sa
import tenacity
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteRepositoryOrigin

from labeling_assets.defs.products import columns, partitions, run_requests
from labeling_assets.errors import ConfigurationError, ServiceUnavailableError
from labeling_assets.services.day_state import SyncedDays
from labeling_assets.services.source_days import SourceDays
from labeling_assets_tests.defs.source_rows import SETTINGS, TODAY, YESTERDAY, ago, insert, process

Status = dg.DagsterRunStatus


def tick(definitions: dg.Definitions, instance: dg.DagsterInstance, cursor: str | None = None) -> Any:
    """What the daemon gets from one evaluation: run requests, skip message, asset events and cursor."""
    with dg.build_sensor_context(
        instance=instance,
        cursor=cursor,
        repository_def=definitions.get_repository_def(),
        resources={"product_database": definitions.resources["product_database"]},
    ) as context:
        return definitions.resolve_sensor_def("changed_products_sensor").evaluate_tick(context)


def requested(data: Any) -> list[tuple[str, str]]:
    """First and last day of each request."""
    return [
        (
            request.tags.get("dagster/asset_partition_range_start", request.partition_key),
            request.tags.get("dagster/asset_partition_range_end", request.partition_key),
        )
        for request in data.run_requests
    ]


def add_run(
    instance: dg.DagsterInstance,
    tags: dict[str, str],
    status: dg.DagsterRunStatus = Status.STARTED,
    job_name: str = "products_job",
    assets: frozenset[dg.AssetKey] | None = None,
) -> None:
    run_id = f"{len(instance.get_runs()):032x}"
    origin = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("labeling_assets"), "__repository__")
    instance.add_run(
        dg.DagsterRun(
            job_name,
            run_id,
            status=status,
            tags=tags,
            asset_selection=assets,
            remote_job_origin=origin.get_job_origin(job_name),  # a queued run must have it
        )
    )


def test_a_day_whose_rows_are_new_is_requested_and_observed(
    definitions: dg.Definitions, source: sa.Engine, instance: dg.DagsterInstance
) -> None:
    insert(source, YESTERDAY, YESTERDAY, ago(3))
    data = tick(definitions, instance)
    assert requested(data) == [(str(ago(3)),) * 2, (str(YESTERDAY),) * 2]
    assert [request.tags["dagster/partition"] for request in data.run_requests] == [str(ago(3)), str(YESTERDAY)]
    assert data.run_requests[0].run_key != data.run_requests[1].run_key
    observation = data.asset_events[-1]
    fingerprint = observation.tags["dagster/data_version"]
    assert (observation.asset_key.path, observation.partition) == ([columns.SOURCE_NAME], str(YESTERDAY))
    assert {key: value.value for key, value in observation.metadata.items()} == {"rows": 2, "fingerprint": fingerprint}
    assert len(data.asset_events) == 2
    for event in data.asset_events:  # as the daemon does
        instance.report_runless_asset_event(event)
    records = instance.fetch_observations(dg.AssetKey(columns.SOURCE_NAME), limit=9).records
    assert {record.partition_key for record in records} == {str(ago(3)), str(YESTERDAY)}


def test_days_that_the_stores_hold_are_left_alone_and_observed_once(
    definitions: dg.Definitions, source: sa.Engine, instance: dg.DagsterInstance
) -> None:
    insert(source, YESTERDAY)
    process(source, YESTERDAY)
    first = tick(definitions, instance)
    second = tick(definitions, instance, first.cursor)
    assert requested(first) == requested(second) == []
    assert "stores hold what Postgres holds" in first.skip_message
    assert (len(first.asset_events), len(second.asset_events)) == (1, 0)


def test_only_the_days_of_the_look_back_window_are_seen(
    definitions: dg.Definitions, source: sa.Engine, instance: dg.DagsterInstance
) -> None:
    look_back = SETTINGS.look_back_days
    insert(source, TODAY, ago(look_back), ago(look_back + 1), ago(-1))
    assert requested(tick(definitions, instance)) == [(str(ago(look_back)),) * 2]


def test_many_contiguous_days_become_one_range_that_the_job_accepts(
    definitions: dg.Definitions, source: sa.Engine, instance: dg.DagsterInstance
) -> None:
    insert(source, *map(ago, range(1, 6)))
    data = tick(definitions, instance)
    assert requested(data) == [(str(ago(5)), str(YESTERDAY))]
    assert data.run_requests[0].partition_key is None


@pytest.mark.parametrize(
    "status", [Status.QUEUED, Status.NOT_STARTED, Status.STARTING, Status.STARTED, Status.CANCELING]
)
def test_a_day_with_a_run_on_its_way_waits(
    definitions: dg.Definitions, source: sa.Engine, instance: dg.DagsterInstance, status: dg.DagsterRunStatus
) -> None:
    insert(source, YESTERDAY)
    add_run(instance, {"dagster/partition": str(YESTERDAY)}, status)
    assert requested(tick(definitions, instance)) == []


@pytest.mark.parametrize("status", [Status.SUCCESS, Status.FAILURE, Status.CANCELED])
def test_a_run_that_has_ended_holds_nothing_up(
    definitions: dg.Definitions, source: sa.Engine, instance: dg.DagsterInstance, status: dg.DagsterRunStatus
) -> None:
    insert(source, YESTERDAY)
    add_run(instance, {"dagster/partition": str(YESTERDAY)}, status)
    assert requested(tick(definitions, instance)) == [(str(YESTERDAY),) * 2]


@pytest.mark.parametrize(
    ("job_name", "assets", "waits"),
    [
        ("__ASSET_JOB", None, True),
        ("__ASSET_JOB", frozenset({dg.AssetKey("clip_vectors")}), True),
        ("__ASSET_JOB", frozenset({dg.AssetKey("weekly_report")}), False),
        ("reports_job", None, False),
    ],
)
def test_the_days_of_a_range_run_wait_where_it_is_of_the_products(
    definitions: dg.Definitions,
    source: sa.Engine,
    instance: dg.DagsterInstance,
    job_name: str,
    assets: frozenset[dg.AssetKey] | None,
    waits: bool,
) -> None:
    insert(source, ago(4), ago(2))
    tags = {"dagster/asset_partition_range_start": str(ago(3)), "dagster/asset_partition_range_end": str(YESTERDAY)}
    add_run(instance, tags, job_name=job_name, assets=assets)
    assert requested(tick(definitions, instance)) == [(str(ago(4)),) * 2, *([] if waits else [(str(ago(2)),) * 2])]


def test_tags_that_are_no_days_hold_nothing_up(
    definitions: dg.Definitions, source: sa.Engine, instance: dg.DagsterInstance
) -> None:
    insert(source, YESTERDAY)
    add_run(instance, {"dagster/partition": "north|2026"})
    add_run(instance, {"dagster/asset_partition_range_start": str(ago(9))})
    add_run(instance, {})
    assert requested(tick(definitions, instance)) == [(str(YESTERDAY),) * 2]


def test_a_run_that_was_created_long_ago_and_never_queued_holds_nothing_up(
    definitions: dg.Definitions, source: sa.Engine, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    insert(source, YESTERDAY)
    add_run(instance, {"dagster/partition": str(YESTERDAY)}, Status.NOT_STARTED)
    monkeypatch.setattr(run_requests, "LAUNCH_LIMIT", -dt.timedelta(seconds=1))
    assert requested(tick(definitions, instance)) == [(str(YESTERDAY),) * 2]


def test_a_day_that_no_run_brings_into_the_stores_is_left_to_the_night_and_named(
    definitions: dg.Definitions, source: sa.Engine, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    insert(source, YESTERDAY)
    monkeypatch.setattr("labeling_assets.products.detection.PAUSES", (dt.timedelta(),) * 3)
    cursor, requests = None, 0
    for _ in range(6):
        data = tick(definitions, instance, cursor)
        cursor, requests = data.cursor, requests + len(data.run_requests)
    assert requests == 4
    assert str(YESTERDAY) in data.skip_message


def test_a_failed_read_is_a_failed_tick(
    definitions: dg.Definitions, engine: sa.Engine, instance: dg.DagsterInstance
) -> None:
    with pytest.raises(ConfigurationError, match="does not exist"):
        tick(definitions, instance)


def test_a_database_that_is_down_is_a_failed_tick(
    definitions: dg.Definitions, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABELING_POSTGRES_URL", "postgresql://user:secret@127.0.0.1:1/labeling")
    for method in (SourceDays.fingerprints, SyncedDays.find):
        monkeypatch.setattr(method.retry, "wait", tenacity.wait_none())
    with pytest.raises(ServiceUnavailableError):
        tick(definitions, instance)


@pytest.mark.parametrize(("days_known", "requests"), [(2, 2), (0, 0)])
def test_a_window_that_begins_before_the_first_day_is_cut(
    definitions: dg.Definitions,
    source: sa.Engine,
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
    days_known: int,
    requests: int,
) -> None:
    insert(source, ago(3), ago(2), YESTERDAY)
    days = dg.DailyPartitionsDefinition(start_date=str(ago(days_known)), timezone=SETTINGS.timezone)
    monkeypatch.setattr(partitions, "product_days", days)
    data = tick(definitions, instance)
    assert len(data.run_requests) == requests
    assert requests or "is not over" in data.skip_message


def test_the_sensor_runs_by_default_as_often_as_set(definitions: dg.Definitions) -> None:
    sensor = definitions.resolve_sensor_def("changed_products_sensor")
    assert sensor.default_status is dg.DefaultSensorStatus.RUNNING
    assert sensor.minimum_interval_seconds == SETTINGS.sensor_interval_seconds


def test_lineage_begins_at_the_source_day_by_day(definitions: dg.Definitions) -> None:
    graph = definitions.resolve_asset_graph()
    node = graph.get(dg.AssetKey(columns.SOURCE_NAME))
    assert node.is_external
    assert node.partitions_def == partitions.product_days
    assert node.child_keys == {dg.AssetKey("raw_products")}
    job = definitions.resolve_job_def("products_job")
    assert dg.AssetKey(columns.SOURCE_NAME) not in job.asset_layer.executable_asset_keys
