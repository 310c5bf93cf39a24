"""Sample products for the tests of everything that meets Milvus."""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import os
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import pytest

from labeling_assets.products.records import LABEL_LISTS, EmbeddedProduct
from labeling_assets.products.vectors import milvus_record, record_hash
from labeling_assets.services.embedding import EmbedderIdentity
from labeling_assets.services.milvus import MilvusStore, SyncResult

SERVERS = ("lite", "server")
DIMENSION = 8
IDENTITY = EmbedderIdentity("test", "r1", "p1", DIMENSION)
NASTY_IDS = [
    "SP_1a2b3c4d",
    'with "quotes"',
    "it's",
    "back\\slash",
    "back\\",
    "new\nline\r\ttab",
    '"] or id_sanpham != "',
    "{ids} %s $meta",
    "\x01\x7f\u2028",
    "Cốc sứ 😀",
    " ",
    "a" * 512,
]
MONDAY, TUESDAY = dt.date(2026, 3, 2), dt.date(2026, 3, 3)


def vector(seed: str) -> np.ndarray:
    """A unit vector that depends on the text alone."""
    numbers = np.frombuffer(hashlib.sha256(seed.encode()).digest(), dtype="<u4").astype(np.float32) / 2**32 - 0.5
    return (numbers / np.linalg.norm(numbers)).astype(np.float32)


def product(id_sanpham: str = "P1", day: dt.date = MONDAY, **changes: Any) -> EmbeddedProduct:
    """A product with every field filled; `changes` replaces some."""
    values: dict[str, Any] = {name: ["dad", "grandpa"] for name in LABEL_LISTS} | {
        "product_id": id_sanpham,
        "image": f"http://127.0.0.1/{id_sanpham}.jpg",
        "published_at": dt.datetime.combine(day, dt.time(12, 30, 15, 250_000), dt.UTC),
        "title": f"Cốc của {id_sanpham}",
        "store": "Store",
        "gp_code": None,
        "link": None,
        "spend": 1.5,
        "clicks": 3,
        "unique_clicks": None,
        "unique_atc": None,
        "impression": None,
        "reach": None,
        "quantity": 2,
        "id_sanpham": id_sanpham,
        "date": day,
        "platform": "Website",
        "name_store": "Store",
        "link_redirect": "",
        "like": 1,
        "comment": 2,
        "share": 3,
        "is_engagement_estimated": True,
        "row_hash": hashlib.sha256(id_sanpham.encode()).hexdigest(),
        "status": "new",
        "duplicate_count": 0,
        "image_sha256": hashlib.sha256(b"image" + id_sanpham.encode()).hexdigest(),
        "image_size_bytes": 1000,
        "image_width_px": 800,
        "image_height_px": 600,
        "image_format": "JPEG",
        "image_phash": "0" * 16,
        "model_image_size_bytes": 500,
        "model_image_width_px": 512,
        "model_image_height_px": 384,
        "image_path": "images/ab.jpg",
        "quarantine_reason": None,
        "trademark_level": "No TM",
        "main_subject": "a cat",
        "text": "BEST DAD",
        "description": f"Mô tả của {id_sanpham}",
        "label_model": "embedded",
        "label_digest": "d1",
        "prompt_version": "1",
        "schema_version": "1",
        "prompt_tokens": 0,
        "output_tokens": 0,
        "label_seconds": 0.1,
        "parse_step": "direct",
        "is_from_ledger": False,
        "embedder": IDENTITY.key,
        "has_image_vector": True,
        "record_hash": "",
    }
    row = EmbeddedProduct(**values | changes)
    return row.model_copy(update={"record_hash": record_hash(row, row.embedder, has_image_vector=row.has_image_vector)})


def record(id_sanpham: str = "P1", day: dt.date = MONDAY, **changes: Any) -> dict[str, Any]:
    """A product as a row of the collection."""
    row = product(id_sanpham, day, **changes)
    return milvus_record(row, vector(str(row.image_sha256)), vector(row.description))


def store_of(
    uri: str,
    collection: str = "",
    identity: EmbedderIdentity = IDENTITY,
    index: str = "auto",
    lock: AbstractContextManager[Any] | None = None,
) -> MilvusStore:
    """A store on a collection of its own, unless one is named."""
    only_one = lock or threading.Lock()
    name = collection or f"test_{uuid.uuid4().hex}"
    return MilvusStore(uri, "", name, index, identity, lambda: never_superseded(only_one))


@contextlib.contextmanager
def never_superseded(lock: AbstractContextManager[Any]) -> Iterator[Callable[[], None]]:
    """A writer lock whose holder nobody takes over."""
    with lock:
        yield lambda: None


def uri_of(server: str, request: pytest.FixtureRequest) -> str:
    """Address of Milvus Lite, or of the server of LABELING_TEST_MILVUS_URI, without which the test is skipped."""
    if server == "lite":
        return str(request.getfixturevalue("milvus_uri"))
    return os.environ.get("LABELING_TEST_MILVUS_URI") or pytest.skip("LABELING_TEST_MILVUS_URI is not set")


@contextlib.contextmanager
def temporary_store(uri: str, identity: EmbedderIdentity = IDENTITY, index: str = "auto") -> Iterator[MilvusStore]:
    """A store on an empty collection, which is dropped at the end."""
    from pymilvus import MilvusClient

    store = store_of(uri, identity=identity, index=index)
    store.ensure()
    name, alias = store.state().physical_name, store.state().alias
    yield store
    store.close()
    client = MilvusClient(uri)
    client.drop_alias(alias)
    client.drop_collection(name)
    client.close()


def nowhere(ids: Sequence[str]) -> list[dict[str, Any]]:
    """No other day has any of the products."""
    return []


def sync(store: MilvusStore, records: Sequence[dict[str, Any]], day: dt.date = MONDAY, **options: Any) -> SyncResult:
    """Synchronise one day with the records."""
    return store.sync_day(day, [records], **{"find_elsewhere": nowhere} | options)
