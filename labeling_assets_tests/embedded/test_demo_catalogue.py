"""The demo catalogue as data and as image bytes."""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import difflib
import io
import unicodedata
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageChops, ImageOps, ImageStat

from labeling_assets import errors
from labeling_assets.embedded.demo.backgrounds import background_names
from labeling_assets.embedded.demo.catalogue import build_catalogue
from labeling_assets.embedded.demo.colours import PRODUCT_BODIES, details_for, readable_schemes
from labeling_assets.embedded.demo.contents import LABELED, LINK_PREFIX, NOT_CRAWLED, Catalogue
from labeling_assets.embedded.demo.designs import TALL_LAYOUTS, WIDE_LAYOUTS, Print, arrange
from labeling_assets.embedded.demo.drawing import Photo, draw_photo
from labeling_assets.embedded.demo.encoding import BOMB_EDGE_PX, Recipe, bomb_png, make_bytes
from labeling_assets.embedded.demo.motifs import motif_names
from labeling_assets.embedded.demo.phrases import PRODUCT_WEIGHTS, PRODUCT_WORDS, Theme, items
from labeling_assets.embedded.demo.phrases_english import ENGLISH_THEMES
from labeling_assets.embedded.demo.phrases_vietnamese import VIETNAMESE_THEMES
from labeling_assets.embedded.demo.shapes import product_names, product_shape
from labeling_assets.products.records import LABEL_FIELDS, LABEL_LISTS

LAST_DAY = dt.date(2025, 11, 20)
SAIGON = ZoneInfo("Asia/Ho_Chi_Minh")
MUG = Photo(
    product="mug",
    body="white",
    detail="red",
    design=Print(("BEST", "DAD EVER"), 0, "heart", "motif above", "bold"),
    scheme="classic",
    background="oak table",
    width_px=640,
    height_px=640,
    shift=0.2,
)


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return build_catalogue(last_day=LAST_DAY)


@pytest.fixture(scope="module")
def reader() -> Any:
    """The OCR that ships its models."""
    from rapidocr import RapidOCR

    return RapidOCR(params={"Global.log_level": "error", "Global.use_cls": False})


def _image_of(catalogue: Catalogue, trap: str) -> bytes:
    product_id = catalogue.trap(trap).product_ids[0]
    path = next(row.image for row in catalogue.rows if row.product_id == product_id)
    assert path
    recipe = catalogue.images[path].recipe
    assert recipe
    return make_bytes(recipe)


def _folded(text: str) -> str:
    plain = unicodedata.normalize("NFD", text.lower().replace("đ", "d"))
    return "".join(letter for letter in plain if letter.isalnum())


def test_the_same_seed_gives_the_same_rows_images_and_traps(catalogue: Catalogue) -> None:
    again = build_catalogue(last_day=LAST_DAY)
    assert again.rows == catalogue.rows
    assert again.images == catalogue.images
    assert again.traps == catalogue.traps


def test_another_seed_gives_other_products(catalogue: Catalogue) -> None:
    other = build_catalogue(seed=8, last_day=LAST_DAY)
    assert not {row.title for row in other.rows} >= {row.title for row in catalogue.rows}


def test_the_default_catalogue_has_seven_days_of_forty_products_and_the_traps(catalogue: Catalogue) -> None:
    trap_rows = sum(len(trap.product_ids) for trap in catalogue.traps)
    assert len(catalogue.rows) == 7 * 40 + trap_rows
    assert catalogue.days[0] == LAST_DAY - dt.timedelta(days=6)


def test_days_that_two_catalogues_share_have_the_same_rows(catalogue: Catalogue) -> None:
    later = build_catalogue(last_day=LAST_DAY + dt.timedelta(days=1))
    shared = [row for row in catalogue.rows if row.published_at.astimezone(SAIGON).date() > catalogue.days[0]]
    assert [row for row in later.rows if row.published_at.astimezone(SAIGON).date() <= LAST_DAY] == shared


@pytest.mark.parametrize("days", [1, 2, 3, 7, 9])
def test_every_trap_is_there_however_few_the_days(days: int, catalogue: Catalogue) -> None:
    other = build_catalogue(days=days, products_per_day=1, last_day=LAST_DAY)
    assert {trap.name for trap in other.traps} == {trap.name for trap in catalogue.traps}
    assert {trap.day for trap in other.traps} <= set(other.days)


def test_traps_can_be_left_out_and_counts_are_exact() -> None:
    plain = build_catalogue(days=2, products_per_day=5, last_day=LAST_DAY, has_traps=False)
    assert (len(plain.rows), plain.traps) == (10, [])


def test_each_trap_expects_labels_an_error_class_or_no_crawl(catalogue: Catalogue) -> None:
    for trap in catalogue.traps:
        assert trap.expected in (LABELED, NOT_CRAWLED) or issubclass(getattr(errors, trap.expected), errors.RowError)


