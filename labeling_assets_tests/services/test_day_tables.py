"""The Parquet files between the stages."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pyarrow as pa
import pytest
from upath import UPath

from labeling_assets.services.day_tables import is_partial, mark_partial, newest_rows_elsewhere, read_table, write_table

DAYS = [dt.date(2026, 3, day) for day in (1, 2, 3)]


def write_day(root: UPath, day: dt.date, **titles: str) -> None:
    table = pa.table({"id_sanpham": list(titles), "title": list(titles.values())}, schema=SCHEMA)
    write_table(root / "asset" / f"{day}.parquet", table)


SCHEMA = pa.schema([("id_sanpham", pa.string()), ("title", pa.string())])


@pytest.fixture(params=["local", "memory"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> UPath:
    return UPath(tmp_path) if request.param == "local" else UPath(f"memory://{tmp_path}")


def test_a_table_is_read_as_it_was_written(root: UPath) -> None:
    table = mark_partial(pa.table({"id_sanpham": ["a"], "title": ["x"]}, schema=SCHEMA), partial=True)
    write_table(root / "asset" / "day.parquet", table)
    assert read_table(root / "asset" / "day.parquet").equals(table)
    assert is_partial(read_table(root / "asset" / "day.parquet"))


def test_writing_leaves_no_other_file(root: UPath) -> None:
    write_day(root, DAYS[0], a="x")
    write_day(root, DAYS[0], a="y")
    assert [path.name for path in (root / "asset").iterdir()] == [f"{DAYS[0]}.parquet"]


def test_the_mark_of_a_partial_day_can_be_taken_off() -> None:
    table = mark_partial(pa.table({"id_sanpham": ["a"]}), partial=True)
    assert not is_partial(mark_partial(table, partial=False))
    assert not is_partial(pa.table({"id_sanpham": ["a"]}))


def test_the_newest_other_day_that_has_a_product_is_found(root: UPath) -> None:
    write_day(root, DAYS[0], a="oldest", b="oldest")
    write_day(root, DAYS[1], a="older")
    write_day(root, DAYS[2], a="own day")
    found = newest_rows_elsewhere(root, "asset", DAYS[2], ["a", "b", "c"])
    assert found is not None
    assert {row["id_sanpham"]: row["title"] for row in found.to_pylist()} == {"a": "older", "b": "oldest"}


def test_a_product_that_no_other_day_has_is_not_found(root: UPath) -> None:
    assert newest_rows_elsewhere(root, "asset", DAYS[0], ["a"]) is None
    write_day(root, DAYS[0], a="own day")
    assert newest_rows_elsewhere(root, "asset", DAYS[0], ["a"]) is None
