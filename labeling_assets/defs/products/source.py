"""The table in Postgres where lineage begins. It is filled by others; this location only reads it.

The sensor of changed products observes each of its days whose rows it sees in a new state.
"""

from __future__ import annotations

import dagster as dg

from labeling_assets.defs.products import columns, partitions
from labeling_assets.products.queries import SOURCE_COLUMNS

product_marketing_summary = dg.AssetSpec(
    columns.SOURCE_NAME,
    group_name="products",
    owners=["team:data-platform"],
    kinds={"postgres"},
    partitions_def=partitions.product_days,
    description="Marketing numbers of every product with its image, a row per product and publication. Only read.",
    metadata={
        "dagster/table_name": columns.SETTINGS.source_table,
        "dagster/column_schema": dg.TableSchema([dg.TableColumn(name, kind) for name, kind in SOURCE_COLUMNS.items()]),
    },
)
