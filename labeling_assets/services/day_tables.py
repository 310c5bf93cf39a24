"""The Parquet files between the stages: `<root>/<asset>/<day>.parquet`, local or on an object store.

The Dagster IO manager writes and reads them through here; the same files answer which other day still has a product.
"""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from upath import UPath

ROW_GROUP_ROWS = 500
EXTENSION = ".parquet"
PARTIAL = {b"is_partial": b"true"}


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


def read_table(path: UPath) -> pa.Table:
    """The table of a file."""
    with path.open("rb") as file:
        return pq.read_table(file)


def is_local(path: UPath) -> bool:
    """Whether a path is on this machine's file system, where writing in place is not atomic."""
    return path.protocol in ("", "file", "local")


def is_partial(table: pa.Table) -> bool:
    """Whether the table holds only part of its day, because the crawl was limited."""
    return (table.schema.metadata or {}).get(b"is_partial") == b"true"


def mark_partial(table: pa.Table, *, partial: bool) -> pa.Table:
    """The table with the mark that `is_partial` reads."""
    metadata = {name: value for name, value in (table.schema.metadata or {}).items() if name not in PARTIAL}
    return table.replace_schema_metadata(metadata | (PARTIAL if partial else {}))


def newest_rows_elsewhere(root: UPath, asset: str, day: dt.date, ids: Sequence[str]) -> pa.Table | None:
    """The newest row of each product among the files of all other days; None when no other day has any of them."""
    missing, found = set(ids), []
    folder = root / asset
    paths = sorted(folder.glob(f"*{EXTENSION}"), key=lambda path: path.name, reverse=True) if folder.exists() else []
    for path in paths:
        if not missing:
            break
        if path.name.startswith(".") or path.name == f"{day}{EXTENSION}":
            continue
        with path.open("rb") as file:
            held = missing.intersection(pq.read_table(file, columns=["id_sanpham"])["id_sanpham"].to_pylist())
        if held:
            table = read_table(path)
            found.append(table.filter(pc.is_in(table["id_sanpham"], pa.array(sorted(held)))))
            missing -= held
    return pa.concat_tables(found, promote_options="default") if found else None
