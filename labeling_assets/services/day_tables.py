"""The Parquet files between the stages: `<root>/<asset>/<day>.parquet`, local or on an object store.

A file says of which state of the day's source rows it was made. The files also answer which other day still has a
product.
"""

from __future__ import annotations

import datetime as dt
import logging
import os
from collections.abc import Sequence
from pathlib import PurePosixPath

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from upath import UPath

from labeling_assets.errors import DayError, ServiceUnavailableError

ROW_GROUP_ROWS = 500
EXTENSION = ".parquet"
IS_PARTIAL, FINGERPRINT = b"is_partial", b"source_fingerprint"
"""Keys of a file's schema metadata."""

logger = logging.getLogger(__name__)


def day_file(root: UPath, asset: str, day: dt.date | str) -> UPath:
    """Where the table of an asset of a day is."""
    return root / asset / f"{day}{EXTENSION}"


def stored_names(root: UPath, asset: str) -> list[str]:
    """The names of an asset's files without their extension, mostly days, in order; none where it has no folder.

    Folders are listed here alone: `glob` and `exists` take a folder that cannot be read for an empty one.

    Raises:
        ServiceUnavailableError: The folder is there and cannot be listed.
    """
    folder = root / asset
    try:
        # On an object store, `iterdir` tells a missing folder like a file in its place.
        paths = folder.iterdir() if is_local(folder) else map(PurePosixPath, folder.fs.ls(folder.path, detail=False))
        names = [path.name for path in paths]
    except FileNotFoundError:
        return []
    except OSError as error:
        reason = error.strerror or str(error) or type(error).__name__
        raise ServiceUnavailableError(
            f"The folder {folder} cannot be listed: {reason}.", "Check LABELING_STORAGE and its permissions."
        ) from error
    return sorted(name.removesuffix(EXTENSION) for name in names if name.endswith(EXTENSION) and name[0] != ".")


def write_table(path: UPath, table: pa.Table) -> None:
    """Write a table so that readers see the old file or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    target = path
    if is_local(path):
        target = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with target.open("wb") as file:
        pq.write_table(table, file, row_group_size=ROW_GROUP_ROWS, compression="zstd")
    if target is not path:
        target.rename(path)


def read_table(path: UPath, columns: Sequence[str] | None = None) -> pa.Table:
    """The table of a file, or some of its columns."""
    with path.open("rb") as file:
        return pq.read_table(file, columns=list(columns) if columns else None)


def read_day(root: UPath, asset: str, day: dt.date | str) -> pa.Table:
    """The table of an asset of a day.

    Raises:
        DayError: There is no file, or it cannot be read.
    """
    path = day_file(root, asset, day)
    try:
        return read_table(path)
    except FileNotFoundError as error:
        raise DayError(f"{path} does not exist.", f"Materialize {asset} of that day first.") from error
    except pa.ArrowInvalid as error:
        reason = str(error).splitlines()[0]
        raise DayError(f"{path} cannot be read: {reason}.", f"Materialize {asset} of that day again.") from error


def is_local(path: UPath) -> bool:
    """Whether a path is on this machine's file system, where writing in place is not atomic."""
    return path.protocol in ("", "file", "local")


def is_partial(table: pa.Table) -> bool:
    """Whether the table holds only part of its day, because the crawl was limited."""
    return (table.schema.metadata or {}).get(IS_PARTIAL) == b"true"


def source_fingerprint(table: pa.Table) -> str | None:
    """State of the day's source rows that the table was made of; None where it tells none or holds only a part."""
    fingerprint = (table.schema.metadata or {}).get(FINGERPRINT)
    return fingerprint.decode() if fingerprint and not is_partial(table) else None


def mark_source(table: pa.Table, fingerprint: str, *, partial: bool) -> pa.Table:
    """The table with the marks that `source_fingerprint` and `is_partial` read."""
    marks = {FINGERPRINT: fingerprint.encode(), IS_PARTIAL: b"true" if partial else b"false"}
    return table.replace_schema_metadata((table.schema.metadata or {}) | marks)


def marked_as(table: pa.Table, source: pa.Table) -> pa.Table:
    """The table with the marks of the one that it was made of."""
    marks = {name: value for name, value in (source.schema.metadata or {}).items() if name in (FINGERPRINT, IS_PARTIAL)}
    return table.replace_schema_metadata((table.schema.metadata or {}) | marks)


def earlier_rows(root: UPath, asset: str, day: dt.date, days: int, columns: Sequence[str]) -> pa.Table | None:
    """Some columns of the files of up to so many days before a day; None when there is none.

    A file that is broken, or of a release without one of the columns, is left out: it says nothing of this day, and a
    healing finds it.
    """
    first, last = f"{day - dt.timedelta(days=days)}{EXTENSION}", f"{day}{EXTENSION}"
    tables = []
    for path in _files(root, asset):
        if first <= path.name < last:
            try:
                with path.open("rb") as file:
                    tables.append(pq.read_table(file, columns=list(columns)))
            except pa.ArrowInvalid as error:
                logger.warning("%s is left out: %s", path, str(error).partition("\n")[0])
    return pa.concat_tables(tables, promote_options="default") if tables else None


def _files(root: UPath, asset: str) -> list[UPath]:
    """The files of an asset, newest day first."""
    return [day_file(root, asset, name) for name in reversed(stored_names(root, asset))]


def newest_rows_elsewhere(root: UPath, asset: str, day: dt.date, ids: Sequence[str]) -> pa.Table | None:
    """The newest row of each product among the files of all other days; None when no other day has any of them."""
    missing, found = set(ids), []
    for path in _files(root, asset):
        if not missing:
            break
        if path.name == f"{day}{EXTENSION}":
            continue
        with path.open("rb") as file:
            held = missing.intersection(pq.read_table(file, columns=["id_sanpham"])["id_sanpham"].to_pylist())
        if held:
            table = read_table(path)
            found.append(table.filter(pc.is_in(table["id_sanpham"], pa.array(sorted(held)))))
            missing -= held
    return pa.concat_tables(found, promote_options="default") if found else None
