"""The product collection: its fields, indexes and properties.

Fields that people filter on are typed columns, because a filter on a key of a JSON field is fifty times slower on
Milvus Lite; `metadata` is for output only. There is no dynamic field: an upsert on Milvus Lite keeps old dynamic keys
that the new row does not have.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from labeling_assets.products.records import LABEL_LISTS
from labeling_assets.products.vectors import (
    DESCRIPTION_VECTOR,
    IMAGE_VECTOR,
    MAX_ID_BYTES,
    MAX_ITEM_BYTES,
    MAX_LIST_ITEMS,
    MAX_TEXT_BYTES,
    MAX_TITLE_BYTES,
)

if TYPE_CHECKING:
    from pymilvus import CollectionSchema

    from labeling_assets.services.embedding import EmbedderIdentity

SCHEMA_VERSION = "1"
"""Change it with any change of the fields: Milvus Lite cannot add one, so the collection is built anew then."""
PRIMARY_KEY = "id_sanpham"
VECTOR_FIELDS = (IMAGE_VECTOR, DESCRIPTION_VECTOR)
METRIC = "COSINE"

EMBEDDER_PROPERTY = "labeling.embedder"
DIMENSION_PROPERTY = "labeling.dimension"
SCHEMA_PROPERTY = "labeling.schema_version"
CREATOR_PROPERTY = "labeling.created_by"

MAX_NLIST = 1_024
HNSW_PARAMETERS = {"M": 16, "efConstruction": 200}
"""Neighbours and candidates of the HNSW graph, as Milvus's documentation suggests for mid-sized collections."""

_TEXT_BYTES = {
    "image": MAX_TEXT_BYTES,
    "description": MAX_TEXT_BYTES,
    "date": 10,
    "link_redirect": MAX_TEXT_BYTES,
    "platform": MAX_TITLE_BYTES,
    "name_store": MAX_TITLE_BYTES,
    "trademark_level": MAX_ITEM_BYTES,
    "main_subject": MAX_TEXT_BYTES,
    "text": MAX_TEXT_BYTES,
    "image_sha256": 64,
    "row_hash": 64,
    "record_hash": 64,
}


def collection_schema(dimension: int) -> CollectionSchema:
    """The fields of the collection, for vectors of `dimension` numbers."""
    from pymilvus import DataType, MilvusClient

    schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field(PRIMARY_KEY, DataType.VARCHAR, is_primary=True, max_length=MAX_ID_BYTES)
    for name in VECTOR_FIELDS:
        schema.add_field(name, DataType.FLOAT_VECTOR, dim=dimension)
    for name, max_bytes in _TEXT_BYTES.items():
        schema.add_field(name, DataType.VARCHAR, max_length=max_bytes)
    schema.add_field("title", DataType.VARCHAR, max_length=MAX_TITLE_BYTES, nullable=True)
    for name in LABEL_LISTS:
        schema.add_field(
            name,
            DataType.ARRAY,
            element_type=DataType.VARCHAR,
            max_capacity=MAX_LIST_ITEMS,
            max_length=MAX_ITEM_BYTES,
        )
    for name in ("like", "comment", "share", "published_at"):
        schema.add_field(name, DataType.INT64)
    for name in ("impression", "quantity"):
        schema.add_field(name, DataType.INT64, nullable=True)
    schema.add_field("spend", DataType.DOUBLE, nullable=True)
    schema.add_field("has_image_vector", DataType.BOOL)
    schema.add_field("metadata", DataType.JSON)
    return schema


def collection_properties(identity: EmbedderIdentity) -> dict[str, str]:
    """What the collection tells of its origin; compared before every write and search."""
    return {
        EMBEDDER_PROPERTY: identity.key,
        DIMENSION_PROPERTY: str(identity.dimension),
        SCHEMA_PROPERTY: SCHEMA_VERSION,
        CREATOR_PROPERTY: f"labeling-assets {version('labeling-assets')}",
    }


def index_parameters(index: str, dimension: int) -> dict[str, Any]:
    """Build parameters of an index type.

    Args:
        index: FLAT, IVF_FLAT or HNSW. Milvus Lite accepts any other name and fails later, in the background.
        dimension: Length of the vectors.
    """
    parameters: dict[str, dict[str, int]] = {
        "FLAT": {},
        "IVF_FLAT": {"nlist": min(dimension, MAX_NLIST)},
        "HNSW": HNSW_PARAMETERS,
    }
    return {"index_type": index, "metric_type": METRIC, "params": parameters[index]}


def search_parameters(index: str, dimension: int, limit: int) -> dict[str, Any]:
    """How thoroughly a search looks: an eighth of the lists of IVF_FLAT, twice the hits in the graph of HNSW."""
    parameters = {
        "IVF_FLAT": {"nprobe": max(1, min(dimension, MAX_NLIST) // 8)},
        "HNSW": {"ef": max(64, 2 * limit)},
    }
    return {"metric_type": METRIC, "params": parameters.get(index, {})}
