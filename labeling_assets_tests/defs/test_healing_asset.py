"""The asset `store_agreement`, its check, its job and its schedule."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import sqlalchemy as sa
from upath import UPath

from labeling_assets.definitions import build_defs
from labeling_assets.defs.platform import healing as definitions
from labeling_assets.defs.products import partitions, run_requests
from labeling_assets.resources import (
    EmbedderResource,
    GpuResource,
    ProductDatabaseResource,
    StorageResource,
    VectorStoreResource,
)
from labeling_assets.services.connect import close_services
from labeling_assets.services.drift import Drift, Healing, Kind
from labeling_assets_tests.services.healed_shop import MONDAY, TABLE, TUESDAY, ZONE, Shop

RUN_DRIFT = Drift(MONDAY, Kind.SOURCE_CHANGED)
STORE_DRIFT = Drift(MONDAY, Kind.MILVUS_SURPLUS, 1, ("a|b",))


@dataclass
class Platform:
    """A healthy shop, and the resources of Dagster on it."""

    shop: Shop
    resources: dict[str, Any]

    def materialize(self, **config: str) -> tuple[dict[str, Any], dg.AssetCheckEvaluation]:
        """Metadata and check of one run of the asset."""
        result = dg.materialize(
            [definitions.store_agreement],
            resources=self.resources,
            run_config={"ops": {"store_agreement": {"config": config}}},
        )
        (event,) = result.asset_materializations_for_node("store_agreement")
        (check,) = [each for each in result.get_asset_check_evaluations() if each.check_name == "no_drift_left"]
        return {name: value.value for name, value in event.metadata.items()}, check


@pytest.fixture
def platform(engine: sa.Engine, postgres_url: str, milvus_uri: str, tmp_path: Path) -> Iterator[Platform]:
    database = ProductDatabaseResource(url=postgres_url, source_table=TABLE, timezone=ZONE.key)
    vector_store = VectorStoreResource(
        product_database=database,
        embedder=EmbedderResource(
            gpu=GpuResource(device="auto", dtype="auto", memory_share=1), name="embedded", dimension=0, batch_size=0
        ),
        uri=milvus_uri,
        token="",
        collection=f"test_{uuid.uuid4().hex}",
        index="auto",
    )
    storage = StorageResource(root=str(tmp_path))
    shop = Shop(engine, vector_store.get(), UPath(tmp_path))
    shop.open()
    yield Platform(shop, {"product_database": database, "vector_store": vector_store, "storage": storage})
    state = shop.store.state()
    shop.store._connection.call("drop_alias", state.alias)
    shop.store._connection.call("drop_collection", state.physical_name)
    close_services()


def test_agreeing_stores_are_left_alone(platform: Platform) -> None:
    metadata, check = platform.materialize()
    assert (metadata["days_examined"], metadata["days_to_run"]) == (2, 0)
    assert all(metadata[f"{kind}_{what}"] == 0 for kind in Kind for what in ("found", "repaired"))
    assert metadata["drift"] == "None."
    assert check.passed
    assert check.metadata["what_to_do"].value == "Nothing."


def test_drifted_stores_are_repaired(platform: Platform) -> None:
    before = platform.shop.stores()
    platform.shop.store._rows.remove(["a", "c"])
    platform.shop.put_in_data_label("stranger", MONDAY)
    metadata, check = platform.materialize()
    assert (metadata["milvus_missing_found"], metadata["milvus_missing_repaired"]) == (2, 2)
    assert (metadata["data_label_surplus_found"], metadata["data_label_surplus_repaired"]) == (1, 1)
    assert f"| {MONDAY} | milvus_missing | 1 | repair from clip_vectors |" in metadata["drift"]
    assert check.passed
    assert platform.shop.stores() == before


def test_a_day_that_must_run_is_reported_with_what_to_do(platform: Platform) -> None:
    platform.shop.sql(f"update {TABLE} set title = 'new' where product_id = 'a'")
    metadata, check = platform.materialize()
    assert metadata["days_to_run"] == 1
    assert (metadata["source_changed_found"], metadata["source_changed_repaired"]) == (1, 0)
    assert not check.passed
    assert check.severity is dg.AssetCheckSeverity.WARN
    assert check.metadata["days_to_run"].value == [str(MONDAY)]
    assert "labeling heal" in str(check.metadata["what_to_do"].value)


def test_a_range_may_be_given(platform: Platform) -> None:
    platform.shop.store._rows.remove(["a", "c"])
    metadata, _ = platform.materialize(start=str(TUESDAY), end=str(TUESDAY))
    assert (metadata["days_examined"], metadata["milvus_missing_repaired"]) == (1, 1)


@pytest.mark.parametrize("config", [{"start": "yesterday"}, {"start": "2026-03-03", "end": "2026-03-02"}])
def test_a_wrong_range_is_a_failure_that_tells_what_to_give(platform: Platform, config: dict[str, str]) -> None:
    with pytest.raises(dg.Failure, match="Give "):
        platform.materialize(**config)


def test_a_failed_read_fails_the_run_with_its_cause(platform: Platform) -> None:
    platform.shop.sql(f"alter table {TABLE} rename to other")
    with pytest.raises(dg.Failure, match="cannot be read"):
        platform.materialize()


@pytest.mark.parametrize(
    ("left", "severity"),
    [([RUN_DRIFT], dg.AssetCheckSeverity.WARN), ([STORE_DRIFT, RUN_DRIFT], dg.AssetCheckSeverity.ERROR)],
)
def test_days_to_run_are_a_warning_and_stores_that_stay_wrong_an_error(
    left: list[Drift], severity: dg.AssetCheckSeverity
) -> None:
    check = definitions.no_drift_left(Healing(2, left, left))
    assert not check.passed
    assert check.severity is severity
    assert check.metadata["drifts_left"].value == len(left)


def test_the_table_of_drifts_is_bounded() -> None:
    drifts = [Drift(MONDAY + dt.timedelta(days=number), Kind.FILE_MISSING) for number in range(500)]
    text = str(definitions.drift_table(drifts).value)
    assert text.count("file_missing") == definitions.SHOWN_DRIFTS
    assert "450 more" in text


MORNING = dt.datetime(2026, 3, 4, 5, tzinfo=ZONE)
AFTER_MIDNIGHT = dt.datetime(2026, 3, 4, 0, 10, tzinfo=ZONE)


def done(instance: dg.DagsterInstance, *days: dt.date) -> None:
    for asset_key in run_requests.ASSET_KEYS:
        for day in days:
            instance.report_runless_asset_event(dg.AssetMaterialization(asset_key, partition=str(day)))


@pytest.mark.parametrize(
    ("days", "now", "is_present"),
    [
        ([MONDAY, TUESDAY], MORNING, True),
        ([MONDAY], MORNING, False),
        ([MONDAY], AFTER_MIDNIGHT, True),
    ],
    ids=["done", "missing", "not due yet"],
)
def test_yesterday_must_be_done_in_every_asset(days: list[dt.date], now: dt.datetime, *, is_present: bool) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        done(instance, *days)
        yesterday, failed = definitions.look_at_days(instance, [MONDAY, TUESDAY], now)
    assert (yesterday.check_name, yesterday.passed) == ("yesterday_is_present", is_present)
    assert (failed.check_name, failed.passed) == ("no_partitions_left_failed", True)


def test_a_failed_day_is_found_until_it_succeeds() -> None:
    @dg.asset(partitions_def=partitions.product_days)
    def raw_products() -> None:
        raise RuntimeError

    with dg.DagsterInstance.ephemeral() as instance:
        dg.materialize([raw_products], instance=instance, partition_key=str(MONDAY), raise_on_error=False)
        _, failed = definitions.look_at_days(instance, [MONDAY, TUESDAY], MORNING)
        assert not failed.passed
        assert f"labeling backfill --start {MONDAY} --end {MONDAY}" in str(failed.metadata["what_to_do"])
        done(instance, MONDAY)
        assert definitions.look_at_days(instance, [MONDAY, TUESDAY], MORNING)[1].passed


def test_before_the_first_day_is_over_nothing_is_missing() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        assert all(check.passed for check in definitions.look_at_days(instance, [], MORNING))


def test_it_runs_every_night_by_default() -> None:
    schedule = build_defs().get_repository_def().get_schedule_def("store_agreement_schedule")
    assert schedule.cron_schedule == "0 5 * * *"
    assert schedule.execution_timezone == "Asia/Ho_Chi_Minh"
    assert schedule.default_status is dg.DefaultScheduleStatus.RUNNING
    job = build_defs().resolve_job_def("store_agreement_job")
    assert {key.to_user_string() for key in job.asset_layer.executable_asset_keys} == {"store_agreement"}
