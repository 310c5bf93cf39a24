"""Jobs of the products domain."""

from __future__ import annotations

import dagster as dg

from labeling_assets.defs.products import partitions

products_job = dg.define_asset_job(
    "products_job",
    selection=dg.AssetSelection.groups("products").materializable(),
    partitions_def=partitions.product_days,
    description="One day of products, from the Postgres rows to the Milvus collection and data_label.",
)
