"""An embedder or an image store that fails: no store loses a product by it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from PIL import Image

from labeling_assets.errors import VectorError
from labeling_assets.services.embedding.embedded import EmbeddedEmbedder
from labeling_assets_tests.integration.world import DAYS, TABLE, DayRun, World

DAY = DAYS[0]
IDS = [f"p{number}" for number in range(12)]


def fill_and_change_pictures(world: World, changed: Sequence[str]) -> None:
    """A day in Milvus, some of whose products then get another picture."""
    for product in IDS:
        world.add(product, DAY)
    run = world.run(DAY)
    assert run.is_success, run.failure
    for product in changed:
        image = world.picture(f"/new-{product}.jpg")
        world.sql(f"update {TABLE} set image = :image where product_id = :id", image=image, id=product)


def broken(self: EmbeddedEmbedder, images: Sequence[Image.Image]) -> np.ndarray:
    raise VectorError("The embedder returned a vector that is not finite, or zero.")


def run_without_stored_images(world: World, products: Sequence[str]) -> DayRun:
    """Run the day, of which the images of some products are lost when it is labeled."""
    assert world.run(DAY, assets=["raw_products", "deduped_products", "product_images", "qwen_labels"]).is_success
    lost = {row["image_sha256"] for row in world.parquet("product_images", DAY) if row["id_sanpham"] in products}
    for path in (world.storage / "images").rglob("*.jpg"):
        if path.name.partition(".")[0] in lost:
            path.unlink()
    return world.run(DAY, assets=["clip_vectors", "milvus_collection"])


def a_failed_day_leaves_the_stores(world: World, run: DayRun, before: dict[str, dict[str, Any]]) -> None:
    assert not run.is_success
    assert "Check most_images_are_embedded stops the day" in run.failure
    assert "labeling quarantine" in run.failure
    assert world.milvus() == before
    assert set(world.data_label()) == set(IDS)
    assert set(world.quarantine()) == set(IDS)


def test_a_day_that_the_embedder_fails_on_stops_before_milvus(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    fill_and_change_pictures(world, IDS)
    before = world.milvus()
    # No picture makes the embedded embedder fail, so it is made to.
    monkeypatch.setattr(EmbeddedEmbedder, "embed_images", broken)
    a_failed_day_leaves_the_stores(world, world.run(DAY), before)


def test_a_day_whose_images_are_lost_stops_before_milvus(world: World) -> None:
    fill_and_change_pictures(world, IDS)
    before = world.milvus()
    a_failed_day_leaves_the_stores(world, run_without_stored_images(world, IDS), before)


def test_products_whose_image_is_missing_for_now_stay_in_milvus(world: World) -> None:
    fill_and_change_pictures(world, IDS[:2])
    run = run_without_stored_images(world, IDS[:2])
    assert run.is_success, run.failure
    assert {id_: (row.error_class, row.can_retry) for id_, row in world.quarantine().items()} == dict.fromkeys(
        IDS[:2], ("ImageUnavailableError", True)
    )
    assert set(world.milvus()) == set(IDS)
