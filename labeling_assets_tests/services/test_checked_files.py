"""Which files of the stages are taken for whole."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest
from milvus_samples import product
from upath import UPath

from labeling_assets.products.records import LabeledProduct, to_table
from labeling_assets.services.checked_files import LABELS, BrokenFileError, read_checked
from labeling_assets.services.day_tables import write_table

DAY = dt.date(2026, 3, 2)


def write_without(root: UPath, column: str) -> None:
    labeled = LabeledProduct.model_validate(product("P1", DAY).model_dump())
    write_table(root / LABELS / f"{DAY}.parquet", to_table([labeled], LabeledProduct).drop_columns(column))


def test_a_file_of_a_release_without_shared_labels_is_whole(tmp_path: Path) -> None:
    write_without(UPath(tmp_path), "label_shared_from")
    table = read_checked(UPath(tmp_path), LABELS, DAY)
    assert table is not None
    assert table.num_rows == 1


def test_a_file_without_another_column_is_broken(tmp_path: Path) -> None:
    write_without(UPath(tmp_path), "description")
    with pytest.raises(BrokenFileError, match="description"):
        read_checked(UPath(tmp_path), LABELS, DAY)
