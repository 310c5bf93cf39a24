"""Runs the migrations on the connection that `services.postgres.migrate` hands over."""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection

from labeling_assets.services.tables import SCHEMA, metadata

connection: Connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=metadata,
    version_table_schema=SCHEMA,
    include_schemas=True,
    include_name=lambda name, kind, _parents: kind != "schema" or name == SCHEMA,
)
context.run_migrations()