def test_what_is_to_be_labeled_has_a_complete_truth_and_the_rest_has_none(catalogue: Catalogue) -> None:
    expected = {product_id: trap.expected for trap in catalogue.traps for product_id in trap.product_ids}
    for row in catalogue.rows:
        truth = catalogue.truth_of(row)
        if expected.get(row.product_id, LABELED) == LABELED:
            assert truth is not None
            assert set(truth) == set(LABEL_FIELDS)
            assert all(isinstance(truth[name], list) for name in LABEL_LISTS)
        else:
            assert truth is None


def test_a_trap_knows_its_rows(catalogue: Catalogue) -> None:
    for trap in catalogue.traps:
        assert tuple(row.product_id for row in catalogue.rows_of(trap)) == trap.product_ids


def test_product_ids_repeat_only_where_a_trap_says_so(catalogue: Catalogue) -> None:
    counts = collections.Counter(row.product_id for row in catalogue.rows if row.product_id and row.product_id.strip())
    repeated = {product_id for product_id, count in counts.items() if count > 1}
    twice = {catalogue.trap(name).product_ids[0] for name in ("product twice on a day", "row twice")}
    assert repeated == twice


def test_images_are_reused_and_all_of_them_are_used(catalogue: Catalogue) -> None:
    used = [row.image for row in catalogue.rows if row.image in catalogue.images]
    targets = {image.location for image in catalogue.images.values()}
    assert len(used) > len(set(used))
    assert set(catalogue.images) - set(used) <= targets


def test_marketing_numbers_are_plausible(catalogue: Catalogue) -> None:
    for row in catalogue.rows:
        chain = (row.impression, row.clicks, row.unique_clicks, row.unique_atc, row.quantity)
        known = [number for number in chain if number is not None]
        assert known == sorted(known, reverse=True)
        assert row.spend is None or row.spend == row.spend.quantize(row.spend.__class__("0.01"))
    for column in ("product_id", "image", "title", "store", "gp_code", "spend", "clicks", "impression"):
        assert any(getattr(row, column) is None for row in catalogue.rows), column


@given(
    seed=st.integers(),
    last_day=st.dates(dt.date(2000, 1, 9), dt.date(2040, 1, 1)),
    days=st.integers(1, 3),
    timezone=st.sampled_from(["Asia/Ho_Chi_Minh", "America/New_York", "Pacific/Kiritimati", "Europe/Berlin", "UTC"]),
)
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_rows_lie_in_the_days_of_the_catalogue_in_any_time_zone(
    seed: int, last_day: dt.date, days: int, timezone: str
) -> None:
    catalogue = build_catalogue(seed, days, 2, last_day=last_day, timezone=timezone)
    zone = ZoneInfo(timezone)
    business_days = {row.product_id: row.published_at.astimezone(zone).date() for row in catalogue.rows}
    assert set(business_days.values()) <= set(catalogue.days)
    assert all(row.link.startswith(LINK_PREFIX) for row in catalogue.rows)
    for trap in catalogue.traps:
        assert trap.name == "no product id" or {business_days[name] for name in trap.product_ids} == {trap.day}


def test_rows_stand_on_both_sides_of_midnight(catalogue: Catalogue) -> None:
    def local_time(trap: str) -> dt.time:
        product_id = catalogue.trap(trap).product_ids[0]
        row = next(row for row in catalogue.rows if row.product_id == product_id)
        return row.published_at.astimezone(SAIGON).time()

    assert local_time("one second before midnight") == dt.time(23, 59, 59)
    assert local_time("one microsecond before midnight") == dt.time(23, 59, 59, 999_999)
    assert local_time("at midnight") == dt.time(0)
    assert local_time("just after midnight") == dt.time(0, 0, 1)


def test_the_hostile_product_id_has_all_that_breaks_filters_and_sql(catalogue: Catalogue) -> None:
    product_id = catalogue.trap("hostile product id").product_ids[0]
    assert product_id
    assert all(part in product_id for part in ("'", '"', "\\", "\n", "==", " or ", "--"))
    assert product_id == product_id.strip()


def test_the_same_photo_gives_the_same_bytes() -> None:
    assert make_bytes(Recipe(MUG)) == make_bytes(Recipe(MUG))
    assert make_bytes(Recipe(MUG)) != make_bytes(Recipe(dataclasses.replace(MUG, shift=-0.8)))
    assert Recipe(MUG).name != Recipe(MUG, quality=50).name


@pytest.mark.parametrize(
    ("trap", "kind", "mode"),
    [
        ("transparent PNG", "PNG", "RGBA"),
        ("palette PNG", "PNG", "P"),
        ("greyscale PNG", "PNG", "L"),
        ("16-bit PNG", "PNG", "I;16"),
        ("CMYK JPEG", "JPEG", "CMYK"),
        ("WEBP", "WEBP", "RGB"),
        ("PNG as JPEG", "PNG", "RGB"),
        ("EXIF rotation", "JPEG", "RGB"),
    ],
)
def test_image_traps_are_what_they_say(trap: str, kind: str, mode: str, catalogue: Catalogue) -> None:
    image = Image.open(io.BytesIO(_image_of(catalogue, trap)))
    image.load()
    assert (image.format, image.mode) == (kind, mode)
    assert min(image.size) >= 640


