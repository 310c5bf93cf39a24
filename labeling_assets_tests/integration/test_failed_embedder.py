"""An embedder or an image store that fails: no store loses a product by it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from PIL import Image

from labeling_assets.errors import ImageUnavailableError, VectorError
from labeling_assets.services.embedding.embedded import EmbeddedEmbedder
from labeling_assets.services.images.store import ImageStore
from labeling_assets_tests.integration.world import DAYS, TABLE, World

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


def missing(self: ImageStore, sha256: str, edge_px: int = 0) -> Image.Image:
    raise ImageUnavailableError("The image store has no file.", "Materialize product_images.")


FAULTS = {"embedder": (EmbeddedEmbedder, "embed_images", broken), "image store": (ImageStore, "model_image", missing)}


@pytest.mark.parametrize("what", FAULTS)
def test_a_day_of_which_nothing_can_be_embedded_stops_before_milvus(
    world: World, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    fill_and_change_pictures(world, IDS)
    before = world.milvus()
    monkeypatch.setattr(*FAULTS[what])
    run = world.run(DAY)
    assert not run.is_success
    assert "Check most_images_are_embedded stops the day" in run.failure
    assert "labeling quarantine" in run.failure
    assert world.milvus() == before
    assert set(world.data_label()) == set(IDS)
    assert set(world.quarantine()) == set(IDS)
    monkeypatch.undo()


def test_products_whose_image_is_missing_for_now_stay_in_milvus(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    fill_and_change_pictures(world, IDS[:2])
    monkeypatch.setattr(*FAULTS["image store"])
    run = world.run(DAY)
    assert run.is_success, run.failure
    assert {id_: (row.error_class, row.can_retry) for id_, row in world.quarantine().items()} == dict.fromkeys(
        IDS[:2], ("ImageUnavailableError", True)
    )
    assert set(world.milvus()) == set(IDS)
