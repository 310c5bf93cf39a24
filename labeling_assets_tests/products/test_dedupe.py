"""Which row of a product counts, and how it compares with Milvus."""

from __future__ import annotations

import datetime as dt
import random
from dataclasses import dataclass
from zoneinfo import ZoneInfo

import pytest

from labeling_assets.products.dedupe import compare, distinct_products, product_status
from labeling_assets.products.queries import SOURCE_COLUMNS
from labeling_assets.products.raw import raw_product
from labeling_assets.products.records import RawProduct

NOON = dt.datetime(2026, 3, 14, 5, tzinfo=dt.UTC)


@dataclass(frozen=True)
class Stored:
    row_hash: str
    date: dt.date


def product(product_id: str, minutes: int = 0, **values: object) -> RawProduct:
    row = dict.fromkeys(SOURCE_COLUMNS) | {
        "product_id": product_id,
        "image": "http://host/a.jpg",
        "published_at": NOON + dt.timedelta(minutes=minutes),
    }
    return raw_product(row | values, ZoneInfo("Asia/Ho_Chi_Minh"))


def test_the_newest_row_of_a_product_wins() -> None:
    old, new = product("a", 0, impression=900), product("a", 5)
    assert distinct_products([old, new]) == {"a": (new, 1)}


def test_of_equally_new_rows_the_one_with_more_impressions_wins() -> None:
    little, much = product("a", impression=1), product("a", impression=2)
    assert distinct_products([much, little])["a"] == (much, 1)


def test_the_choice_does_not_depend_on_the_order_of_reading() -> None:
    rows = [product("a", minute % 2, title=str(minute)) for minute in range(8)]
    chosen = distinct_products(rows)["a"]
    for seed in range(10):
        shuffled = random.Random(seed).sample(rows, len(rows))
        assert distinct_products(shuffled)["a"] == chosen


def test_every_id_stays_exactly_once() -> None:
    rows = [product(str(number % 7), number) for number in range(50)]
    chosen = distinct_products(rows)
    assert sorted(chosen) == [str(number) for number in range(7)]
    assert sum(1 + duplicates for _, duplicates in chosen.values()) == 50


def test_a_product_is_new_changed_or_unchanged() -> None:
    row = product("a")
    assert product_status(row, None) == "new"
    assert product_status(row, Stored(row.row_hash, row.date)) == "unchanged"
    assert product_status(row, Stored("other", row.date)) == "changed"
    assert product_status(row, Stored(row.row_hash, row.date - dt.timedelta(days=1))) == "changed"
    assert product_status(row, Stored("other", row.date + dt.timedelta(days=1))) == "unchanged"


@pytest.mark.parametrize("stored", [{}, {"a": Stored("other", NOON.date())}])
def test_the_output_is_complete_whatever_milvus_holds(stored: dict[str, Stored]) -> None:
    rows = [product("a"), product("b"), product("a", 1)]
    compared = list(compare(distinct_products(rows), stored))
    assert [(row.id_sanpham, row.duplicate_count) for row in compared] == [("a", 1), ("b", 0)]
