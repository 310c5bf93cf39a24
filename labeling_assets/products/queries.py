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


def _quoted(table: str) -> str:
    return ".".join(f'"{part}"' for part in table.split("."))


def crawl_query(table: str, limit: int | None = None) -> str:
    """Rows with a non-empty image, newest first; parameters `start` and `end` bound the half-open day."""
    columns = ", ".join(f"{name}::{kind} as {name}" for name, kind in SOURCE_COLUMNS.items())
    tail = f" limit {int(limit)}" if limit is not None else ""
    return (
        f"select {columns} from {_quoted(table)} where {_IN_DAY} and {_HAS_IMAGE} "  # noqa: S608 - identifiers are validated and quoted
        f"order by published_at desc, product_id, image{tail}"
    )


def rows_without_image_query(table: str) -> str:
    """Number of rows of the day whose image is missing or blank."""
    return f"select count(*) from {_quoted(table)} where {_IN_DAY} and ({_HAS_IMAGE}) is not true"  # noqa: S608 - idem
