"""The last record of a product: its two vectors as Arrow columns, its hash, and its form in Milvus.

Vectors are Arrow fixed-size lists of float32 from the embedder to Milvus and never Python lists, which take ten times
the memory. The limits below are those of the collection's fields, in bytes of UTF-8 as a Milvus server counts them; the
stage that reads the source refuses rows over them, and `record_hash` refuses what later stages add. The collection
itself is in `services/milvus/schema.py`.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from labeling_assets.errors import InvalidRowError, VectorError
from labeling_assets.products.description import EMBEDDING_TEXT_VERSION
from labeling_assets.products.records import LABEL_FIELDS, LABEL_LISTS, EmbeddedProduct, LabeledProduct

FloatArray = npt.NDArray[np.float32]

IMAGE_VECTOR: Final = "image_vector"
DESCRIPTION_VECTOR: Final = "description_vector"

MAX_ID_BYTES = 512
MAX_TITLE_BYTES = 8_192
MAX_TEXT_BYTES = 65_535
"""Longest VARCHAR of Milvus (milvus.io/docs/limitations.md)."""
MAX_JSON_BYTES = 65_536
"""Longest JSON value of Milvus (milvus.io/docs/limitations.md)."""
MAX_LIST_ITEMS = 64
MAX_ITEM_BYTES = 1_024

_LIMITS_BYTES = {
    "id_sanpham": MAX_ID_BYTES,
    "title": MAX_TITLE_BYTES,
    "platform": MAX_TITLE_BYTES,
    "name_store": MAX_TITLE_BYTES,
}
_METADATA = (
    "product_id",
    "title",
    "store",
    "gp_code",
    "spend",
    "clicks",
    "unique_clicks",
    "unique_atc",
    "impression",
    "reach",
    "quantity",
    "is_engagement_estimated",
    "image_size_bytes",
    "image_width_px",
    "image_height_px",
    "image_format",
    "image_phash",
    "image_path",
    "label_model",
    "label_digest",
    "prompt_version",
    "schema_version",
    "parse_step",
    "embedder",
)
_SAME_NAMED = (
    "id_sanpham",
    "image",
    "description",
    "like",
    "comment",
    "share",
    "link_redirect",
    "platform",
    "name_store",
    "title",
    "impression",
    "spend",
    "quantity",
    "image_sha256",
    "has_image_vector",
    "row_hash",
    *LABEL_FIELDS,
)
_COLUMNS = list(dict.fromkeys([*_SAME_NAMED, *_METADATA, "date", "published_at", "record_hash"]))
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_UNIT_LENGTH_TOLERANCE = 1e-3


def with_vectors(table: pa.Table, image_vectors: FloatArray, description_vectors: FloatArray) -> pa.Table:
    """The table of `EmbeddedProduct` rows with its two vector columns appended.

    Args:
        table: Rows with the columns of `EmbeddedProduct`.
        image_vectors: float32, shape (rows, dimension), unit length. Where `has_image_vector` is false a fixed unit
            vector takes the place of the row: Milvus takes no null, and a zero vector has no direction.
        description_vectors: float32, shape (rows, dimension), unit length.

    Raises:
        VectorError: A vector is not finite or not of unit length; the message names the first product concerned.
    """
    has_image = table["has_image_vector"].to_numpy()
    if not has_image.all():
        image_vectors = np.where(has_image[:, np.newaxis], image_vectors, _placeholder(image_vectors.shape[1]))
    for name, vectors in ((IMAGE_VECTOR, image_vectors), (DESCRIPTION_VECTOR, description_vectors)):
        refuse_unusable(vectors, table["id_sanpham"].to_pylist())
        values = pa.array(np.ascontiguousarray(vectors, dtype=np.float32).reshape(-1))
        column = pa.FixedSizeListArray.from_arrays(values, vectors.shape[1])
        table = table.append_column(pa.field(name, column.type, nullable=False), column)
    return table


def vector_matrix(table: pa.Table | pa.RecordBatch, column: str) -> FloatArray:
    """A vector column as float32 array of shape (rows, dimension); a view of the table where it has one chunk."""
    array: Any = table.column(column)
    if isinstance(array, pa.ChunkedArray):
        array = array.chunk(0) if array.num_chunks == 1 else array.combine_chunks()
    vectors: FloatArray = array.flatten().to_numpy().reshape(len(array), array.type.list_size)
    return vectors


def refuse_unusable(vectors: FloatArray, ids: Sequence[str | None]) -> None:
    """Refuse vectors that Milvus Lite would store and never find.

    Args:
        vectors: float32, shape (n, dimension).
        ids: The products that they belong to, for the message.

    Raises:
        VectorError: A vector is not finite or not of unit length.
    """
    lengths = np.linalg.norm(vectors, axis=1)
    wrong = ~(np.abs(lengths - 1) <= _UNIT_LENGTH_TOLERANCE)
    if wrong.any():
        position = int(np.argmax(wrong))
        raise VectorError(f"The vector of {ids[position]!r} has length {lengths[position]}, not 1.")


def record_hash(row: LabeledProduct, embedder: str, *, has_image_vector: bool) -> str:
    """sha256 over everything that Milvus stores of the product, hex.

    The vectors take part by what they are made of: the image's sha256, title and label with the version of the text
    made of them, and the embedder. Two runs that differ only in time, cost or cache hits give the same hash.

    Args:
        row: The labeled product.
        embedder: `EmbedderIdentity.key` of its vectors.
        has_image_vector: Whether it has an image vector.

    Raises:
        InvalidRowError: A value is over the limits of the collection, or no valid Unicode.
    """
    stored = _stored_values(vars(row) | {"embedder": embedder, "has_image_vector": has_image_vector})
    canonical = _canonical(stored | {"embedding_text": EMBEDDING_TEXT_VERSION})
    _refuse_oversized(stored)
    return hashlib.sha256(canonical).hexdigest()


def milvus_record(row: EmbeddedProduct, image_vector: FloatArray, description_vector: FloatArray) -> dict[str, Any]:
    """The product as a row of the Milvus collection.

    Args:
        row: The product.
        image_vector: float32, shape (dimension,).
        description_vector: float32, shape (dimension,).
    """
    return _record(vars(row), image_vector, description_vector)


def milvus_records(table: pa.Table) -> Iterator[list[dict[str, Any]]]:
    """The rows of a table made by `with_vectors` as rows of the collection, in batches of at most 500.

    Raises:
        VectorError: A vector is not finite or not of unit length.
    """
    for batch in table.to_batches(max_chunksize=500):
        images, descriptions = vector_matrix(batch, IMAGE_VECTOR), vector_matrix(batch, DESCRIPTION_VECTOR)
        ids = batch.column("id_sanpham").to_pylist()
        refuse_unusable(images, ids)
        refuse_unusable(descriptions, ids)
        rows = batch.select(_COLUMNS).to_pylist()
        yield [_record(*item) for item in zip(rows, images, descriptions, strict=True)]


def _placeholder(dimension: int) -> FloatArray:
    vector = np.zeros(dimension, dtype=np.float32)
    vector[0] = 1
    return vector


def _record(row: Mapping[str, Any], image_vector: FloatArray, description_vector: FloatArray) -> dict[str, Any]:
    vectors = {IMAGE_VECTOR: image_vector, DESCRIPTION_VECTOR: description_vector}
    return _stored_values(row) | {"record_hash": row["record_hash"]} | vectors


def _stored_values(row: Mapping[str, Any]) -> dict[str, Any]:
    """The scalar fields of the collection, but `record_hash`."""
    published_at: dt.datetime = row["published_at"]
    metadata = {name: row[name] for name in _METADATA}
    return {name: row[name] for name in _SAME_NAMED} | {
        "date": row["date"].isoformat(),
        "published_at": (published_at - _EPOCH) // dt.timedelta(milliseconds=1),
        "metadata": metadata | {"published_at": published_at.astimezone(dt.UTC).isoformat()},
    }


def _canonical(value: object) -> bytes:
    try:
        return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError as error:
        raise InvalidRowError("A text of the product is no valid Unicode.", "Correct it in the source.") from error


def _refuse_oversized(record: Mapping[str, Any]) -> None:
    sizes = [(name, _text_bytes(value), _LIMITS_BYTES.get(name, MAX_TEXT_BYTES)) for name, value in record.items()]
    sizes += [
        (f"an item of {name}", _text_bytes(item), MAX_ITEM_BYTES) for name in LABEL_LISTS for item in record[name]
    ]
    sizes.append(("metadata", len(_canonical(record["metadata"])), MAX_JSON_BYTES))
    for name, size, limit in sizes:
        if size > limit:
            raise InvalidRowError(f"{name} has {size} bytes; the limit is {limit}.", "Shorten it in the source.")
    for name in LABEL_LISTS:
        if len(record[name]) > MAX_LIST_ITEMS:
            raise InvalidRowError(f"{name} has {len(record[name])} items; the limit is {MAX_LIST_ITEMS}.")


def _text_bytes(value: object) -> int:
    return len(value.encode()) if isinstance(value, str) else 0
