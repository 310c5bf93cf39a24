"""From a source row to a record: key, defaults, estimates, day and hash."""

from __future__ import annotations

import datetime as dt
import re
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labeling_assets.errors import InvalidRowError
from labeling_assets.products.queries import SOURCE_COLUMNS
from labeling_assets.products.raw import estimated_engagement, product_key, raw_product, raw_products
from labeling_assets.products.records import RawProduct, arrow_schema, from_table, to_table

ZONE = ZoneInfo("Asia/Ho_Chi_Minh")
NOON = dt.datetime(2026, 3, 14, 5, tzinfo=dt.UTC)

texts = st.none() | st.text(max_size=60)
numbers = st.none() | st.integers(-(2**62), 2**62)
rows = st.fixed_dictionaries(
    {
        "product_id": texts,
        "image": st.text(min_size=1, max_size=60),
        "published_at": st.integers(946_684_800, 4_102_444_800).map(
            lambda second: dt.datetime.fromtimestamp(second, dt.UTC)
        ),
        "title": texts,
        "store": texts,
        "gp_code": texts,
        "link": texts,
        "spend": st.none() | st.floats(allow_nan=False, allow_infinity=False),
        **dict.fromkeys(("clicks", "unique_clicks", "unique_atc", "impression", "reach", "quantity"), numbers),
    }
)


def source_row(**values: Any) -> dict[str, Any]:
    empty: dict[str, Any] = dict.fromkeys(SOURCE_COLUMNS)
    return empty | {"product_id": "p1", "image": "http://host/a.jpg", "published_at": NOON} | values


def test_missing_platform_and_store_get_their_defaults() -> None:
    record = raw_product(source_row(), ZONE)
    assert (record.platform, record.name_store, record.link_redirect) == ("Website", "unknown", "")


def test_blank_platform_and_store_count_as_missing() -> None:
    record = raw_product(source_row(gp_code=" ", store="\t"), ZONE)
    assert (record.platform, record.name_store) == ("Website", "unknown")


def test_the_day_is_that_of_the_business_time_zone() -> None:
    assert raw_product(source_row(published_at=dt.datetime(2026, 3, 13, 17, tzinfo=dt.UTC)), ZONE).date == dt.date(
        2026, 3, 14
    )
    assert raw_product(source_row(published_at=dt.datetime(2026, 3, 13, 16, 59, tzinfo=dt.UTC)), ZONE).date == dt.date(
        2026, 3, 13
    )


@pytest.mark.parametrize("product_id", [None, "", "  "])
def test_a_row_without_an_id_gets_one_made_of_its_identity(product_id: str | None) -> None:
    key = product_key(source_row(product_id=product_id))
    assert re.fullmatch(r"SP_[0-9a-f]{8}", key)
    later = source_row(product_id=product_id, published_at=NOON + dt.timedelta(days=1), clicks=5, spend=1.5)
    assert product_key(later) == key
    assert product_key(source_row(product_id=product_id, title="another")) != key


def test_the_row_hash_follows_every_source_value() -> None:
    base = raw_product(source_row(), ZONE).row_hash
    assert raw_product(source_row(), ZONE).row_hash == base
    for name, value in {
        "title": "new",
        "clicks": 1,
        "spend": 0.5,
        "published_at": NOON + dt.timedelta(seconds=1),
    }.items():
        assert raw_product(source_row(**{name: value}), ZONE).row_hash != base


@given(st.text(min_size=1), st.integers(0, 10**12))
def test_estimates_stay_in_their_shares_and_are_the_same_every_time(id_sanpham: str, impression: int) -> None:
    like, comment, share = estimated_engagement(id_sanpham, impression)
    assert (like, comment, share) == estimated_engagement(id_sanpham, impression)
    assert 0.01 * impression - 1 <= like <= 0.06 * impression
    assert 0.001 * impression - 1 <= comment <= 0.011 * impression
    assert 0.0005 * impression - 1 <= share <= 0.0055 * impression


@pytest.mark.parametrize("impression", [None, 0, -5])
def test_without_impressions_nothing_is_estimated(impression: int | None) -> None:
    assert estimated_engagement("p1", impression) == (0, 0, 0)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("product_id", "x" * 513),
        ("image", "h" * 65_536),
        ("title", "ü" * 4_097),
        ("spend", float("nan")),
        ("spend", float("inf")),
        ("clicks", float("nan")),
        ("reach", 2**63),
    ],
)
def test_a_value_that_cannot_be_stored_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(InvalidRowError, match=name):
        raw_product(source_row(**{name: value}), ZONE)


def test_identical_refused_rows_are_each_counted() -> None:
    _, failures = raw_products([source_row(product_id="x" * 5000)] * 5, ZONE)
    assert len(failures) == 5


def test_a_refused_row_does_not_stop_the_others_and_each_is_counted() -> None:
    bad = [source_row(product_id="x" * 5000, clicks=clicks) for clicks in (1, 2)]
    records, failures = raw_products([source_row(), *bad], ZONE)
    assert [record.id_sanpham for record in records] == ["p1"]
    assert len(failures) == 2
    assert all(len(key.encode()) <= 512 for key in failures)


@given(st.lists(rows, max_size=5))
def test_any_row_becomes_a_record_or_a_failure_and_survives_arrow(source: list[dict[str, Any]]) -> None:
    records, failures = raw_products(source, ZONE)
    assert len(records) + len(failures) == len(source)
    table = to_table(records, RawProduct)
    assert table.schema.equals(arrow_schema(RawProduct))
    assert list(from_table(table, RawProduct)) == records
