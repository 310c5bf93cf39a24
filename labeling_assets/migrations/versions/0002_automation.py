"""What automation remembers: synced days, failed days, writers and alerts."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

SCHEMA = "labeling"


def _now(name: str) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now())


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "synced_days",
        sa.Column("day", sa.Date, primary_key=True),
        sa.Column("store", sa.Text, primary_key=True, comment="milvus_collection or data_label"),
        sa.Column("fingerprint", sa.Text, nullable=False, comment="of the day's source rows when they were crawled"),
        _now("synced_at"),
        schema=SCHEMA,
        comment="Which state of each day's source rows each store holds.",
    )
    op.create_table(
        "day_failures",
        sa.Column("day", sa.Date, primary_key=True),
        sa.Column("stage", sa.Text, primary_key=True, comment="name of the asset"),
        sa.Column("run_id", sa.Text, nullable=False),
        sa.Column("error_class", sa.Text, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("remedy", sa.Text, nullable=False),
        _now("failed_at"),
        schema=SCHEMA,
        comment="Days that failed in a run of several days, with the reason, until they succeed.",
    )
    op.create_table(
        "writer_leases",
        sa.Column("name", sa.Text, primary_key=True, comment="what is written, such as milvus:<collection>"),
        sa.Column("token", sa.BigInteger, nullable=False, comment="grows with every writer; an older one is refused"),
        sa.Column("valid_until", sa.DateTime(timezone=True), nullable=False),
        schema=SCHEMA,
        comment="The one writer of each store that cannot exclude writers by itself.",
    )
    op.create_table(
        "alerts",
        sa.Column("cause", sa.Text, primary_key=True, comment="what makes two alerts the same"),
        _now("sent_at"),
        sa.Column("held_back", sa.Integer, nullable=False, comment="alerts of this cause since the last that was sent"),
        schema=SCHEMA,
        comment="When each kind of alert was last sent.",
    )


def downgrade() -> None:
    """Drop the tables."""
    for table in ("alerts", "writer_leases", "day_failures", "synced_days"):
        op.drop_table(table, schema=SCHEMA)
