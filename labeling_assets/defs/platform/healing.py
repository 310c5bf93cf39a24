"""The nightly comparison of source, files, Milvus and `data_label`, its repairs, and a look at the days.

What drift is and how it is repaired stands in `services/healing.py`; which days are missing or failed is judged in
`defs/products/day_checks.py`. A run cannot launch others, so days that must run again are left to the sensor and the
nightly backfill of the products.
"""

import datetime as dt
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import dagster as dg

from labeling_assets.defs.products import checks, columns, day_checks, partitions, run_requests
from labeling_assets.errors import ConfigurationError
from labeling_assets.failures import raise_for_step
from labeling_assets.metadata import SECONDS
from labeling_assets.resources import ProductDatabaseResource, StorageResource, VectorStoreResource
from labeling_assets.services.drift import SAMPLE_IDS, Drift, Healing
from labeling_assets.services.healing import StoreHealer
from labeling_assets.services.images.files import open_root

HEAL_AT = "0 5 * * *"
"""After the nightly backfill, in the business time zone, as cron expression."""
SHOWN_DRIFTS = 50
MAX_RETRIES, RETRY_DELAY_SECONDS = 2, 60.0
RUN_LIMIT = dt.timedelta(hours=1)
"""Yesterday is due so long after LABELING_DAILY_AT."""
NAME = "store_agreement"
CHECKS = [
    dg.AssetCheckSpec(
        "no_drift_left", asset=NAME, description="Source, files, Milvus and data_label agree on every day."
    ),
    *checks.specs(NAME, "yesterday_is_present", "no_partitions_left_failed"),
]
if TYPE_CHECKING:
    Agreement = dg.MaterializeResult[None]
else:
    Agreement = dg.MaterializeResult  # with a type parameter, Dagster refuses it for an asset that has checks


class HealConfig(dg.Config):
    """Days to compare, YYYY-MM-DD, both included; by default every day that a store or a file knows."""

    start: str | None = None
    end: str | None = None


@dg.asset(
    group_name="platform",
    owners=["team:data-platform"],
    kinds={"postgres", "milvus"},
    deps=["milvus_collection", "data_label"],
    pool="milvus",
    check_specs=CHECKS,
)
def store_agreement(
    context: dg.AssetExecutionContext,
    config: HealConfig,
    product_database: ProductDatabaseResource,
    vector_store: VectorStoreResource,
    storage: StorageResource,
) -> Agreement:
    """Whether source, files, Milvus and data_label agree, day by day, after the stores were repaired from the files.

    - **Source** fingerprints of the source's days, clip_vectors, qwen_labels, Milvus and data_label.
    - **Stored in** the stores themselves: what is missing, different or surplus is written or removed.
    - **Re-run** repairs nothing where nothing drifted.
    - **Cost** one query of Milvus and two files per day; no model is asked.
    """
    started, now = time.monotonic(), dt.datetime.now(dt.UTC)
    days = [dt.date.fromisoformat(key) for key in partitions.product_days.get_partition_keys(current_time=now)]
    try:
        database = product_database.get()
        source_days = product_database.source_days()
        healer = StoreHealer(database, source_days, vector_store.get(), open_root(storage.root), _span(days))
        healing = healer.heal(_as_day(config.start), _as_day(config.end))
    except Exception as error:  # noqa: BLE001 - raised again as what Dagster understands
        tries = context.op_execution_context.retry_number
        raise_for_step(error, tries, max_retries=MAX_RETRIES, first_delay_seconds=RETRY_DELAY_SECONDS)
    for drift in healing.left:
        context.log.warning("%s %s: %s %s", drift.day, drift.kind, drift.meaning, drift.details)
    return dg.MaterializeResult(
        metadata={
            "days_examined": healing.days_examined,
            "days_to_run": len(healing.days_to_run),
            **healing.counts(),
            "drift": drift_table(healing.found),
            SECONDS: round(time.monotonic() - started, 3),
        },
        check_results=[no_drift_left(healing), *look_at_days(context.instance, days, now)],
    )


