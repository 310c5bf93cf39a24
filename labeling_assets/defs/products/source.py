"""The table in Postgres where lineage begins. It is filled by others; this location only reads it.

The sensor of changed products observes each of its days whose rows it sees in a new state.
"""

from __future__ import annotations

import dagster as dg

from labeling_assets.defs.products import columns, partitions
from labeling_assets.products.queries import SOURCE_COLUMNS
from labeling_assets.products.records import RawProduct

_COLUMNS = [
    dg.TableColumn(name, kind, RawProduct.model_fields[name].description) for name, kind in SOURCE_COLUMNS.items()
]

product_marketing_summary = dg.AssetSpec(
    columns.SOURCE_NAME,
    group_name="products",
    owners=["team:data-platform"],
    kinds={"postgres"},
    partitions_def=partitions.product_days,
    description=(
        "Marketing numbers of every product with its image, a row per product and publication. Only read.\n\n"
        "Each new state of a day that `changed_products_sensor` sees is an observation: they are listed under Events. "
        "The table is never materialized here, so all its partitions are shown as missing."
    ),
    metadata={
        "dagster/table_name": columns.SETTINGS.source_table,
        "dagster/column_schema": dg.TableSchema(_COLUMNS),
    },
)
