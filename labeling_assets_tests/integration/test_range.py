"""A range of days in one run: each day on its own, one bad day, a stop half-way, and what the stores remember."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from urllib.parse import urlsplit

import dagster as dg
import pytest
import sqlalchemy as sa
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus
from dagster._core.storage.event_log.base import PartitionKeyFilter

from labeling_assets.defs.products import stage
from labeling_assets.defs.products.run_requests import ASSET_KEYS
from labeling_assets.services.day_state import DayFailures, SyncedDays
from labeling_assets_tests.integration.world import DAYS, TABLE, World
from labeling_assets_tests.services.faulty_image_host import status

RANGE = [dt.date(2026, 3, 10) + dt.timedelta(days=number) for number in range(4)]
BAD = RANGE[1]
FAILED = AssetCheckExecutionRecordStatus.FAILED


def fill(world: World, days: list[dt.date] = RANGE, products: int = 2) -> dict[str, dt.date]:
    expected = {}
    for day in days:
        for number in range(products):
            world.add(f"{day} {number}", day)
            expected[f"{day} {number}"] = day
    return expected


def spoil(world: World, day: dt.date) -> None:
    """Write a value into the day's rows that the crawl cannot read as a number."""
    world.sql(f"alter table {TABLE} alter column spend type text")
    world.sql(f"update {TABLE} set spend = 'much' where published_at::date = :day", day=day)


def partitions(world: World, status: dg.AssetPartitionStatus) -> dict[str, set[str]]:
    from labeling_assets.defs.products.partitions import product_days

    found = {}
    for key in ASSET_KEYS:
        statuses = world.instance.get_status_by_partition(key, [str(day) for day in RANGE], product_days)
        found[key.path[-1]] = {day for day, one in (statuses or {}).items() if one is status}
    return found


def evaluated(world: World, asset: str, check: str, day: dt.date) -> AssetCheckExecutionRecordStatus:
    """How the last evaluation of a check on a day ended."""
    history = world.instance.event_log_storage.get_asset_check_execution_history(
        dg.AssetCheckKey(dg.AssetKey(asset), check), limit=1, partition_filter=PartitionKeyFilter(key=str(day))
    )
    return history[0].status


def test_a_range_does_every_day_in_one_run(world: World) -> None:
    expected = fill(world)
    run = world.run(*RANGE)
    assert run.is_success, run.failure
    world.agrees(expected)
    assert run.days == {(key.path[-1], str(day)) for key in ASSET_KEYS for day in RANGE}
    assert all(run.day_checks.values())
    assert set(run.day_checks) == {(name, str(day)) for name in run.checks for day in RANGE}
    assert set(SyncedDays(world.engine).find(RANGE[0], RANGE[-1])) == set(RANGE)


def test_one_bad_day_fails_alone_and_is_shown_as_failed_with_its_cause(world: World) -> None:
    expected = {id_: day for id_, day in fill(world).items() if day != BAD}
    spoil(world, BAD)
    run = world.run(*RANGE)
    assert not run.is_success
    assert f"1 of 4 days failed. {BAD} in raw_products" in run.failure
    assert "much" in run.failure
    world.agrees(expected)
    good = {str(day) for day in RANGE if day != BAD}
    assert set(run.day_checks) == {(name, day) for name in run.checks for day in good}
    assert partitions(world, dg.AssetPartitionStatus.MATERIALIZED) == {key.path[-1]: good for key in ASSET_KEYS}
    assert partitions(world, dg.AssetPartitionStatus.FAILED) == {key.path[-1]: {str(BAD)} for key in ASSET_KEYS}
    (failure,) = DayFailures(world.engine).find()
    assert (failure.day, failure.stage, failure.run_id) == (BAD, "raw_products", run.run_id)

    world.sql(f"update {TABLE} set spend = '1.5' where spend = 'much'")
    calls = world.model_calls()
    assert world.run(*RANGE).is_success
    assert world.model_calls() == calls + 2
    assert not DayFailures(world.engine).find()
    assert not any(partitions(world, dg.AssetPartitionStatus.FAILED).values())


def test_a_day_that_fails_in_the_middle_of_the_graph_stops_there(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = {id_: day for id_, day in fill(world, products=12).items() if day != BAD}
    with world.engine.connect() as connection:
        urls = connection.execute(sa.text(f"select image from {TABLE} where product_id like '{BAD}%'")).scalars()
        for url in urls:
            world.images.add(urlsplit(url).path, status(404))
    run = world.run(*RANGE)
    assert not run.is_success
    assert f"{BAD} in product_images: Check most_images_are_usable stops the day" in run.failure
    world.agrees(expected)
    assert evaluated(world, "product_images", "most_images_are_usable", BAD) is FAILED
    done = partitions(world, dg.AssetPartitionStatus.MATERIALIZED)
    assert str(BAD) in done["deduped_products"]
    assert str(BAD) not in done["product_images"] | done["milvus_collection"]
    assert len(world.quarantine()) == 12


def test_a_day_of_its_own_that_is_stopped_by_a_check_fails_with_what_to_do(world: World) -> None:
    for number in range(10):
        world.add(f"P{number}", DAYS[0], world.images.add(f"/{number}.jpg", status(404)))
    run = world.run(DAYS[0])
    assert not run.is_success
    assert "most_images_are_usable" in run.failure
    assert "labeling quarantine" in run.failure
    (failure,) = DayFailures(world.engine).find()
    assert (failure.day, failure.stage, failure.run_id) == (DAYS[0], "product_images", run.run_id)
    assert "labeling quarantine" in failure.remedy
    assert evaluated(world, "product_images", "most_images_are_usable", DAYS[0]) is FAILED
    assert not (Path(world.storage) / "product_images").exists()


def test_a_service_that_is_down_fails_the_stage_and_no_day_alone(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(world)
    monkeypatch.setattr(stage, "MAX_RETRIES", 0)
    monkeypatch.setenv("LABELING_OLLAMA_HOSTS", "http://127.0.0.1:9")
    run = world.run(*RANGE)
    assert not run.is_success
    assert "127.0.0.1:9" in run.failure
    assert not DayFailures(world.engine).find()
    assert partitions(world, dg.AssetPartitionStatus.MATERIALIZED)["product_images"] == {str(day) for day in RANGE}


def test_a_limited_run_is_no_state_of_the_day_and_a_whole_one_is_remembered(world: World) -> None:
    fill(world, DAYS, products=3)
    limited = {"ops": {"raw_products": {"config": {"limit": 1}}}}
    assert world.run(DAYS[0]).is_success
    synced = SyncedDays(world.engine)
    before = synced.find(DAYS[0], DAYS[0])[DAYS[0]]
    assert set(before) == {"milvus_collection", "data_label"}
    assert {value.split(":")[0] for value in before.values()} == {"3"}
    assert world.run(DAYS[0], config=limited).is_success
    assert set(synced.find(DAYS[0], DAYS[0])[DAYS[0]].values()) == {"unknown"}
    assert world.run(DAYS[0]).is_success
    assert synced.find(DAYS[0], DAYS[0])[DAYS[0]] == before
