"""The Milvus collection as one Parquet file: a column for each field, vectors as fixed-size lists of float32.

The file is written and read page by page. JSON is kept as its text. Indexes are not copied: they are built anew as the
settings say.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from labeling_assets.errors import ConfigurationError, EmbedderMismatchError, ServiceUnavailableError
from labeling_assets.products.vectors import vector_matrix
from labeling_assets.services.backup.folder import CollectionEntry, NewBackup, Report
from labeling_assets.services.embedding import EmbedderIdentity
from labeling_assets.services.milvus import MilvusStore
from labeling_assets.services.milvus.rows import WHOLE_ROWS, Record
from labeling_assets.services.milvus.schema import SCHEMA_VERSION, VECTOR_FIELDS, collection_schema

PATH = "milvus/products.parquet"


def dump_collection(store: MilvusStore, name: str, backup: NewBackup, report: Report) -> CollectionEntry:
    """Write every row with its vectors, while no one else writes to the collection.

    Args:
        store: The collection; made where there is none yet.
        name: Its configured name.
        backup: Where to write.
        report: Told how the work goes on.

    Raises:
        EmbedderMismatchError: It holds vectors of another embedder, dimension or schema than the settings say.
        ServiceUnavailableError: Milvus does not answer.
        SupersededError: Another writer has taken over while rows were read.
    """
    schema = _arrow_schema(store.identity.dimension)
    with (
        store.exclusive_rows() as (stored, guard),
        backup.create(PATH) as file,
        # A dictionary of vectors, of which each is one of its kind, is half as large again as they are.
        pq.ParquetWriter(file, schema, compression="zstd", use_dictionary=False) as writer,
    ):
        state = store.state()
        rows = 0
        for page in stored.whole(schema.names):
            writer.write_table(_table(page, schema))
            rows += len(page)
            report(f"Milvus: {rows} of {state.rows} products")
        guard()
        if rows != state.rows:
            raise ServiceUnavailableError(f"Milvus gave {rows} of {state.rows} products.", "Is somebody writing to it?")
    report(f"Milvus: {rows} products", is_done=True)
    return CollectionEntry(
        name=name,
        embedder=state.embedder,
        dimension=state.dimension,
        schema_version=state.schema_version,
        indexes=state.indexes,
        server=state.server,
        rows=rows,
        path=PATH,
    )


def refuse_other_vectors(identity: EmbedderIdentity, entry: CollectionEntry) -> None:
    """Make sure that the vectors of a backup are of the embedder and the schema in use.

    Raises:
        EmbedderMismatchError: They are not.
        ConfigurationError: The collection of this release has other fields.
    """
    if entry.embedder != identity.key:
        raise EmbedderMismatchError(
            f"The backup holds vectors of {entry.embedder}, but {identity.key} is in use.",
            "Set LABELING_EMBEDDER as it was when the backup was taken.",
        )
    if entry.schema_version != SCHEMA_VERSION:
        raise ConfigurationError(
            f"The backup holds a collection of schema {entry.schema_version}, but this release has {SCHEMA_VERSION}.",
            "Restore with the release that made the backup, then upgrade.",
        )


def load_collection(store: MilvusStore, entry: CollectionEntry, folder: Path, report: Report) -> None:
    """Write the rows of a backup; what an interrupted restore has written is written again.

    Raises:
        ServiceUnavailableError: Milvus does not answer, or does not hold what was written.
        SupersededError: Another writer has taken over.
    """
    schema = _arrow_schema(entry.dimension)
    done = 0
    with store.exclusive_rows() as (stored, guard), pq.ParquetFile(folder / entry.path) as file:
        for page in _pages(file, schema):
            guard()
            stored.upsert(page)
            done += len(page)
            report(f"Milvus: {done} of {entry.rows} products")
        guard()
        stored.flush()
    held = store.state().rows
    if held != entry.rows:
        raise ServiceUnavailableError(
            f"Milvus holds {held} products after the restore of {entry.rows}.", "Is somebody writing to it?"
        )
    report(f"Milvus: {entry.rows} products", is_done=True)


def _arrow_schema(dimension: int) -> pa.Schema:
    from pymilvus import DataType

    types = {
        DataType.VARCHAR: pa.string(),
        DataType.INT64: pa.int64(),
        DataType.DOUBLE: pa.float64(),
        DataType.BOOL: pa.bool_(),
        DataType.ARRAY: pa.list_(pa.string()),
        DataType.FLOAT_VECTOR: pa.list_(pa.float32(), dimension),
        DataType.JSON: pa.string(),
    }
    json_fields = [field.name for field in collection_schema(dimension).fields if field.dtype == DataType.JSON]
    fields = [pa.field(field.name, types[field.dtype]) for field in collection_schema(dimension).fields]
    return pa.schema(fields, metadata={"json": ",".join(json_fields)})


def _json_fields(schema: pa.Schema) -> set[str]:
    return set(schema.metadata[b"json"].decode().split(","))


def _table(page: Sequence[Record], schema: pa.Schema) -> pa.Table:
    columns: list[pa.Array[Any]] = []
    for field in schema:
        values = [row[field.name] for row in page]
        if field.name in VECTOR_FIELDS:
            numbers = np.asarray(values, dtype=np.float32).reshape(-1)
            columns.append(pa.FixedSizeListArray.from_arrays(pa.array(numbers), field.type.list_size))
        elif field.name in _json_fields(schema):
            columns.append(pa.array([json.dumps(value, ensure_ascii=False) for value in values]))
        elif pa.types.is_list(field.type):
            columns.append(pa.array([list(value) for value in values], field.type))
        else:
            columns.append(pa.array(values, field.type))
    return pa.table(columns, schema=schema)


def _pages(file: pq.ParquetFile, schema: pa.Schema) -> Iterator[list[dict[str, Any]]]:
    scalars = [name for name in schema.names if name not in VECTOR_FIELDS]
    for batch in file.iter_batches(WHOLE_ROWS):
        rows = batch.select(scalars).to_pylist()
        for name in _json_fields(schema):
            for row in rows:
                row[name] = json.loads(row[name])
        for name in VECTOR_FIELDS:
            for row, vector in zip(rows, vector_matrix(batch, name), strict=True):
                row[name] = vector
        yield rows