def no_drift_left(healing: Healing) -> dg.AssetCheckResult:
    """Pass when nothing is left; a warning where only days have to run, which others see to."""
    must_run = all(drift.must_run for drift in healing.left)
    ids = sorted({id_ for drift in healing.left for id_ in drift.sample_ids})
    return dg.AssetCheckResult(
        check_name="no_drift_left",
        passed=not healing.left,
        severity=dg.AssetCheckSeverity.WARN if must_run else dg.AssetCheckSeverity.ERROR,
        metadata={
            "drifts_left": len(healing.left),
            "days_to_run": dg.MetadataValue.json([str(day) for day in healing.days_to_run[:SAMPLE_IDS]]),
            "sample_ids": dg.MetadataValue.json(ids[:SAMPLE_IDS]),
            "left": drift_table(healing.left),
            "what_to_do": what_to_do(healing),
        },
    )


def what_to_do(healing: Healing) -> str:
    """What an operator does about what is left."""
    if not healing.left:
        return "Nothing."
    if all(drift.must_run for drift in healing.left):
        return (
            f"Nothing yet for days of the last {columns.SETTINGS.look_back_days}: changed_products_sensor and "
            "backfill_missing_days_schedule run them. For older days, or at once: `labeling heal`."
        )
    return "Run `labeling heal`, which runs the days that must run and then repairs what waits for them."


def drift_table(drifts: list[Drift]) -> dg.MarkdownMetadataValue:
    """Drifts as a markdown table, without outside text but the ids."""
    if not drifts:
        return dg.MetadataValue.md("None.")
    lines = ["| day | what | count | mended by |", "| --- | --- | ---: | --- |"]
    lines += [f"| {drift.day or 'none'} | {drift.kind} | {drift.count} | {drift.remedy} |" for drift in drifts]
    hidden = len(lines) - 2 - SHOWN_DRIFTS
    return dg.MetadataValue.md("\n".join(lines[: SHOWN_DRIFTS + 2] + ([f"\n{hidden} more."] if hidden > 0 else [])))


def look_at_days(instance: dg.DagsterInstance, days: Sequence[dt.date], now: dt.datetime) -> list[dg.AssetCheckResult]:
    """Whether yesterday is done, and no day left failed, in any of the product assets.

    Args:
        instance: The Dagster instance.
        days: All partitions, oldest first.
        now: With time zone.
    """
    done = set(days)
    for asset_key in run_requests.ASSET_KEYS:
        done &= {dt.date.fromisoformat(key) for key in instance.get_materialized_partitions(asset_key)}
    local = now.astimezone(columns.SETTINGS.zone)
    hour, minute = map(int, columns.SETTINGS.daily_at.split(":"))
    since_midnight = dt.timedelta(hours=local.hour, minutes=local.minute)
    is_due = since_midnight >= dt.timedelta(hours=hour, minutes=minute) + RUN_LIMIT
    return [
        day_checks.yesterday_is_present(NAME, days, done, is_due=is_due),
        day_checks.no_partitions_left_failed(NAME, days, run_requests.failed_days(instance, days)),
    ]


def _span(days: Sequence[dt.date]) -> tuple[dt.date, dt.date]:
    """First and last partition; the last is before the first while no day is over."""
    first = columns.SETTINGS.first_day
    return (days[0], days[-1]) if days else (first, first - dt.timedelta(days=1))


def _as_day(text: str | None) -> dt.date | None:
    try:
        return dt.date.fromisoformat(text) if text else None
    except ValueError as error:
        raise ConfigurationError(f"{text!r} is no day.", "Give start and end as YYYY-MM-DD.") from error


store_agreement_job = dg.define_asset_job(
    "store_agreement_job",
    selection=dg.AssetSelection.assets(store_agreement),
    description="Compare source, files, Milvus and data_label on every day, and repair the stores.",
)

store_agreement_schedule = dg.ScheduleDefinition(
    name="store_agreement_schedule",
    job=store_agreement_job,
    cron_schedule=HEAL_AT,
    execution_timezone=columns.SETTINGS.timezone,
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Compares and repairs the stores every night, after the backfill of missing days.",
)
