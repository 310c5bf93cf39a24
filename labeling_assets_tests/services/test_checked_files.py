"""Which files of labels and vectors are taken for sound, those of earlier releases among them."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from upath import UPath

from labeling_assets.products.assembly import data_label_rows
from labeling_assets.products.records import LabeledProduct, from_table, to_table
from labeling_assets.services.checked_files import LABELS, BrokenFileError, read_checked
from labeling_assets.services.day_tables import day_file, newest_rows_elsewhere, write_table
from labeling_assets_tests.services.milvus_samples import MONDAY, TUESDAY, product


@pytest.fixture
def storage(tmp_path: Path) -> UPath:
    return UPath(tmp_path)


def labels(*names: str) -> pa.Table:
    return to_table([product(name, MONDAY) for name in names], LabeledProduct)


def write(storage: UPath, table: pa.Table, day: object = MONDAY) -> None:
    write_table(day_file(storage, LABELS, str(day)), table)


@pytest.mark.parametrize(("column", "default"), [("label_cost", 0.0), ("label_shared_from", None)])
def test_a_file_of_a_release_without_a_later_column_is_sound(storage: UPath, column: str, default: object) -> None:
    write(storage, labels("A").drop_columns([column]))
    found = read_checked(storage, LABELS, MONDAY)
    assert found is not None
    assert [getattr(row, column) for row in from_table(found, LabeledProduct)] == [default]


def test_a_file_without_a_column_that_every_release_has_is_broken(storage: UPath) -> None:
    write(storage, labels("A").drop_columns(["text"]))
    with pytest.raises(BrokenFileError, match="column text is missing"):
        read_checked(storage, LABELS, MONDAY)


def test_a_file_whose_costs_are_no_numbers_is_broken(storage: UPath) -> None:
    table = labels("A").drop_columns(["label_cost"]).append_column("label_cost", pa.array(["free"]))
    write(storage, table)
    with pytest.raises(BrokenFileError, match="label_cost is missing or of another type"):
        read_checked(storage, LABELS, MONDAY)


def test_files_with_and_without_costs_are_read_together(storage: UPath) -> None:
    write(storage, labels("A").drop_columns(["label_cost"]), MONDAY)
    write(storage, labels("B"), TUESDAY)
    found = newest_rows_elsewhere(storage, LABELS, TUESDAY.replace(day=9), ["A", "B"])
    assert found is not None
    assert sorted(row["id_sanpham"] for row in data_label_rows(found)) == ["A", "B"]
