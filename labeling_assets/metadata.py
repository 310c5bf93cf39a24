"""What a person reads on an asset's page: counts, preview with thumbnails, distributions, column schema and lineage.

Every materialization carries the same keys every time, zero rather than absent, with one numeric type each and the unit
in the name, so that the plots of the Dagster UI have no gaps. Keys that outsiders read are constants here.
"""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import dagster as dg
import pyarrow as pa
from pydantic import BaseModel

from labeling_assets.products.records import arrow_schema

ROWS_IN = "rows_in"
ROWS_OUT = "rows_out"
ROWS_QUARANTINED = "rows_quarantined"
SECONDS = "seconds"
ROWS_PER_SECOND = "rows_per_second"
PREVIEW_ROWS = 5
CHART_BARS, CHART_WIDTH, CHART_LABEL = 8, 16, 30


def stage_metadata(rows_in: int, rows_out: int, rows_quarantined: int, seconds: float) -> dict[str, Any]:
    """The counts that every stage reports; `rows_in = rows_out + rows_quarantined`."""
    return {
        ROWS_IN: rows_in,
        ROWS_OUT: rows_out,
        ROWS_QUARANTINED: rows_quarantined,
        SECONDS: round(seconds, 3),
        ROWS_PER_SECOND: round(rows_in / seconds, 2) if seconds > 0 else 0.0,
        "dagster/partition_row_count": rows_out,
    }


def preview(
    table: pa.Table, columns: Sequence[str], thumbnail: Callable[[str], bytes] | None = None
) -> dg.MarkdownMetadataValue:
    """The first five rows as a markdown table, with a picture of each where `image_sha256` and `thumbnail` are there.

    Args:
        table: Rows of a stage.
        columns: Columns to show, in order.
        thumbnail: Gives the JPEG bytes of a small picture for an image's sha256; a few kilobytes each, since they are
            stored in the event log.
    """
    has_picture = thumbnail is not None and "image_sha256" in table.column_names
    head = [*(["picture"] if has_picture else []), *columns]
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for row in table.slice(0, PREVIEW_ROWS).to_pylist():
        cells = [_cell(row[name]) for name in columns]
        if has_picture and thumbnail is not None:
            sha256 = row["image_sha256"]
            cells.insert(0, _picture(thumbnail(sha256)) if sha256 else "")
        lines.append("| " + " | ".join(cells) + " |")
    if not table.num_rows:
        return dg.MetadataValue.md("No rows.")
    return dg.MetadataValue.md("\n".join(lines))


def bar_chart(values: Iterable[str], title: str) -> dg.MarkdownMetadataValue:
    """The most frequent values as a bar chart of characters.

    The UI shows markdown of less than 1,000 characters at once and hides longer texts behind a link.
    """
    counts = Counter(values).most_common(CHART_BARS)
    if not counts:
        return dg.MetadataValue.md(f"{title}: no values.")
    lines = [f"| {title} | rows | |", "| --- | ---: | --- |"]
    for name, count in counts:
        bar = "█" * max(1, round(CHART_WIDTH * count / counts[0][1]))
        label = name if len(name) <= CHART_LABEL else f"{name[: CHART_LABEL - 1]}…"
        lines.append(f"| {_cell(label)} | {count} | {bar} |")
    return dg.MetadataValue.md("\n".join(lines))


def table_schema(model: type[BaseModel], extra: Mapping[str, tuple[str, str]] | None = None) -> dg.TableSchema:
    """Column schema of a record class: names, types, nullability and descriptions.

    Args:
        model: Record class.
        extra: Columns that are no fields of the record, as name → (type, description).
    """
    columns = [
        dg.TableColumn(
            name=field.name,
            type=str(field.type),
            description=(field.metadata or {})[b"description"].decode(),
            constraints=dg.TableColumnConstraints(nullable=field.nullable),
        )
        for field in arrow_schema(model)
    ]
    return dg.TableSchema(columns=[*columns, *_plain_columns(extra or {})])


def plain_schema(columns: Mapping[str, tuple[str, str]]) -> dg.TableSchema:
    """Column schema from name → (type, description)."""
    return dg.TableSchema(columns=_plain_columns(columns))


def _plain_columns(columns: Mapping[str, tuple[str, str]]) -> list[dg.TableColumn]:
    return [dg.TableColumn(name, kind, description) for name, (kind, description) in columns.items()]


def column_lineage(
    columns: Iterable[str], upstream: str, upstream_columns: Iterable[str], derived: Mapping[str, Sequence[str]]
) -> dg.TableColumnLineage:
    """Column lineage of a stage: columns that it passes on, and those that it derives.

    Args:
        columns: Columns of the stage.
        upstream: Name of the stage before.
        upstream_columns: Its columns.
        derived: New column → columns of the stage before from which it is made.
    """
    known, key = set(upstream_columns), dg.AssetKey(upstream)
    sources: dict[str, Sequence[str]] = {name: [name] for name in columns if name in known} | dict(derived)
    return dg.TableColumnLineage(
        {
            name: [dg.TableColumnDep(asset_key=key, column_name=column) for column in needed]
            for name, needed in sources.items()
        }
    )


def _picture(jpeg: bytes) -> str:
    return f"![](data:image/jpeg;base64,{base64.b64encode(jpeg).decode()})"


def _cell(value: object) -> str:
    """A value as the content of one markdown cell; nothing from outside can end the cell or open a tag."""
    if value is None:
        return ""
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    text = " ".join(text.split())
    text = text if len(text) <= 80 else text[:79] + "…"
    for sign in ("\\", "|", "`", "*", "_", "[", "]", "<", ">", "#", "!"):
        text = text.replace(sign, f"\\{sign}")
    return text
