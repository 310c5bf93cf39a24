"""Near duplicates on days that really run: how many there are, whose label they take, and what the command tells."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from labeling_assets.cli import cli
from labeling_assets_tests.integration.installation import COMMAND
from labeling_assets_tests.integration.world import DAYS, World
from labeling_assets_tests.services.faulty_image_host import encoded, with_etag

DAY, NEXT = DAYS


def picture(seed: int, quality: int = 90) -> bytes:
    """A JPEG of a picture; another quality gives a near duplicate."""
    colours = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return encoded(Image.fromarray(colours).resize((320, 240), Image.Resampling.BICUBIC), "JPEG", quality=quality)


def add(world: World, name: str, day: Any, body: bytes) -> str:
    """Add a product with a picture; returns the picture's sha256."""
    world.add(name, day, world.images.add(f"/{name}.jpg", with_etag(body)))
    return hashlib.sha256(body).hexdigest()


def labels(world: World, day: Any) -> dict[str, dict[str, Any]]:
    return {row["id_sanpham"]: row for row in world.parquet("qwen_labels", day)}


@pytest.fixture
def shop(world: World) -> tuple[World, dict[str, str]]:
    """Two products with nearly the same picture and one with another, on a day; a third near one on the next."""
    shas = {name: add(world, name, DAY, picture(1, quality)) for name, quality in (("a", 90), ("b", 60))}
    shas["c"] = add(world, "c", DAY, picture(2))
    shas["d"] = add(world, "d", NEXT, picture(1, 75))
    return world, shas


def test_every_image_has_a_label_of_its_own_unless_labels_are_shared(shop: tuple[World, dict[str, str]]) -> None:
    world, _ = shop
    run = world.run(DAY)
    assert run.is_success, run.failure
    assert run.value("product_images", "near_duplicates") == 2
    assert (world.model_calls(), run.value("qwen_labels", "labels_shared")) == (3, 0)
    assert {row["label_shared_from"] for row in labels(world, DAY).values()} == {None}
    assert world.run(NEXT).value("product_images", "near_duplicates") == 1


def test_near_duplicates_of_all_days_share_a_label_by_policy(
    shop: tuple[World, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    world, shas = shop
    monkeypatch.setenv("LABELING_SHARE_LABELS", "near_duplicates")
    run = world.run(DAY)
    assert run.is_success, run.failure
    assert all(run.checks.values())
    assert (world.model_calls(), run.value("qwen_labels", "labels_shared")) == (2, 1)
    assert run.value("qwen_labels", "calls_avoided") == 1
    first, second = sorted(("a", "b"), key=shas.__getitem__)
    rows = labels(world, DAY)
    assert [rows[name]["label_shared_from"] for name in (first, second, "c")] == [None, shas[first], None]
    assert rows[first]["main_subject"] == rows[second]["main_subject"]
    assert rows[second]["image_sha256"] == shas[second]
    next_run = world.run(NEXT)
    assert (world.model_calls(), next_run.value("qwen_labels", "labels_shared")) == (2, 1)
    assert labels(world, NEXT)["d"]["label_shared_from"] == shas[first]
    before = world.milvus()
    again = world.run(DAY)
    assert (world.model_calls(), again.value("milvus_collection", "rows_unchanged")) == (2, 3)
    assert world.milvus() == before


def test_stale_labels_are_shared_as_in_a_run(
    shop: tuple[World, dict[str, str]], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, _ = shop
    monkeypatch.setenv("LABELING_HOME", str(home))
    monkeypatch.setenv("LABELING_SHARE_LABELS", "near_duplicates")
    for day in DAYS:
        assert world.run(day).is_success
    assert world.model_calls() == 2
    world.ollama.model.digests["qwen2.5vl:latest"] = "f" * 64
    dry = subprocess.run([COMMAND, "relabel", "--stale", "--dry-run"], capture_output=True, text=True, check=True)
    assert "2 images have no label of the version in use yet; 2 others take the labels of near" in dry.stdout
    assert "About 2 calls" in dry.stdout
    done = subprocess.run([COMMAND, "relabel", "--stale"], capture_output=True, text=True, check=True)
    assert "2 calls" in done.stdout
    assert world.model_calls() == 4, "one call a group"
    rows = [row for day in DAYS for row in labels(world, day).values()]
    assert {row["label_digest"] for row in rows} == {"f" * 64}
    assert sum(row["label_shared_from"] is not None for row in rows) == 2


def duplicates(home: Path, *options: str) -> Result:
    return CliRunner().invoke(cli, ["duplicates", *options], env={"LABELING_HOME": str(home)})


def test_the_command_lists_groups_and_finds_where_a_picture_is_known_from(
    shop: tuple[World, dict[str, str]], home: Path, tmp_path: Path
) -> None:
    world, shas = shop
    for day in DAYS:
        world.run(day)
    listed = duplicates(home)
    assert listed.exit_code == 0, listed.output
    assert "1 groups of near duplicates on 2 days, at most 6 bits apart; 2 of 4 images" in listed.output
    for name, day in (("a", DAY), ("b", DAY), ("d", NEXT)):
        assert f"{shas[name]} {day} '{name}' unknown" in listed.output
    assert "0 groups of near duplicates on 1 days" in duplicates(home, "--start", str(NEXT)).output

    found = duplicates(home, "--image", shas["c"])
    assert found.exit_code == 0, found.output
    assert "1 images are near" in found.output
    assert f"0 bits  {shas['c']} {DAY} 'c' unknown" in found.output

    folder = tmp_path / "supplier"
    folder.mkdir()
    (folder / "copy.jpg").write_bytes(picture(1, 40))
    (folder / "other.jpg").write_bytes(picture(3))
    (folder / "page.html").write_bytes(b"<html>")
    (folder / "white.png").write_bytes(encoded(Image.new("RGB", (64, 64), "white"), "PNG"))
    found = duplicates(home, "--image", str(folder))
    assert found.exit_code == 1
    assert "3 images are near" in found.output
    assert "nothing is near" in found.output
    assert "HTML or XML" in found.output
    assert "is blank" in found.output


@pytest.mark.parametrize("image", ["0" * 64, "no such file"])
def test_an_image_that_is_not_known_is_named(world: World, home: Path, image: str) -> None:
    result = duplicates(home, "--image", image)
    assert result.exit_code == 2
    assert image in result.output
