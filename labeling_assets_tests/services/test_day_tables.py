"""The Parquet files between the stages."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from upath import UPath

from labeling_assets.errors import DayError, ServiceUnavailableError
from labeling_assets.services.checked_files import days_with_file, newest_elsewhere
from labeling_assets.services.day_tables import (
    earlier_rows,
    is_partial,
    mark_source,
    marked_as,
    newest_rows_elsewhere,
    read_day,
    read_table,
    source_fingerprint,
    stored_names,
    write_table,
)
from labeling_assets.services.near_duplicates import days_with_images
from labeling_assets.services.stale import labeled_days

DAYS = [dt.date(2026, 3, day) for day in (1, 2, 3)]


def write_day(root: UPath, day: dt.date, **titles: str) -> None:
    table = pa.table({"id_sanpham": list(titles), "title": list(titles.values())}, schema=SCHEMA)
    write_table(root / "asset" / f"{day}.parquet", table)


SCHEMA = pa.schema([("id_sanpham", pa.string()), ("title", pa.string())])


@pytest.fixture(params=["local", "memory"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> UPath:
    return UPath(tmp_path) if request.param == "local" else UPath(f"memory://{tmp_path}")


def test_a_table_is_read_as_it_was_written(root: UPath) -> None:
    table = mark_source(pa.table({"id_sanpham": ["a"], "title": ["x"]}, schema=SCHEMA), "1:5", partial=True)
    write_table(root / "asset" / "day.parquet", table)
    assert read_table(root / "asset" / "day.parquet").equals(table)
    assert is_partial(read_table(root / "asset" / "day.parquet"))


def test_writing_leaves_no_other_file(root: UPath) -> None:
    write_day(root, DAYS[0], a="x")
    write_day(root, DAYS[0], a="y")
    assert [path.name for path in (root / "asset").iterdir()] == [f"{DAYS[0]}.parquet"]


def test_a_file_tells_of_which_state_of_the_source_it_was_made(root: UPath) -> None:
    raw = mark_source(pa.table({"id_sanpham": ["a"]}), "1:5", partial=False)
    derived = marked_as(pa.table({"id_sanpham": ["a"], "title": ["x"]}, schema=SCHEMA), raw)
    write_table(root / "asset" / "day.parquet", derived)
    assert source_fingerprint(read_table(root / "asset" / "day.parquet")) == "1:5"
    assert not is_partial(derived)


def test_a_part_of_a_day_is_no_state_of_it() -> None:
    table = mark_source(pa.table({"id_sanpham": ["a"]}), "9:5", partial=True)
    assert is_partial(table)
    assert source_fingerprint(table) is None
    assert not is_partial(mark_source(table, "9:5", partial=False))
    assert source_fingerprint(pa.table({"id_sanpham": ["a"]})) is None


def test_earlier_rows_are_those_of_the_days_before(root: UPath) -> None:
    for number, day in enumerate(DAYS[:3]):
        write_day(root, day, **{f"p{number}": "x"})
    rows = earlier_rows(root, "asset", DAYS[2], (DAYS[2] - DAYS[1]).days, ["id_sanpham"])
    assert rows is not None
    assert rows.to_pylist() == [{"id_sanpham": "p1"}]
    assert earlier_rows(root, "asset", DAYS[0], 28, ["id_sanpham"]) is None
    assert earlier_rows(root, "no such asset", DAYS[0], 28, ["id_sanpham"]) is None


def test_an_earlier_file_that_is_broken_or_of_another_release_is_left_out(
    root: UPath, caplog: pytest.LogCaptureFixture
) -> None:
    write_day(root, DAYS[0], a="x")
    (root / "asset" / f"{DAYS[1]}.parquet").write_bytes(b"no Parquet")
    rows = earlier_rows(root, "asset", DAYS[2], 28, ["id_sanpham"])
    assert rows is not None
    assert rows["id_sanpham"].to_pylist() == ["a"]
    assert str(DAYS[1]) in caplog.text
    assert earlier_rows(root, "asset", DAYS[1], 28, ["id_sanpham", "column of tomorrow"]) is None


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


@pytest.mark.parametrize(
    "read",
    [
        labeled_days,
        days_with_file,
        days_with_images,
        lambda root: newest_elsewhere(root, "qwen_labels", DAYS[0], ["a"]),
        lambda root: earlier_rows(root, "qwen_labels", DAYS[0], 28, ["id_sanpham"]),
    ],
)
def test_a_folder_that_cannot_be_listed_is_never_an_empty_one(tmp_path: Path, read: Callable[[UPath], object]) -> None:
    assert not read(UPath(tmp_path)), "a folder that does not exist is empty"
    for asset in ("qwen_labels", "product_images"):
        (tmp_path / asset).write_text("a file in place of the folder")
    with pytest.raises(ServiceUnavailableError, match=r"cannot be listed: .* Check LABELING_STORAGE"):
        read(UPath(tmp_path))


def test_names_are_those_of_whole_files_in_order(root: UPath) -> None:
    for day in reversed(DAYS):
        write_day(root, day, a="x")
    for name in ("notes.txt", f".{DAYS[0]}.parquet.1.tmp", f".{DAYS[0]}.parquet"):
        (root / "asset" / name).write_bytes(b"x")
    assert stored_names(root, "asset") == [str(day) for day in DAYS]
    assert stored_names(root, "no such asset") == []


def test_a_missing_or_broken_file_is_an_error_that_names_the_remedy(root: UPath) -> None:
    write_day(root, DAYS[0], a="x")
    assert read_day(root, "asset", DAYS[0]).num_rows == 1
    with pytest.raises(DayError, match=r"does not exist. Materialize asset of that day first"):
        read_day(root, "asset", DAYS[1])
    (root / "asset" / f"{DAYS[0]}.parquet").write_bytes(b"PAR1 but no Parquet")
    with pytest.raises(DayError, match=r"cannot be read: .* Materialize asset of that day again"):
        read_day(root, "asset", DAYS[0])
