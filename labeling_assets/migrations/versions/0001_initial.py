"""The first tables: label ledger, vector cache, image fetches, images and quarantine."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

SCHEMA = "labeling"


def _now(name: str) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now())


def upgrade() -> None:
    """Create the tables; the schema itself exists, because the version table stands in it."""
    op.create_table(
        "label_ledger",
        sa.Column("image_sha256", sa.Text, primary_key=True, comment="sha256 of the fetched bytes, hex"),
        sa.Column("model_digest", sa.Text, primary_key=True),
        sa.Column("prompt_version", sa.Text, primary_key=True),
        sa.Column("schema_version", sa.Text, primary_key=True),
        sa.Column("model", sa.Text, nullable=False, comment="name of the model, for people"),
        sa.Column("labels", JSONB, comment="the fifteen fields; null when the model gave no usable label"),
        sa.Column("error_class", sa.Text, comment="class in errors.py; null when labeled"),
        sa.Column("error_message", sa.Text),
        sa.Column("parse_step", sa.Text, comment="direct, fenced, embedded or repaired"),
        sa.Column(
            "model_calls", sa.Integer, nullable=False, comment="requests made for this entry, the re-ask included"
        ),
        sa.Column("prompt_tokens", sa.Integer, nullable=False),
        sa.Column("output_tokens", sa.Integer, nullable=False),
        sa.Column("seconds", sa.Double, nullable=False, comment="time the model server took"),
        _now("created_at"),
        schema=SCHEMA,
        comment="What the vision model said of each image: a reply is paid for once.",
    )
    op.create_table(
        "vector_cache",
        sa.Column("embedder", sa.Text, primary_key=True, comment="EmbedderIdentity.key"),
        sa.Column("content_key", sa.Text, primary_key=True, comment="image:<sha256> or text:<sha256>"),
        sa.Column("vector", sa.LargeBinary, nullable=False, comment="float32, little endian, L2-normalised"),
        schema=SCHEMA,
        comment="Vectors by content and embedder.",
    )
    op.create_table(
        "image_fetches",
        sa.Column("url_sha256", sa.Text, primary_key=True),
        sa.Column("url", sa.Text, nullable=False),
        sa.Column("etag", sa.Text),
        sa.Column("last_modified", sa.Text),
        sa.Column("image_sha256", sa.Text, comment="content last delivered; null when it was no usable image"),
        sa.Column("error_class", sa.Text, comment="class in errors.py; null when usable"),
        sa.Column("error_message", sa.Text),
        _now("fetched_at"),
        schema=SCHEMA,
        comment="Validators of each image URL, for conditional requests.",
    )
    op.create_table(
        "images",
        sa.Column("sha256", sa.Text, primary_key=True),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("width_px", sa.Integer, nullable=False, comment="after EXIF rotation"),
        sa.Column("height_px", sa.Integer, nullable=False),
        sa.Column("format", sa.Text, nullable=False, comment="JPEG, PNG, WEBP, GIF …"),
        sa.Column("phash", sa.Text, nullable=False, comment="64-bit perceptual hash, 16 hex digits"),
        sa.Column("model_size_bytes", sa.BigInteger, nullable=False, comment="size of the JPEG that models read"),
        sa.Column("model_width_px", sa.Integer, nullable=False),
        sa.Column("model_height_px", sa.Integer, nullable=False),
        schema=SCHEMA,
        comment="Facts of each distinct image; the bytes are in the image store.",
    )
    op.create_table(
        "quarantine",
        sa.Column("product_id", sa.Text, primary_key=True),
        sa.Column("day", sa.Date, primary_key=True),
        sa.Column("stage", sa.Text, primary_key=True, comment="name of the asset"),
        sa.Column("error_class", sa.Text, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("can_retry", sa.Boolean, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        _now("first_seen"),
        _now("last_seen"),
        schema=SCHEMA,
        comment="Rows that could not be processed, with the reason.",
    )
    op.create_index("quarantine_day_stage", "quarantine", ["day", "stage"], schema=SCHEMA)


def downgrade() -> None:
    """Drop the tables."""
    for table in ("quarantine", "images", "image_fetches", "vector_cache", "label_ledger"):
        op.drop_table(table, schema=SCHEMA)
