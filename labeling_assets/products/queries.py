"""SQL that reads the source table, with bound parameters.

The table's name comes from `Settings.source_table`, which admits only `schema.table` of plain identifiers; it is quoted
here all the same. Casts make the query independent of the source's exact types (bigint or text ids, numeric or float
spend).
"""

from __future__ import annotations

SOURCE_COLUMNS: dict[str, str] = {
    "product_id": "text",
    "image": "text",
    "published_at": "timestamptz",
    "title": "text",
    "store": "text",
    "gp_code": "text",
    "link": "text",
    "spend": "numeric",
    "clicks": "numeric",
    "unique_clicks": "numeric",
    "unique_atc": "numeric",
    "impression": "numeric",
    "reach": "numeric",
    "quantity": "numeric",
}
_IN_DAY = "published_at >= :start and published_at < :end"
_HAS_IMAGE = r"image ~ '\S'"


def quoted(table: str) -> str:
    """The name as an SQL identifier."""
    return ".".join(f'"{part}"' for part in table.split("."))


def crawl_query(table: str, limit: int | None = None) -> str:
    """Rows with a non-empty image, newest first; parameters `start` and `end` bound the half-open day."""
    columns = ", ".join(f"{name}::{kind} as {name}" for name, kind in SOURCE_COLUMNS.items())
    tail = f" limit {int(limit)}" if limit is not None else ""
    return (
        f"select {columns} from {quoted(table)} where {_IN_DAY} and {_HAS_IMAGE} "  # noqa: S608 - identifiers are validated and quoted
        f"order by published_at desc, product_id, image{tail}"
    )


def rows_without_image_query(table: str) -> str:
    """Number of rows of the day whose image is missing or blank."""
    return f"select count(*) from {quoted(table)} where {_IN_DAY} and ({_HAS_IMAGE}) is not true"  # noqa: S608 - idem


def has_row_versions_query() -> str:
    """Whether the parameter `relation`, a quoted name, is a table whose rows all have an `xmin`, partitions included.

    A view has none, a foreign table shows none of its own, and another storage engine need not have one. A materialized
    view has, but gets a new one for every row with each refresh. A name that does not exist counts as a table.
    """
    return (
        "select coalesce(bool_and(c.relkind = 'p' or (c.relkind = 'r' and a.amname = 'heap')), true) "
        "from pg_class c left join pg_am a on a.oid = c.relam where c.oid in "
        "(select to_regclass(:relation) union all select relid from pg_partition_tree(to_regclass(:relation)))"
    )


def fingerprint_query(table: str, *, has_row_versions: bool) -> str:
    """Number of the day, rows, and sum of a 64-bit hash over all rows of the day, for each day that has rows.

    The parameter `bounds` holds the beginnings of the days and the end of the last, so that a day is what it is to
    `crawl_query`; the first day has number 1; `start` and `end` are the first and the last of them.

    A table's rows are hashed by `xmin`, the transaction that wrote the version of the row. A version that was not
    visible before bears a transaction that no visible version bore; where none is new, a change can only have taken
    versions away. So the multiset of the day's `xmin` differs after every committed change, and its sum of hashes with
    it. The newest `xmin` would not do: a transaction that began early may commit late. Where rows have no versions, the
    columns that are crawled are hashed.
    """
    columns = ", ".join(f"{name}::{kind}" for name, kind in SOURCE_COLUMNS.items())
    version = "xmin" if has_row_versions else f"row({columns})"
    return (
        f"select width_bucket(published_at::timestamptz, :bounds) as number, count(*) as rows, "  # noqa: S608 - idem
        f"sum(hashtextextended({version}::text, 0)) as hash "
        f"from {quoted(table)} where {_IN_DAY} group by 1"
    )
