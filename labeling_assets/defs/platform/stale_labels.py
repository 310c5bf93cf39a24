"""The nightly count of stale labels: those of another model, prompt or schema than is in use now.

What stale means stands in `products/label_versions.py`; making such labels anew is left to a person, since it costs:
`labeling relabel --stale`.
"""

import time
from collections import Counter
from collections.abc import Iterable, Sequence

import dagster as dg

from labeling_assets.defs.products import columns
from labeling_assets.failures import raise_for_step
from labeling_assets.metadata import SECONDS, bar_chart
from labeling_assets.products.label_versions import LabelVersion
from labeling_assets.resources import StorageResource, VisionModelResource
from labeling_assets.services.checked_files import LABELS
from labeling_assets.services.images.files import open_root
from labeling_assets.services.plan import current_version
from labeling_assets.services.stale import DayLabels, labeled_days, read_day_labels

COUNT_AT = "30 5 * * *"
"""After the nightly comparison of the stores, in the business time zone, as cron expression."""
SHOWN_DAYS = 30
MAX_RETRIES, RETRY_DELAY_SECONDS = 2, 60.0
LABELS_STALE = "labels_stale"
"""Also a key of each materialization of `qwen_labels`, where it is 0."""


@dg.asset(group_name="platform", owners=["team:data-platform"], kinds={"parquet"}, deps=[LABELS])
def stale_labels(
    context: dg.AssetExecutionContext, storage: StorageResource, vision_model: VisionModelResource
) -> dg.MaterializeResult[None]:
    """How many labels were made by another model, prompt or schema than is in use now, day by day.

    - **Source** four columns of each file of qwen_labels, and the version of the model in use.
    - **Stored in** the metadata here, and an observation of qwen_labels for each day that has stale labels.
    - **Re-run** counts anew.
    - **Cost** a few kilobytes a day; no model is asked about an image. `labeling relabel --stale` makes them anew.
    """
    started = time.monotonic()
    try:
        root = open_root(storage.root)
        current, problem = current_version(vision_model.get())
        days = read_day_labels(root, labeled_days(root))
    except Exception as error:  # noqa: BLE001 - raised again as what Dagster understands
        tries = context.op_execution_context.retry_number
        raise_for_step(error, tries, max_retries=MAX_RETRIES, first_delay_seconds=RETRY_DELAY_SECONDS)
    if problem:
        context.log.warning("Models are compared by name: %s", problem)
    for day in days:
        if day.problem:
            context.log.warning("%s is left out: %s", day.day, day.problem)
        if stale := day.stale(current):
            context.log_event(
                dg.AssetObservation(
                    LABELS, partition=str(day.day), metadata={LABELS_STALE: stale, "in_use": str(current)}
                )
            )
    return dg.MaterializeResult(
        metadata={
            LABELS_STALE: sum(day.stale(current) for day in days),
            "labels": sum(day.total for day in days),
            "days": len(days),
            "days_with_stale_labels": sum(day.stale(current) > 0 for day in days),
            "days_unreadable": sum(bool(day.problem) for day in days),
            "in_use": str(current),
            "is_model_compared_by_name": bool(problem),
            "made_by": bar_chart(_makers(days), "Made by model@prompt"),
            "stale_by_day": day_table(days, current),
            SECONDS: round(time.monotonic() - started, 3),
        }
    )


def _makers(days: Sequence[DayLabels]) -> Iterable[str]:
    counts = Counter[str]()
    for day in days:
        for version, count in day.counts.items():
            counts[f"{version.model}@{version.prompt_version}"] += count
    return counts.elements()


def day_table(days: Sequence[DayLabels], current: LabelVersion) -> dg.MarkdownMetadataValue:
    """The newest days with stale labels as a markdown table, without text from outside."""
    with_stale = [day for day in reversed(days) if day.stale(current)]
    if not with_stale:
        return dg.MetadataValue.md("None.")
    lines = ["| day | stale | labels |", "| --- | ---: | ---: |"]
    lines += [f"| {day.day} | {day.stale(current)} | {day.total} |" for day in with_stale[:SHOWN_DAYS]]
    more = len(with_stale) - SHOWN_DAYS
    return dg.MetadataValue.md("\n".join(lines + ([f"\n{more} more: `labeling stale`."] if more > 0 else [])))


stale_labels_job = dg.define_asset_job(
    "stale_labels_job",
    selection=dg.AssetSelection.assets(stale_labels),
    description="Count the labels of another model, prompt or schema than is in use now.",
)

stale_labels_schedule = dg.ScheduleDefinition(
    name="stale_labels_schedule",
    job=stale_labels_job,
    cron_schedule=COUNT_AT,
    execution_timezone=columns.SETTINGS.timezone,
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Counts stale labels every night, after the comparison of the stores.",
)