def test_the_rotated_image_stands_upright_after_its_exif_orientation() -> None:
    lying = Image.open(io.BytesIO(make_bytes(Recipe(MUG, "rotated jpeg"))))
    upright = ImageOps.exif_transpose(lying)
    difference = ImageChops.difference(upright, draw_photo(MUG))
    assert max(ImageStat.Stat(difference).mean) < 3


def test_the_near_identical_image_looks_the_same_but_is_smaller(catalogue: Catalogue) -> None:
    first, second = (
        next(row.image for row in catalogue.rows if row.product_id == product_id)
        for product_id in catalogue.trap("near-identical image").product_ids
    )
    images = [
        Image.open(io.BytesIO(make_bytes(catalogue.images[path].recipe))).convert("RGB") for path in (first, second)
    ]
    assert images[0].size > images[1].size
    same_size = images[0].resize(images[1].size, Image.Resampling.LANCZOS)
    assert max(ImageStat.Stat(ImageChops.difference(same_size, images[1])).mean) < 4


def test_the_truncated_jpeg_has_a_header_and_no_end(catalogue: Catalogue) -> None:
    image = Image.open(io.BytesIO(_image_of(catalogue, "truncated JPEG")))
    with pytest.raises(OSError, match="truncated"):
        image.load()


def test_the_bomb_is_small_and_declares_its_true_size(catalogue: Catalogue) -> None:
    bomb = _image_of(catalogue, "decompression bomb")
    assert len(bomb) < 1_000_000
    assert int.from_bytes(bomb[16:20], "big") == int.from_bytes(bomb[20:24], "big") == BOMB_EDGE_PX


@pytest.mark.parametrize("edge_px", [1, 37, 300])
def test_a_small_bomb_is_a_valid_png(edge_px: int) -> None:
    image = Image.open(io.BytesIO(bomb_png(edge_px)))
    image.load()
    assert (image.size, image.mode, image.getextrema()) == ((edge_px, edge_px), "RGB", ((0, 0),) * 3)


@pytest.mark.parametrize("product", product_names())
def test_every_product_is_drawn_with_its_print_inside(product: str) -> None:
    left, top, right, bottom = product_shape(product, 640).print_box
    view = product_shape(product, 640).view
    layouts = WIDE_LAYOUTS if (right - left) / (bottom - top) > 1.35 else TALL_LAYOUTS
    width, height = round((right - left) * 640), round((bottom - top) * 640)
    for layout in layouts:
        for lines in (
            ("BEST", "DAD EVER"),
            ("Mẹ là", "tuyệt nhất"),
            ("I love you", "to the moon", "and back"),
            ("BOO",),
        ):
            design = Print(lines, 0, "cat", layout, "black")
            for stamp in arrange(design, width, height):
                assert stamp.x >= -2
                assert stamp.y >= -2
                assert stamp.x + stamp.mask.width <= width + 2
                assert stamp.y + stamp.mask.height <= height + 2
        body = PRODUCT_BODIES[product][0]
        detail, scheme = details_for(product, body)[0], readable_schemes(body)[0]
        photo = Photo(product, body, detail, design, scheme, background_names(view)[0], 800, 640, 1.0)
        image = draw_photo(photo)
        assert (image.size, image.mode) == ((800, 640), "RGB")
        assert max(ImageStat.Stat(image.convert("L")).stddev) > 5


@pytest.mark.parametrize("theme", ENGLISH_THEMES + VIETNAMESE_THEMES)
def test_every_theme_names_only_motifs_schemes_and_products_that_exist(theme: Theme) -> None:
    assert set(items(theme.motifs)) <= set(motif_names())
    assert set(items(theme.products)) <= set(product_names())
    assert readable_schemes("white", items(theme.schemes) or ("ink",))


def test_every_product_has_words_weights_and_colours() -> None:
    assert set(PRODUCT_WORDS) == set(PRODUCT_WEIGHTS) == set(PRODUCT_BODIES) == set(product_names())


@pytest.mark.parametrize(
    "lines", [("BEST", "DAD EVER"), ("Happy Birthday", "Sophie"), ("Chúc mừng", "năm mới"), ("Con yêu", "mẹ")]
)
def test_ocr_reads_what_is_printed(lines: tuple[str, ...], reader: Any) -> None:
    photo = dataclasses.replace(MUG, design=dataclasses.replace(MUG.design, lines=lines))
    result = reader(draw_photo(photo).resize((512, 512)))
    # The OCR models lose letters with two marks, such as ớ; the letters around them must be right.
    likeness = difflib.SequenceMatcher(None, _folded("".join(result.txts)), _folded("".join(lines))).ratio()
    assert likeness >= (1.0 if "".join(lines).isascii() else 0.9)


@pytest.mark.parametrize(
    "wrong", [{"days": 0}, {"products_per_day": 0}, {"image_reuse": 1.1}, {"timezone": "Mars/Olympus"}]
)
def test_wrong_numbers_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises((ValueError, KeyError)):
        build_catalogue(last_day=LAST_DAY, **wrong)
