"""The statistics of P12: what all days of one call came to. The days are run by `runs.py`."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from labeling_assets.metadata import ROWS_IN, ROWS_OUT, ROWS_QUARANTINED, SECONDS
from labeling_assets.runs import STAGES, DayResult
from labeling_assets.services.connect import Services
from labeling_assets.services.day_tables import read_day
from labeling_assets.services.images.files import open_root
from labeling_assets.services.quarantine import Quarantine
from labeling_assets.settings import Settings


@dataclass
class RunStatistics:
    """What happened, summed over all days of one call."""

    crawled_count: int = 0
    duplicate_count: int = 0
    processed_count: int = 0
    inserted_count: int = 0
    updated_count: int = 0
    unchanged_count: int = 0
    removed_count: int = 0
    failed_count: int = 0
    insert_batches: int = 0
    model_calls: int = 0
    calls_avoided: int = 0
    label_cost: float = 0.0
    inserted_ids: list[str] = field(default_factory=list)
    failed_records: list[dict[str, Any]] = field(default_factory=list)
    total_time_seconds: float = 0.0
    seconds_by_stage: dict[str, float] = field(default_factory=dict)
    days: list[dict[str, Any]] = field(default_factory=list)

    def write(self, path: Path) -> None:
        """Write as UTF-8 JSON."""
        path.write_text(json.dumps(asdict(self), ensure_ascii=False, indent=2, default=str) + "\n", encoding="utf-8")


def statistics_of(settings: Settings, results: Sequence[DayResult]) -> RunStatistics:
    """What happened on the days of one call."""
    total = RunStatistics()
    for result in results:
        total.crawled_count += result.value("raw_products", ROWS_IN)
        total.duplicate_count += result.value("deduped_products", "duplicates")
        total.processed_count += result.value("clip_vectors", ROWS_OUT)
        total.inserted_count += result.value("milvus_collection", "rows_new")
        total.updated_count += result.value("milvus_collection", "rows_updated")
        total.unchanged_count += result.value("milvus_collection", "rows_unchanged")
        total.removed_count += result.value("milvus_collection", "rows_removed")
        total.failed_count += sum(result.value(stage, ROWS_QUARANTINED) for stage in STAGES)
        total.insert_batches += result.value("milvus_collection", "insert_batches")
        total.model_calls += result.value("qwen_labels", "model_calls")
        total.calls_avoided += result.value("qwen_labels", "calls_avoided")
        total.label_cost = round(total.label_cost + float(result.stages.get("qwen_labels", {}).get("cost", 0.0)), 6)
        total.total_time_seconds = round(total.total_time_seconds + result.seconds, 3)
        for stage, values in result.stages.items():
            before = total.seconds_by_stage.get(stage, 0.0)
            total.seconds_by_stage[stage] = round(before + float(values.get(SECONDS, 0.0)), 3)
        total.inserted_ids += _inserted_ids(settings, result)
        total.days.append(
            {"day": result.day, "run_id": result.run_id, "is_success": result.is_success, "failure": result.failure}
        )
    total.failed_records = _failed_records(settings, [result.day for result in results])
    return total


def _inserted_ids(settings: Settings, result: DayResult) -> list[str]:
    if "milvus_collection" not in result.stages:
        return []
    table = read_day(open_root(settings.storage_root), "milvus_collection", result.day)
    return [row["id_sanpham"] for row in table.to_pylist() if row["action"] == "new"]


def _failed_records(settings: Settings, days: Sequence[str]) -> list[dict[str, Any]]:
    quarantine = Quarantine(Services(settings).product_database.engine)
    return [asdict(row) for day in days for row in quarantine.find(day=dt.date.fromisoformat(day))]
