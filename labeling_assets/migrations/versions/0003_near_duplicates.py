"""Indexes on the four bands of the perceptual hashes, which find the near duplicates of an image."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

SCHEMA = "labeling"
BANDS = {f"images_phash_band_{number}": 4 * number - 3 for number in (1, 2, 3, 4)}


def upgrade() -> None:
    """Create the indexes, which hold the images that are there, and tell the planner what stands in them."""
    for name, start in BANDS.items():
        op.create_index(name, "images", [sa.text(f"substr(phash, {start}, 4)")], schema=SCHEMA)
    op.execute(f"analyze {SCHEMA}.images")


def downgrade() -> None:
    """Drop the indexes."""
    for name in BANDS:
        op.drop_index(name, "images", schema=SCHEMA)
