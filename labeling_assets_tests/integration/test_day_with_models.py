"""A day with an embedder that loads a model: what is told of its device, and a change to another model."""

from __future__ import annotations

from pathlib import Path

import pytest

from labeling_assets_tests.integration.world import DAYS, World
from labeling_assets_tests.standins.tiny_models import tiny_clip, tiny_jina

DAY = DAYS[0]


def test_a_change_of_the_embedder_is_refused_until_the_day_is_indexed_anew(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder: Path = tmp_path_factory.mktemp("models")
    for product in ("a", "b", "c"):
        world.add(product, DAY)
    monkeypatch.setenv("LABELING_EMBEDDER", str(tiny_clip(folder / "clip", layers=1)))
    first = world.run(DAY)
    assert first.is_success, first.failure
    told = {key: first.value("clip_vectors", f"embedder_{key}") for key in ("device", "dtype", "batch_size")}
    assert told == {"device": "cpu", "dtype": "float32", "batch_size": 16}
    assert first.value("clip_vectors", "embedder_peak_memory_bytes") == 0
    assert first.value("clip_vectors", "vectors_computed") == 6
    assert all(first.checks.values())

    monkeypatch.setenv("LABELING_EMBEDDER", str(tiny_jina(folder / "jina", image_size=64)))
    refused = world.run(DAY)
    assert not refused.is_success
    assert "re-index: set LABELING_MILVUS_COLLECTION to a new name" in refused.failure

    monkeypatch.setenv("LABELING_MILVUS_COLLECTION", f"{world.collection}_jina")
    again = world.run(DAY)
    assert again.is_success, again.failure
    assert again.value("clip_vectors", "embedder_dtype") == "int8"
    assert again.value("qwen_labels", "model_calls") == 0
    assert (again.value("clip_vectors", "vectors_computed"), again.value("milvus_collection", "rows_new")) == (6, 3)
