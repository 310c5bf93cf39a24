"""Near duplicates in PostgreSQL: what is found, by which plan, and in which group a day's images are."""

from __future__ import annotations

import datetime as dt
import hashlib
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from hypothesis import given, settings
from hypothesis import strategies as st
from milvus_samples import product
from upath import UPath

from labeling_assets import migrations
from labeling_assets.errors import DayError
from labeling_assets.products.images import ImageFacts
from labeling_assets.products.labels import ProductLabels
from labeling_assets.products.near_duplicates import Group, Near
from labeling_assets.products.perceptual_hash import distance, is_flat
from labeling_assets.products.records import LABEL_FIELDS, ImagedProduct, to_table
from labeling_assets.services import near_duplicates
from labeling_assets.services.day_tables import write_table
from labeling_assets.services.images.history import ImageHistory, Remembered
from labeling_assets.services.ledger import LabelKey, LabelLedger, LedgerEntry
from labeling_assets.services.near_duplicates import NearDuplicates, days_with_images, images_of_days
from labeling_assets.services.postgres import migrate
from labeling_assets.services.tables import images as images_table

BASE = 0x0F0F_3C3C_5A5A_9696
FLAT = "8000000000000000"
KEY = LabelKey("digest", "prompt", "schema")
DAY = dt.date(2026, 3, 14)
NEXT = DAY + dt.timedelta(days=1)


def sha(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def flipped(*bits: int, number: int = BASE) -> str:
    for bit in bits:
        number ^= 1 << bit
    return f"{number:016x}"


def facts(phash: str) -> ImageFacts:
    return ImageFacts(
        size_bytes=1,
        width_px=100,
        height_px=100,
        format="JPEG",
        phash=phash,
        model_size_bytes=1,
        model_width_px=100,
        model_height_px=100,
    )


def remember(engine: sa.Engine, phashes: dict[str, str]) -> None:
    """As images that were fetched."""
    ImageHistory(engine).remember(
        {f"http://host/{name}": Remembered(sha256=sha(name), facts=facts(phash)) for name, phash in phashes.items()}
    )


def entry() -> LedgerEntry:
    labels = ProductLabels.model_validate({name: getattr(product(), name) for name in LABEL_FIELDS})
    return LedgerEntry("qwen", labels, None, None, "direct", 1, 10, 10, 1.0)


def full_comparison(images: dict[str, str], phash: str, bits: int) -> list[Near]:
    if is_flat(phash):
        return []
    near = [Near(distance(phash, other), sha(name)) for name, other in images.items() if not is_flat(other)]
    return sorted(each for each in near if each.distance <= bits)


def population() -> dict[str, str]:
    """Images at every distance from 0 to 9, in every band and across bands, blank ones, and strangers."""
    near = {f"near {step}-{bits}": flipped(*range(step, step + bits)) for step in range(0, 55, 5) for bits in range(10)}
    spread = {f"spread {bits}": flipped(*range(0, 64, 7)[:bits]) for bits in range(1, 10)}
    strangers = {f"stranger {number}": sha(str(number))[:16] for number in range(100)}
    return near | spread | strangers | {"blank": FLAT, "white": FLAT, "nearly blank": "8000000000000011"}


def test_the_search_finds_what_a_full_comparison_finds(engine: sa.Engine) -> None:
    images = population()
    remember(engine, images)
    by_bits = [NearDuplicates(engine, bits) for bits in range(8)]
    flips = st.lists(st.integers(0, 63), max_size=9, unique=True)

    @settings(max_examples=50)
    @given(st.sampled_from(sorted(images.values())) | st.integers(0, 2**64 - 1).map("{:016x}".format), flips)
    def finds_all(phash: str, bits_flipped: list[int]) -> None:
        asked = flipped(*bits_flipped, number=int(phash, 16))
        for bits, near in enumerate(by_bits):
            assert near.find(asked) == full_comparison(images, asked, bits)

    finds_all()


def test_counts_only_images_that_another_image_is_near(engine: sa.Engine) -> None:
    images = {"a": flipped(), "b": flipped(1, 2), "alone": flipped(*range(20)), "blank": FLAT, "white": FLAT}
    remember(engine, images)
    near = NearDuplicates(engine, 6)
    assert near.count({sha(name): phash for name, phash in images.items()}) == 2
    assert near.count({sha("a"): images["a"]}) == 1
    assert near.count({}) == 0
    assert NearDuplicates(engine, 1).count({sha("a"): images["a"]}) == 0


def test_an_image_that_is_remembered_twice_is_found_once_and_with_its_last_hash(engine: sa.Engine) -> None:
    remember(engine, {"a": flipped(), "b": flipped(*range(30))})
    remember(engine, {"a": flipped(3)})
    assert NearDuplicates(engine, 7).find(flipped()) == [Near(1, sha("a"))]


def test_the_nearest_labeled_image_is_found_under_the_key_alone(engine: sa.Engine) -> None:
    ledger = LabelLedger(engine)
    remember(engine, {f"{bits} bits": flipped(*range(bits)) for bits in range(1, 6)})
    refusal = LedgerEntry("qwen", None, "InvalidReplyError", "no JSON", None, 2, 1, 1, 1.0)
    for name, key, what in (
        ("1 bits", LabelKey("another model", "prompt", "schema"), entry()),
        ("2 bits", KEY, refusal),
        ("4 bits", KEY, entry()),
        ("5 bits", KEY, entry()),
    ):
        ledger.put(sha(name), key, what)
    near = NearDuplicates(engine, 6)
    asked = {sha("new"): flipped(), sha("4 bits"): flipped(*range(4)), sha("far"): flipped(*range(30))}
    assert near.nearest_labeled(asked, KEY) == {
        sha("new"): Near(4, sha("4 bits")),
        sha("4 bits"): Near(1, sha("5 bits")),
    }


def test_searches_among_a_hundred_thousand_images_use_the_four_indexes(engine: sa.Engine) -> None:
    insert = """
        insert into labeling.images
        select encode(sha256(n::text::bytea), 'hex'), 1, 1, 1, 'JPEG', substr(md5(n::text), 1, 16), 1, 1, 1
        from generate_series(1, 100000) as n"""
    with engine.begin() as connection:
        connection.execute(sa.text(insert))
        connection.execute(sa.text("analyze labeling.images"))
    values: dict[str, Any] = vars(KEY) | {"shas": [sha("a")], "phashes": [flipped()], "phash": flipped(), "limit": 9}
    values |= {"masks": [0, *(1 << bit for bit in range(16))], "bits": 7}
    for query in (near_duplicates._FIND, near_duplicates._COUNT, near_duplicates._NEAREST_LABELED):
        with engine.connect() as connection:
            plan = "\n".join(connection.execute(sa.text(f"explain {query}"), values).scalars())
        assert "Seq Scan on images" not in plan, plan
        for band in (1, 2, 3, 4):
            assert f"images_phash_band_{band}" in plan, plan


def test_images_of_an_older_release_are_in_the_index_after_the_migration(engine: sa.Engine) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "0002")
        row = vars(facts(flipped(1))) | {"sha256": sha("old")}
        connection.execute(sa.insert(images_table), row)
    migrate(engine)
    with engine.connect() as connection:
        names = {index["name"] for index in sa.inspect(connection).get_indexes("images", schema="labeling")}
    assert names == {f"images_phash_band_{band}" for band in (1, 2, 3, 4)}
    assert NearDuplicates(engine, 6).find(flipped()) == [Near(1, sha("old"))]


