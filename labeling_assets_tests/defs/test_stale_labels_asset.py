"""The asset `stale_labels`, its observations of the days, its job and its schedule."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from upath import UPath

from labeling_assets.definitions import build_defs
from labeling_assets.defs.platform.stale_labels import stale_labels
from labeling_assets.products.labels import SCHEMA_VERSION
from labeling_assets.products.prompt import PROMPT_VERSION
from labeling_assets.products.records import LabeledProduct, to_table
from labeling_assets.resources import GpuResource, StorageResource, VisionModelResource
from labeling_assets.services.connect import close_services
from labeling_assets.services.day_tables import write_table
from labeling_assets_tests.services.milvus_samples import product
from labeling_assets_tests.standins.ollama import OllamaServer

MODEL = "qwen2.5vl:latest"
MONDAY, TUESDAY, WEDNESDAY = (dt.date(2026, 3, day) for day in (2, 3, 4))


@pytest.fixture
def ollama() -> Iterator[OllamaServer]:
    with OllamaServer() as server:
        yield server
    close_services()


def write_day(root: Path, day: dt.date, *digests: str) -> None:
    rows = [
        product(
            f"P{number}",
            day,
            label_model=MODEL,
            label_digest=digest,
            prompt_version=PROMPT_VERSION,
            schema_version=SCHEMA_VERSION,
        )
        for number, digest in enumerate(digests)
    ]
    labeled = [LabeledProduct.model_validate(row.model_dump()) for row in rows]
    write_table(UPath(root / "qwen_labels" / f"{day}.parquet"), to_table(labeled, LabeledProduct))


def materialize(root: Path, url: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Metadata of a run of the asset, and of its observations by day."""
    model = VisionModelResource(
        gpu=GpuResource(device="auto", dtype="auto", memory_share=1),
        backend="ollama",
        model=MODEL,
        hosts=[url],
        api_key="",
        slots_per_host=1,
        timeout_seconds=20,
        context_tokens=0,
        description_language="vi",
        share_labels="never",
    )
    resources = {"storage": StorageResource(root=str(root)), "vision_model": model}
    result = dg.materialize([stale_labels], resources=resources)
    (event,) = result.asset_materializations_for_node("stale_labels")
    observed = {}
    for each in result.all_events:
        if each.event_type_value == "ASSET_OBSERVATION":
            observation = each.asset_observation_data.asset_observation
            assert observation.asset_key == dg.AssetKey("qwen_labels")
            observed[observation.partition] = observation.metadata["labels_stale"].value
    return {name: value.value for name, value in event.metadata.items()}, observed


def test_stale_labels_are_counted_and_shown_on_each_day(tmp_path: Path, ollama: OllamaServer) -> None:
    digest = ollama.model.digest_of(MODEL)
    write_day(tmp_path, MONDAY, "old", "old", digest)
    write_day(tmp_path, TUESDAY, digest)
    write_day(tmp_path, WEDNESDAY, "older")
    metadata, observed = materialize(tmp_path, ollama.url)
    assert observed == {str(MONDAY): 2, str(WEDNESDAY): 1}
    assert (metadata["labels_stale"], metadata["labels"]) == (3, 5)
    assert (metadata["days"], metadata["days_with_stale_labels"], metadata["days_unreadable"]) == (3, 2, 0)
    assert metadata["stale_by_day"].splitlines()[2:] == [f"| {WEDNESDAY} | 1 | 1 |", f"| {MONDAY} | 2 | 3 |"]
    assert metadata["is_model_compared_by_name"] is False
    assert ollama.model.stats.requests == 0


def test_every_key_is_there_where_nothing_was_labeled(tmp_path: Path, ollama: OllamaServer) -> None:
    write_day(tmp_path, MONDAY, "old")
    full, _ = materialize(tmp_path, ollama.url)
    empty, observed = materialize(tmp_path / "none", ollama.url)
    assert empty.keys() == full.keys()
    assert (empty["labels_stale"], empty["stale_by_day"], observed) == (0, "None.", {})


def test_a_broken_file_and_a_model_that_is_away_are_told(tmp_path: Path) -> None:
    write_day(tmp_path, MONDAY, "whatever digest")
    write_day(tmp_path, TUESDAY, "whatever digest")
    (tmp_path / "qwen_labels" / f"{MONDAY}.parquet").write_bytes(b"garbage")
    metadata, observed = materialize(tmp_path, "http://127.0.0.1:9")
    assert (metadata["days_unreadable"], metadata["labels_stale"], observed) == (1, 0, {})
    assert metadata["is_model_compared_by_name"] is True
    close_services()


def test_it_is_counted_every_night_by_a_job_of_its_own() -> None:
    repository = build_defs().get_repository_def()
    assert repository.get_schedule_def("stale_labels_schedule").default_status is dg.DefaultScheduleStatus.RUNNING
    job = build_defs().resolve_job_def("stale_labels_job")
    assert {key.to_user_string() for key in job.asset_layer.executable_asset_keys} == {"stale_labels"}
