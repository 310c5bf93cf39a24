"""The asset `label_evaluation`: what each result tells, what is kept, and what it stays out of."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import sqlalchemy as sa

from labeling_assets.definitions import build_defs
from labeling_assets.defs.evaluation.assets import label_evaluation
from labeling_assets.products.records import LABEL_FIELDS
from labeling_assets.resources import default_resources
from labeling_assets.runs import JOB_NAME
from labeling_assets.services.connect import close_services
from labeling_assets.settings import Settings
from labeling_assets_tests.services.compared_shop import ComparedShop
from labeling_assets_tests.standins.ollama import OllamaServer

VISION = ["completion", "vision"]


@pytest.fixture
def ollama() -> Iterator[OllamaServer]:
    with OllamaServer(slots=2, models={"qwen2.5vl:latest": VISION, "other:7b": VISION}) as server:
        yield server
    close_services()


@pytest.fixture
def shop(
    tmp_path: Path,
    home: Path,
    engine: sa.Engine,
    postgres_url: str,
    ollama: OllamaServer,
    monkeypatch: pytest.MonkeyPatch,
) -> ComparedShop:
    environment = {
        "HOME": str(home),
        "POSTGRES_URL": postgres_url,
        "MILVUS_URI": "http://127.0.0.1:1",  # never asked
        "STORAGE": str(tmp_path),
        "VISION_BACKEND": "ollama",
        "OLLAMA_HOSTS": ollama.url,
    }
    for name, value in environment.items():
        monkeypatch.setenv(f"LABELING_{name}", value)
    return ComparedShop(tmp_path, home)


def materialize(**config: Any) -> dg.ExecuteInProcessResult:
    resources = default_resources(Settings.load())
    wanted = ("product_database", "image_store", "vision_model", "storage")
    return dg.materialize(
        [label_evaluation],
        resources={name: resources[name] for name in wanted},
        run_config={"ops": {"label_evaluation": {"config": config}}},
        raise_on_error=False,
    )


def metadata(result: dg.ExecuteInProcessResult) -> dict[str, Any]:
    (event,) = result.asset_materializations_for_node("label_evaluation")
    return {name: value.value for name, value in event.metadata.items()}


def test_each_run_adds_a_result_and_asks_nothing_twice(shop: ComparedShop, ollama: OllamaServer) -> None:
    first, second = (metadata(materialize(b="other:7b")) for _ in range(2))
    assert ollama.model.stats.calls == 10
    assert first["result"] != second["result"]
    assert len(list((shop.storage / "label_evaluation").iterdir())) == 4
    kept = json.loads(Path(first["result"]).read_text())
    assert (kept["images"], kept["agreement"]) == (first["images"], first["agreement"]) == (5, 1.0)
    assert "data:image/jpeg" in Path(first["page"]).read_text()
    assert (first["side_a"], first["side_b"]) == ("ollama:qwen2.5vl:latest@1", "ollama:other:7b@1")
    assert first["images_with_truth"] == 1
    assert 0 < first["f1_a"] < 1
    assert all(field.replace("_", "\\_") in first["fields"] for field in LABEL_FIELDS)


def test_the_numbers_are_there_and_of_one_type_also_where_no_truth_is_known(shop: ComparedShop, home: Path) -> None:
    known = metadata(materialize(b="other:7b"))
    (home / "demo" / "truth.json").unlink()
    unknown = metadata(materialize(b="other:7b", seed=1))
    assert {name: type(value) for name, value in known.items()} == {
        name: type(value) for name, value in unknown.items()
    }
    assert (unknown["images_with_truth"], unknown["f1_a"], unknown["f1_a_text"]) == (0, 0.0, 0.0)
    assert "F1" not in unknown["fields"]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"b": "nowhere"}, "no model 'nowhere:latest'"),
        ({"b": "other:7b@9"}, "Prompt '9'"),
        ({"b": "other:7b", "sample": 0}, "sample is 0"),
        ({"b": "other:7b", "start": "yesterday"}, "is no day"),
    ],
)
def test_a_wrong_configuration_fails_with_its_remedy_and_is_not_tried_again(
    shop: ComparedShop, ollama: OllamaServer, config: dict[str, Any], message: str
) -> None:
    result = materialize(**config)
    assert not result.success
    (failure,) = [event.step_failure_data for event in result.get_step_failure_events()]
    assert failure.user_failure_data is not None
    assert message in str(failure.user_failure_data.description)
    assert ollama.model.stats.calls == 0
    assert not (shop.storage / "label_evaluation").exists()


def test_it_is_no_part_of_the_runs_of_days() -> None:
    definitions = build_defs()
    key = dg.AssetKey("label_evaluation")
    assert key in definitions.resolve_all_asset_keys()
    assert key not in definitions.resolve_job_def(JOB_NAME).asset_layer.executable_asset_keys
