"""The tables of our own, in schema `labeling`, as SQLAlchemy Core objects.

A change here needs a migration in `migrations/versions`; a test compares the two. `data_label` stands in the source
schema because outsiders read it there.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

SCHEMA = "labeling"
metadata = sa.MetaData(schema=SCHEMA)

label_ledger = sa.Table(
    "label_ledger",
    metadata,
    sa.Column("image_sha256", sa.Text, primary_key=True, comment="sha256 of the fetched bytes, hex"),
    sa.Column("model_digest", sa.Text, primary_key=True),
    sa.Column("prompt_version", sa.Text, primary_key=True),
    sa.Column("schema_version", sa.Text, primary_key=True),
    sa.Column("model", sa.Text, nullable=False, comment="name of the model, for people"),
    sa.Column("labels", JSONB, comment="the fifteen fields; null when the model gave no usable label"),
    sa.Column("error_class", sa.Text, comment="class in errors.py; null when labeled"),
    sa.Column("error_message", sa.Text),
    sa.Column("parse_step", sa.Text, comment="direct, fenced, embedded or repaired"),
    sa.Column("model_calls", sa.Integer, nullable=False, comment="requests made for this entry, the re-ask included"),
    sa.Column("prompt_tokens", sa.Integer, nullable=False),
    sa.Column("output_tokens", sa.Integer, nullable=False),
    sa.Column("seconds", sa.Double, nullable=False, comment="time the model server took"),
    sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
    comment="What the vision model said of each image: a reply is paid for once.",
)

vector_cache = sa.Table(
    "vector_cache",
    metadata,
    sa.Column("embedder", sa.Text, primary_key=True, comment="EmbedderIdentity.key"),
    sa.Column("content_key", sa.Text, primary_key=True, comment="image:<sha256> or text:<sha256>"),
    sa.Column("vector", sa.LargeBinary, nullable=False, comment="float32, little endian, L2-normalised"),
    comment="Vectors by content and embedder.",
)

image_fetches = sa.Table(
    "image_fetches",
    metadata,
    sa.Column("url_sha256", sa.Text, primary_key=True),
    sa.Column("url", sa.Text, nullable=False),
    sa.Column("etag", sa.Text),
    sa.Column("last_modified", sa.Text),
    sa.Column("image_sha256", sa.Text, comment="content last delivered; null when it was no usable image"),
    sa.Column("error_class", sa.Text, comment="class in errors.py; null when usable"),
    sa.Column("error_message", sa.Text),
    sa.Column("fetched_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
    comment="Validators of each image URL, for conditional requests.",
)

images = sa.Table(
    "images",
    metadata,
    sa.Column("sha256", sa.Text, primary_key=True),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("width_px", sa.Integer, nullable=False, comment="after EXIF rotation"),
    sa.Column("height_px", sa.Integer, nullable=False),
    sa.Column("format", sa.Text, nullable=False, comment="JPEG, PNG, WEBP, GIF …"),
    sa.Column("phash", sa.Text, nullable=False, comment="64-bit perceptual hash, 16 hex digits"),
    sa.Column("model_size_bytes", sa.BigInteger, nullable=False, comment="size of the JPEG that models read"),
    sa.Column("model_width_px", sa.Integer, nullable=False),
    sa.Column("model_height_px", sa.Integer, nullable=False),
    # The four bands of 16 bits by which near duplicates are found, see `near_duplicates.py`.
    *(sa.Index(f"images_phash_band_{band}", sa.text(f"substr(phash, {4 * band - 3}, 4)")) for band in (1, 2, 3, 4)),
    comment="Facts of each distinct image; the bytes are in the image store.",
)

quarantine = sa.Table(
    "quarantine",
    metadata,
    sa.Column("product_id", sa.Text, primary_key=True),
    sa.Column("day", sa.Date, primary_key=True),
    sa.Column("stage", sa.Text, primary_key=True, comment="name of the asset"),
    sa.Column("error_class", sa.Text, nullable=False),
    sa.Column("message", sa.Text, nullable=False),
    sa.Column("can_retry", sa.Boolean, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("first_seen", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
    sa.Column("last_seen", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
    sa.Index("quarantine_day_stage", "day", "stage"),
    comment="Rows that could not be processed, with the reason.",
)

synced_days = sa.Table(
    "synced_days",
    metadata,
    sa.Column("day", sa.Date, primary_key=True),
    sa.Column("store", sa.Text, primary_key=True, comment="milvus_collection or data_label"),
    sa.Column("fingerprint", sa.Text, nullable=False, comment="of the day's source rows when they were crawled"),
    sa.Column("synced_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
    comment="Which state of each day's source rows each store holds.",
)

day_failures = sa.Table(
    "day_failures",
    metadata,
    sa.Column("day", sa.Date, primary_key=True),
    sa.Column("stage", sa.Text, primary_key=True, comment="name of the asset"),
    sa.Column("run_id", sa.Text, nullable=False),
    sa.Column("error_class", sa.Text, nullable=False),
    sa.Column("message", sa.Text, nullable=False),
    sa.Column("remedy", sa.Text, nullable=False),
    sa.Column("failed_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
    comment="Days that failed in a run of several days, with the reason, until they succeed.",
)

writer_leases = sa.Table(
    "writer_leases",
    metadata,
    sa.Column("name", sa.Text, primary_key=True, comment="what is written, such as milvus:<collection>"),
    sa.Column("token", sa.BigInteger, nullable=False, comment="grows with every writer; an older one is refused"),
    sa.Column("valid_until", sa.DateTime(timezone=True), nullable=False),
    comment="The one writer of each store that cannot exclude writers by itself.",
)

alerts = sa.Table(
    "alerts",
    metadata,
    sa.Column("cause", sa.Text, primary_key=True, comment="what makes two alerts the same"),
    sa.Column("sent_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
    sa.Column("held_back", sa.Integer, nullable=False, comment="alerts of this cause since the last that was sent"),
    comment="When each kind of alert was last sent.",
)

data_label = sa.Table(
    "data_label",
    sa.MetaData(),
    sa.Column("id_sanpham", sa.Text, primary_key=True),
    sa.Column("description", sa.Text, nullable=False),
    sa.Column("date_created", sa.Date, nullable=False, comment="business day of the product"),
    sa.Column("platform", sa.Text, nullable=False),
    sa.Column("name_store", sa.Text, nullable=False),
    sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
    sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
    schema="ai_craw",
    comment="Descriptions by product, for the systems that read the source schema.",
)
