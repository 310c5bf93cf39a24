"""Reads the files of `clip_vectors` and `qwen_labels` without trust: a broken file is told from a storage that fails.

What is made of the files is in `healing.py`; how stages read and write them is in `day_tables.py`.
"""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel
from upath import UPath

from labeling_assets.errors import ConfigurationError, ServiceUnavailableError, VectorError
from labeling_assets.products.records import EmbeddedProduct, LabeledProduct, arrow_schema, required_columns
from labeling_assets.products.vectors import DESCRIPTION_VECTOR, IMAGE_VECTOR, refuse_unusable, vector_matrix
from labeling_assets.services.day_tables import day_file, newest_rows_elsewhere, read_table, stored_names

VECTORS, LABELS = "clip_vectors", "qwen_labels"
FILES: dict[str, type[BaseModel]] = {VECTORS: EmbeddedProduct, LABELS: LabeledProduct}


class BrokenFileError(Exception):
    """The bytes of a file were read, and are not what the asset writes for the day."""


def read_checked(storage: UPath, asset: str, day: dt.date) -> pa.Table | None:
    """The table of a day's file, with all columns, sound vectors, and rows of the day alone; None where no file is.

    Raises:
        BrokenFileError: It is no Parquet, or not of this asset and day.
        ServiceUnavailableError: The storage cannot be read.
    """
    try:
        with _storage_errors():
            table = read_table(day_file(storage, asset, day))
    except FileNotFoundError:
        return None
    required = required_columns(FILES[asset])
    for field in arrow_schema(FILES[asset]):
        if field.name not in table.column_names and field.name not in required:
            continue
        if field.name not in table.column_names or table.schema.field(field.name).type != field.type:
            raise BrokenFileError(f"column {field.name} is missing or of another type")
    if strangers := [other for other in pc.unique(table["date"]).to_pylist() if other != day]:
        raise BrokenFileError(f"it has rows of {strangers[0]}")
    if asset == VECTORS:
        _refuse_broken_vectors(table)
    return table


def read_columns(storage: UPath, asset: str, day: dt.date, columns: Sequence[str]) -> pa.Table:
    """Some columns of a day's file.

    Raises:
        BrokenFileError: There is no file, it is no Parquet, or a column is missing.
        ServiceUnavailableError: The storage cannot be read.
    """
    try:
        with _storage_errors():
            table = read_table(day_file(storage, asset, day), columns)
    except FileNotFoundError as error:
        raise BrokenFileError(f"there is no file of {asset}") from error
    if missing := set(columns) - set(table.column_names):
        raise BrokenFileError(f"column {min(missing)} is missing")
    return table


def days_with_file(storage: UPath) -> set[dt.date]:
    """The days of which there is a file; other files in the folders are no business of ours.

    Raises:
        ServiceUnavailableError: The storage cannot be read.
    """
    return {day for asset in FILES for name in stored_names(storage, asset) if (day := day_of(name))}


def newest_elsewhere(storage: UPath, asset: str, day: dt.date, ids: Sequence[str]) -> pa.Table | None:
    """As `newest_rows_elsewhere`.

    Raises:
        ConfigurationError: A file of another day is broken, so that nothing can be said.
        ServiceUnavailableError: The storage cannot be read.
    """
    try:
        with _storage_errors():
            return newest_rows_elsewhere(storage, asset, day, ids)
    except BrokenFileError as error:
        raise ConfigurationError(
            f"A file of {asset} cannot be read: {error}.", "Run `labeling heal` without --start and --end."
        ) from error


def day_of(text: str) -> dt.date | None:
    """The day of a text that is exactly YYYY-MM-DD."""
    try:
        day = dt.date.fromisoformat(text)
    except ValueError:
        return None
    return day if day.isoformat() == text else None


@contextlib.contextmanager
def _storage_errors() -> Iterator[None]:
    """Arrow's errors about the content of a file have no number, those of a storage do; a missing file passes."""
    try:
        yield
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError) as error:
        if not isinstance(error, OSError) or error.errno is None:
            raise BrokenFileError(str(error).partition("\n")[0] or type(error).__name__) from error
        raise ServiceUnavailableError(
            f"The storage cannot be read: {error.strerror or error}.", "Check LABELING_STORAGE."
        ) from error


def _refuse_broken_vectors(table: pa.Table) -> None:
    ids = table["id_sanpham"].to_pylist()
    for name in (IMAGE_VECTOR, DESCRIPTION_VECTOR):
        if name not in table.column_names or not pa.types.is_fixed_size_list(table.schema.field(name).type):
            raise BrokenFileError(f"column {name} is missing or of another type")
        if table[name].null_count:
            raise BrokenFileError(f"column {name} has no vector for every product")
        try:
            refuse_unusable(vector_matrix(table, name), ids)
        except VectorError as error:
            raise BrokenFileError(error.message) from error
