"""`labeling heal` on days that really ran: what it prints, what it mends, and that it changes nothing twice."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from labeling_assets_tests.integration.installation import COMMAND
from labeling_assets_tests.integration.world import DAYS, TABLE, World

DAY, NEXT = DAYS


@pytest.fixture
def healthy(world: World) -> World:
    """Two days that ran; product `both` is on both."""
    for day, names in ((DAY, ("a", "b", "both")), (NEXT, ("c", "both"))):
        for name in names:
            world.add(name, day)
        assert world.run(day).is_success
    return world


def heal(home: Path, *options: str) -> tuple[int, str]:
    """Exit code and output of the command, on the services of the world."""
    environment = os.environ | {"LABELING_HOME": str(home)}
    result = subprocess.run(
        [COMMAND, "heal", *options], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    return result.returncode, result.stdout + result.stderr


def test_everything_that_drifted_is_shown_and_mended(healthy: World, home: Path) -> None:
    world = healthy
    expected = {"a": DAY, "b": DAY, "both": NEXT, "c": NEXT}
    world.agrees(expected)
    before, calls = world.milvus(), world.model_calls()
    assert heal(home, "--dry-run") == (0, "Everything agrees.\n")

    from pymilvus import MilvusClient

    client = MilvusClient(world.milvus_uri)
    client.upsert(world.collection, [world.milvus()["a"] | {"id_sanpham": "stranger"}])
    client.delete(world.collection, filter='id_sanpham == "b"')
    client.close()
    world.sql("update ai_craw.data_label set description = 'altered' where id_sanpham = 'a'")
    (world.storage / "clip_vectors" / f"{NEXT}.parquet").write_bytes(b"garbage")
    damaged = world.milvus()

    code, text = heal(home, "--dry-run")
    assert code == 1, text
    for line in ("milvus_missing", "milvus_surplus", "'stranger'", "data_label_different", "file_unreadable"):
        assert line in text
    assert world.milvus() == damaged

    code, text = heal(home)
    assert code == 0, text
    assert "Everything agrees." in text
    world.agrees(expected)
    assert world.milvus() == before
    assert world.model_calls() == calls
    assert heal(home) == (0, "Everything agrees.\n")


def test_a_day_that_fails_is_told_and_left(healthy: World, home: Path) -> None:
    before = healthy.milvus()
    healthy.sql(f"update {TABLE} set store = 'x' where product_id = 'a'")
    healthy.sql(f"alter table {TABLE} drop column title")
    code, text = heal(home)
    assert code == 1, text
    assert "source_changed" in text.partition("What is left")[2]
    assert healthy.milvus() == before
