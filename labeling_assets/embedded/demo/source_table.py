"""Puts the rows of a demo catalogue into the source table."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa

from labeling_assets.embedded.demo.contents import LINK_PREFIX, Catalogue, SourceRow
from labeling_assets.services.postgres import advisory_lock


def load_catalogue_rows(
    engine: sa.Engine,
    catalogue: Catalogue,
    image_base_url: str,
    source_table: str = "ai_craw.product_marketing_summary",
) -> int:
    """Make the table hold the demo's rows as the catalogue has them, in one transaction.

    Schema, table and an index on `published_at` are made where the table is missing. Demo rows are those whose link
    begins with `LINK_PREFIX`; all of them are replaced, and no other row is read or changed.

    Args:
        engine: Engine of the source database.
        catalogue: The rows.
        image_base_url: Address of the image host, such as `http://127.0.0.1:8081`.
        source_table: Table as `schema.table`.

    Returns:
        Number of rows inserted.
    """
    schema, name = source_table.split(".")
    table = _source_table(schema, name)
    rows = [_values(row, image_base_url) for row in catalogue.rows]
    # A transaction that begins once the lock is held sees the schema that another one has made.
    with advisory_lock(engine, f"schema:{schema}"), engine.begin() as connection:
        connection.execute(sa.schema.CreateSchema(schema, if_not_exists=True))
        table.create(connection, checkfirst=True)
        connection.execute(sa.delete(table).where(table.c.link.startswith(LINK_PREFIX, autoescape=True)))
        if rows:
            connection.execute(sa.insert(table), rows)
    return len(rows)


def _source_table(schema: str, name: str) -> sa.Table:
    """The source table as the demo makes it; identifiers are quoted."""
    counters = ("clicks", "unique_clicks", "unique_atc", "impression", "reach", "quantity")
    return sa.Table(
        sa.sql.quoted_name(name, quote=True),
        sa.MetaData(),
        sa.Column("product_id", sa.Text),
        sa.Column("image", sa.Text),
        sa.Column("published_at", sa.DateTime(timezone=True)),
        sa.Column("title", sa.Text),
        sa.Column("store", sa.Text),
        sa.Column("gp_code", sa.Text),
        sa.Column("link", sa.Text),
        sa.Column("spend", sa.Numeric(12, 2)),
        *(sa.Column(counter, sa.BigInteger) for counter in counters),
        sa.Index(f"{name}_published_at", "published_at"),
        schema=sa.sql.quoted_name(schema, quote=True),
    )


def _values(row: SourceRow, image_base_url: str) -> dict[str, Any]:
    """Column values of a row; a path on the image host becomes a URL, all else stays."""
    values = asdict(row)
    if row.image and row.image.startswith("images/"):
        values["image"] = f"{image_base_url.rstrip('/')}/{quote(row.image)}"
    return values
