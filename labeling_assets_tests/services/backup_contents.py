"""Everything that a platform holds, for comparing it before and after."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa

SCHEMAS = ("labeling", "ai_craw", "public")
SOURCE = "product_marketing_summary"


def tables(engine: sa.Engine) -> dict[str, bytes]:
    """What COPY writes of every table, but the source table, and the state of every sequence."""
    found = {}
    with engine.connect() as connection:
        inspector = sa.inspect(connection)
        for schema in SCHEMAS:
            for name in inspector.get_table_names(schema) if schema in inspector.get_schema_names() else ():
                if name != SOURCE:
                    written = io.BytesIO()
                    connection.connection.cursor().copy_expert(f'copy "{schema}"."{name}" to stdout', written)
                    found[f"{schema}.{name}"] = written.getvalue()
        states = sa.text("select schemaname || '.' || sequencename, last_value from pg_sequences")
        found |= {name: str(value).encode() for name, value in connection.execute(states)}
    return found


def products(uri: str, collection: str) -> dict[str, dict[str, Any]]:
    """Every field of every row of a collection, by id; vectors as the bytes of their float32 numbers."""
    from pymilvus import MilvusClient

    client = MilvusClient(uri)
    client.load_collection(collection)
    rows = client.query(collection, filter='id_sanpham != ""', output_fields=["*"], limit=16_000)
    client.close()
    found = {row["id_sanpham"]: {name: _plain(name, value) for name, value in row.items()} for row in rows}
    assert len(found) == len(rows)
    return found


def files(folder: Path) -> dict[str, str]:
    """sha256 of every file below a folder."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def _plain(name: str, value: Any) -> Any:
    if name.endswith("_vector") and name != "has_image_vector":
        return np.asarray(value, dtype=np.float32).tobytes()
    return value if isinstance(value, str | int | float | bool | dict | None) else list(value)
