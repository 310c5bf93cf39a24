"""Jobs of the products domain."""

from __future__ import annotations

import dagster as dg

products_job = dg.define_asset_job(
    "products_job",
    selection=dg.AssetSelection.groups("products").materializable(),
    description="Days of products, from the Postgres rows to the Milvus collection and data_label.",
)
