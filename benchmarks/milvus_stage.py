"""The Milvus stage against a bare `MilvusClient.upsert` in batches of 500 with one flush.

Ours is what the asset `milvus_collection` does with a day of new products: rows of the collection are made from the
Arrow table, compared with what Milvus holds, upserted and flushed. The baseline upserts the same rows, ready made, into
a collection of the same schema. Each round begins with empty collections.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import gc
import itertools
import time
import uuid
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.measure import milvus_uri, print_result, rounds_in_turn
from labeling_assets.products.records import LABEL_LISTS, EmbeddedProduct, to_table
from labeling_assets.products.vectors import milvus_records, record_hash, with_vectors
from labeling_assets.services.embedding import EmbedderIdentity
from labeling_assets.services.milvus import MilvusStore

ROWS = 5_000
BATCH_ROWS = 500
ROUNDS = 5
GOAL = 0.8
DAY = dt.date(2026, 3, 2)
IDENTITY = EmbedderIdentity("benchmark", "1", "1", dimension=1024)


def embedded_product(number: int) -> EmbeddedProduct:
    """A product with labels and texts of usual length."""
    values: dict[str, Any] = {name: ["first of two labels", "second label"] for name in LABEL_LISTS}
    samples: dict[Any, Any] = {str: "a text of usual length", int: 1, float: 1.5, bool: True}
    for name, info in EmbeddedProduct.model_fields.items():
        values.setdefault(name, samples.get(info.annotation))
    values |= {
        "id_sanpham": f"SP_{number:08d}",
        "published_at": dt.datetime.combine(DAY, dt.time(12), dt.UTC),
        "date": DAY,
        "status": "new",
        "trademark_level": "No TM",
        "title": f"Mug number {number}",
        "image": f"https://images.example/{number}.jpg",
        "description": "Mô tả sản phẩm. " * 60,
        "image_sha256": f"{number:064x}",
        "row_hash": f"{number:064x}",
        "embedder": IDENTITY.key,
    }
    row = EmbeddedProduct(**values)
    return row.model_copy(update={"record_hash": record_hash(row, IDENTITY.key, has_image_vector=True)})


def day_of_products() -> pa.Table:
    """The table of `clip_vectors` for a day of new products."""
    vectors = np.random.default_rng(7).standard_normal((2, ROWS, IDENTITY.dimension)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=2, keepdims=True)
    return with_vectors(to_table(map(embedded_product, range(ROWS)), EmbeddedProduct), *vectors)


@contextlib.contextmanager
def empty_store(uri: str) -> Iterator[MilvusStore]:
    """A store on an empty collection, which is dropped at the end."""
    from pymilvus import MilvusClient

    store = MilvusStore(
        uri, "", f"bench_{uuid.uuid4().hex}", "auto", IDENTITY, lambda: contextlib.nullcontext(lambda: None)
    )
    store.ensure()
    state = store.state()
    yield store
    store.close()
    client = MilvusClient(uri)
    client.drop_alias(state.alias)
    client.drop_collection(state.physical_name)
    client.close()


def stage_rate(uri: str, table: pa.Table) -> float:
    """Rows a second of the Milvus stage."""
    with empty_store(uri) as store:
        started = time.perf_counter()
        result = store.sync_day(DAY, milvus_records(table), find_elsewhere=lambda _: [])
        seconds = time.perf_counter() - started
        assert result.new == store.state().rows == ROWS
        return ROWS / seconds


def bare_rate(uri: str, records: list[dict[str, Any]]) -> float:
    """Rows a second of upserts alone."""
    from pymilvus import MilvusClient

    with empty_store(uri) as store:
        name = store.state().physical_name
        client = MilvusClient(uri)
        started = time.perf_counter()
        for start in range(0, ROWS, BATCH_ROWS):
            client.upsert(name, records[start : start + BATCH_ROWS])
        client.flush(name)
        seconds = time.perf_counter() - started
        client.close()
        assert store.state().rows == ROWS
        return ROWS / seconds


def main() -> None:
    """Measure and print."""
    table = day_of_products()
    records = list(itertools.chain.from_iterable(milvus_records(table)))
    gc.freeze()  # else the baseline's prepared rows are looked through whenever ours collects garbage
    with milvus_uri() as uri:
        pairs = rounds_in_turn(lambda _: stage_rate(uri, table), lambda _: bare_rate(uri, records), ROUNDS)
    print_result("milvus_stage", [ours / baseline for ours, baseline in pairs], GOAL)


if __name__ == "__main__":
    main()
