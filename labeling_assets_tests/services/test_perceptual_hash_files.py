"""Hashes of image files: near those of ImageHash, and the same for the same picture in other files."""

from __future__ import annotations

import datetime as dt
import io
import itertools
import random

import numpy as np
import pytest
from faulty_image_host import encoded
from PIL import Image, ImageDraw

from benchmarks.perceptual_hash import draw_jpeg
from labeling_assets.embedded.demo.catalogue import build_catalogue
from labeling_assets.embedded.demo.drawing import draw_photo
from labeling_assets.embedded.demo.encoding import make_bytes
from labeling_assets.embedded.demo.merchandise import design_merchandise
from labeling_assets.errors import ImageTooLargeError, InvalidImageError
from labeling_assets.products.perceptual_hash import distance, to_hex
from labeling_assets.services.images.decoding import decode
from labeling_assets.services.images.perceptual_hash import phash_bodies

BITS = 6
PICTURES = 24


def hash_of(body: bytes) -> str:
    hashes, errors = phash_bodies([body])
    assert not errors
    return to_hex(hashes[0])


def picture(seed: int = 0, size: tuple[int, int] = (800, 600)) -> Image.Image:
    colours = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    return Image.fromarray(colours).resize(size, Image.Resampling.BICUBIC)


def test_hashes_of_photos_are_at_most_two_bits_from_imagehash() -> None:
    import imagehash

    bodies = [draw_jpeg(seed) for seed in range(20)]
    hashes, errors = phash_bodies(bodies)
    assert not errors
    for body, ours in zip(bodies, hashes, strict=True):
        theirs = str(imagehash.phash(Image.open(io.BytesIO(body))))
        assert distance(to_hex(ours), theirs) <= 2


@pytest.mark.parametrize("edge_px", [1, 20, 33, 64, 127, 300, 1111, 4000])
def test_images_of_any_size_are_hashed_as_imagehash_does(edge_px: int) -> None:
    import imagehash

    body = encoded(picture(edge_px, (edge_px, max(1, edge_px * 2 // 3))), "JPEG")
    theirs = imagehash.phash(Image.open(io.BytesIO(body)))
    assert edge_px == 1 or distance(hash_of(body), str(theirs)) <= 2


def test_the_number_of_threads_changes_no_hash() -> None:
    bodies = [encoded(picture(seed), "JPEG") for seed in range(9)]
    assert phash_bodies(bodies, 1)[0].tolist() == phash_bodies(bodies, 5)[0].tolist()


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "GIF", "BMP"])
def test_every_format_gives_nearly_the_hash_that_the_store_keeps(image_format: str) -> None:
    body = encoded(picture(), image_format)
    assert distance(hash_of(body), decode(body)[0].phash) <= 2


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_grey_and_cmyk_files_have_nearly_the_hash_of_the_picture(mode: str) -> None:
    assert distance(hash_of(encoded(picture().convert(mode), "JPEG")), hash_of(encoded(picture(), "PNG"))) <= 2


def test_alpha_is_seen_on_white() -> None:
    cut_out = picture().convert("RGBA")
    cut_out.putalpha(Image.linear_gradient("L").resize(cut_out.size))
    white = Image.alpha_composite(Image.new("RGBA", cut_out.size, "white"), cut_out).convert("RGB")
    assert distance(hash_of(encoded(cut_out, "PNG")), hash_of(encoded(white, "PNG"))) <= 2


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_that_lies_on_its_side_is_hashed_upright(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    body = encoded(picture(), "JPEG", exif=exif)
    assert distance(hash_of(body), decode(body)[0].phash) <= 2


def test_files_that_are_no_images_are_named_by_their_position() -> None:
    good = encoded(picture(), "JPEG")
    bomb = bytearray(encoded(Image.new("RGB", (64, 64)), "BMP"))
    bomb[18:26] = (30_000).to_bytes(4, "little") * 2
    hashes, errors = phash_bodies([b"", good, good[: len(good) // 3], bytes(bomb), b"<html>"])
    assert {position: type(error) for position, error in sorted(errors.items())} == {
        0: InvalidImageError,
        2: InvalidImageError,
        3: ImageTooLargeError,
        4: InvalidImageError,
    }
    assert to_hex(hashes[1]) == hash_of(good)
    assert hashes[[0, 2, 3, 4]].tolist() == [0] * 4


def test_no_file_has_no_hash() -> None:
    assert phash_bodies([])[0].shape == (0,)


def encoded_anew(image: Image.Image) -> bytes:
    return encoded(image, "JPEG", quality=45)


def in_another_format(image: Image.Image) -> bytes:
    return encoded(image, "WEBP", quality=60)


def half_as_large(image: Image.Image) -> bytes:
    return encoded(image.resize((image.width // 2, image.height // 2)), "JPEG", quality=80)


def thumbnail_sized(image: Image.Image) -> bytes:
    return encoded(image.resize((96, 96 * image.height // image.width)), "JPEG", quality=80)


def with_a_watermark(image: Image.Image) -> bytes:
    marked = image.copy()
    ImageDraw.Draw(marked).text(
        (image.width * 2 // 3, image.height * 9 // 10), "(c) Shop 24", fill="white", font_size=24
    )
    return encoded(marked, "JPEG", quality=85)


def cropped(image: Image.Image) -> bytes:
    """A hundredth less at each side."""
    x, y = image.width // 100, image.height // 100
    return encoded(image.crop((x, y, image.width - x, image.height - y)), "JPEG", quality=85)


def brighter(image: Image.Image) -> bytes:
    return encoded(image.point(lambda value: value * 1.1), "JPEG", quality=85)


@pytest.fixture(scope="module")
def photos() -> list[Image.Image]:
    chance = random.Random(11)
    return [draw_photo(design_merchandise(chance).photo) for _ in range(PICTURES)]


@pytest.fixture(scope="module")
def originals(photos: list[Image.Image]) -> list[str]:
    return [decode(encoded(photo, "JPEG", quality=88))[0].phash for photo in photos]


RECALL = {
    encoded_anew: 1.0,
    in_another_format: 1.0,
    half_as_large: 1.0,
    thumbnail_sized: 1.0,
    with_a_watermark: 1.0,
    cropped: 0.9,
    brighter: 0.9,
}


@pytest.mark.parametrize("change", RECALL, ids=lambda change: change.__name__)
def test_copies_of_demo_pictures_are_recognised(photos: list[Image.Image], originals: list[str], change) -> None:
    copies = [decode(change(photo))[0].phash for photo in photos]
    found = sum(distance(one, other) <= BITS for one, other in zip(originals, copies, strict=True))
    assert found / PICTURES >= RECALL[change]


def test_different_demo_pictures_are_not_taken_for_copies(originals: list[str]) -> None:
    pairs = list(itertools.combinations(originals, 2))
    wrong = sum(distance(one, other) <= BITS for one, other in pairs)
    assert wrong / len(pairs) <= 0.01


def test_the_near_identical_pictures_of_the_demo_catalogue_are_recognised() -> None:
    catalogue = build_catalogue(last_day=dt.date(2025, 11, 20), days=1, products_per_day=1)
    ids = catalogue.trap("near-identical image").product_ids
    paths = [row.image for row in catalogue.rows if row.product_id in ids]
    one, other = (decode(make_bytes(catalogue.images[str(path)].recipe))[0].phash for path in paths)
    assert distance(one, other) <= BITS