def write_day(storage: Path, day: dt.date, *rows: tuple[str, str | None, str | None]) -> None:
    """A day's products by name, each with the name and the hash of its image."""
    records = [
        ImagedProduct.model_validate(
            product(name, day, image_sha256=image and sha(image), image_phash=phash).model_dump()
        )
        for name, image, phash in rows
    ]
    write_table(UPath(storage / "product_images" / f"{day}.parquet"), to_table(records, ImagedProduct))


def test_the_older_image_represents_the_group_and_every_product_is_named(tmp_path: Path) -> None:
    write_day(tmp_path, NEXT, ("p3", "copy", flipped(1, 2)), ("p4", "original", flipped()), ("p5", None, None))
    write_day(tmp_path, DAY, ("p2", "original", flipped()), ("p1", "original", flipped()), ("p6", "blank", FLAT))
    storage = UPath(tmp_path)
    assert days_with_images(storage) == [DAY, NEXT]
    assert (
        days_with_images(storage, first=NEXT) == days_with_images(storage, DAY + dt.timedelta(days=1), NEXT) == [NEXT]
    )
    found = images_of_days(storage, [NEXT, DAY])
    assert found.groups(6) == [Group(sha("original"), (Near(2, sha("copy")),))]
    uses = [(use.day, use.id_sanpham) for use in found.uses[sha("original")]]
    assert uses == [(DAY, "p1"), (DAY, "p2"), (NEXT, "p4")]
    assert found.groups(1) == []


def test_a_storage_without_images_has_no_days_and_a_missing_day_is_named(tmp_path: Path) -> None:
    assert days_with_images(UPath(tmp_path / "none")) == []
    with pytest.raises(DayError, match="Materialize product_images"):
        images_of_days(UPath(tmp_path), [DAY])
