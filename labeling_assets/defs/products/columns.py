"""Columns of each asset and where each comes from, as static metadata of the definitions.

A stage passes on the columns of the stage before and adds its own; what a new column is made from is told here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import dagster as dg
from pydantic import BaseModel

from labeling_assets.metadata import column_lineage, plain_schema, table_schema
from labeling_assets.products.description import EMBEDDED_FIELDS
from labeling_assets.products.queries import SOURCE_COLUMNS
from labeling_assets.products.records import (
    LABEL_FIELDS,
    DedupedProduct,
    EmbeddedProduct,
    ImagedProduct,
    LabeledProduct,
    RawProduct,
)
from labeling_assets.products.vectors import DESCRIPTION_VECTOR, IMAGE_VECTOR
from labeling_assets.settings import Settings

SETTINGS = Settings.load()
SOURCE_NAME = SETTINGS.source_table.split(".")[-1]
VECTOR_COLUMNS = {
    IMAGE_VECTOR: ("fixed_size_list<float>", "Vector of the image, length one."),
    DESCRIPTION_VECTOR: ("fixed_size_list<float>", "Vector of the description, length one."),
}
SYNC_COLUMNS = {
    "id_sanpham": ("string", "Key of the product."),
    "action": ("string", "new, updated, removed, or restored from another day."),
}
DATA_LABEL_COLUMNS = {
    "id_sanpham": ("text", "Key of the product."),
    "description": ("text", "Markdown description."),
    "date_created": ("date", "Business day of the product."),
    "platform": ("text", "Platform."),
    "name_store": ("text", "Store."),
    "created_at": ("timestamptz", "When the row was first written."),
    "updated_at": ("timestamptz", "When the row last changed."),
}


def _columns(schema: dg.TableSchema, upstream: str, known: Iterable[str], derived: Mapping[str, Sequence[str]]) -> Any:  # noqa: ANN401 - what Dagster takes
    names = [column.name for column in schema.columns]
    return {
        "dagster/column_schema": schema,
        "dagster/column_lineage": column_lineage(names, upstream, known, derived),
    }


def _added(model: type[BaseModel], before: type[BaseModel]) -> set[str]:
    return model.model_fields.keys() - before.model_fields.keys()


COLUMNS: dict[str, dict[str, Any]] = {
    "raw_products": _columns(
        table_schema(RawProduct),
        SOURCE_NAME,
        SOURCE_COLUMNS,
        {
            "id_sanpham": ["product_id", "image", "link", "title", "store"],
            "date": ["published_at"],
            "platform": ["gp_code"],
            "name_store": ["store"],
            "link_redirect": ["link"],
            **{name: ["impression", "product_id"] for name in ("like", "comment", "share")},
        },
    ),
    "deduped_products": _columns(
        table_schema(DedupedProduct),
        "raw_products",
        RawProduct.model_fields,
        {"status": ["id_sanpham", "row_hash", "date"], "duplicate_count": ["id_sanpham"]},
    ),
    "product_images": _columns(
        table_schema(ImagedProduct),
        "deduped_products",
        DedupedProduct.model_fields,
        {name: ["image"] for name in _added(ImagedProduct, DedupedProduct)},
    ),
    "qwen_labels": _columns(
        table_schema(LabeledProduct),
        "product_images",
        ImagedProduct.model_fields,
        {name: ["image_sha256"] for name in LABEL_FIELDS}
        | {"label_shared_from": ["image_sha256", "image_phash"]}
        | {"description": ["image_sha256", "id_sanpham", "title", "name_store", "platform"]},
    ),
    "clip_vectors": _columns(
        table_schema(EmbeddedProduct, VECTOR_COLUMNS),
        "qwen_labels",
        LabeledProduct.model_fields,
        {IMAGE_VECTOR: ["image_sha256"], DESCRIPTION_VECTOR: ["title", *EMBEDDED_FIELDS], "record_hash": ["row_hash"]},
    ),
    "milvus_collection": _columns(
        plain_schema(SYNC_COLUMNS), "clip_vectors", ["id_sanpham"], {"action": ["record_hash", "date"]}
    )
    | {"dagster/table_name": SETTINGS.milvus_collection},
    "data_label": _columns(
        plain_schema(DATA_LABEL_COLUMNS), "qwen_labels", LabeledProduct.model_fields, {"date_created": ["date"]}
    )
    | {"dagster/table_name": "ai_craw.data_label"},
}
