"""The contract of the vector store, on Milvus Lite and, where LABELING_TEST_MILVUS_URI is set, on a Milvus server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from milvus_samples import (
    DIMENSION,
    IDENTITY,
    MONDAY,
    NASTY_IDS,
    SERVERS,
    nowhere,
    product,
    record,
    store_of,
    sync,
    temporary_store,
    uri_of,
    vector,
)

from labeling_assets.errors import ConfigurationError, EmbedderMismatchError
from labeling_assets.services.embedding import EmbedderIdentity
from labeling_assets.services.milvus import MilvusStore


@pytest.fixture(scope="module", params=SERVERS)
def uri(request: pytest.FixtureRequest) -> str:
    return uri_of(request.param, request)


@pytest.fixture
def store(uri: str) -> Iterator[MilvusStore]:
    with temporary_store(uri) as store:
        yield store


def test_ids_of_any_characters_pass_in_and_out_unharmed(store: MilvusStore) -> None:
    result = sync(store, [record(id_) for id_ in NASTY_IDS])
    assert result.inserted_ids == NASTY_IDS
    assert set(store.existing(NASTY_IDS)) == set(NASTY_IDS)
    for id_ in NASTY_IDS:
        hit = store.get(id_)
        assert hit is not None
        assert (hit.id_sanpham, hit.metadata["product_id"]) == (id_, id_)
    kept = NASTY_IDS[::2]
    assert sync(store, [record(id_) for id_ in kept]).removed_ids == sorted(set(NASTY_IDS) - set(kept))
    assert set(store.existing(NASTY_IDS)) == set(kept)


def test_an_id_that_looks_like_a_filter_finds_nothing_else(store: MilvusStore) -> None:
    sync(store, [record("P1"), record("P2")])
    assert store.existing(['"] or id_sanpham != "', 'P1" or "" == "', "P%"]) == {}
    assert store.get('P1" or "" == "') is None


def test_every_field_comes_back_as_it_went_in(store: MilvusStore) -> None:
    row = product("P1", title=None, spend=None, text='BEST "DAD"\nEVER', occasion=[])
    sync(store, [record("P1", title=None, spend=None, text='BEST "DAD"\nEVER', occasion=[])])
    hit = store.get("P1")
    assert hit is not None
    assert hit.score is None
    assert (hit.title, hit.image, hit.description, hit.date) == (None, row.image, row.description, MONDAY)
    assert (hit.like, hit.comment, hit.share, hit.has_image_vector) == (1, 2, 3, True)
    assert hit.labels["text"] == 'BEST "DAD"\nEVER'
    assert hit.labels["occasion"] == []
    assert hit.labels["product_type"] == ["dad", "grandpa"]
    assert hit.metadata["spend"] is None
    assert hit.metadata["published_at"] == "2026-03-02T12:30:15.250000+00:00"
    assert hit.metadata["embedder"] == IDENTITY.key


def test_search_finds_the_nearest_first(store: MilvusStore) -> None:
    sync(store, [record(f"P{number}") for number in range(30)])
    hits = store.search(vector("Mô tả của P7"), "description_vector", 5, consistency="Strong")
    assert len(hits) == 5
    assert hits[0].id_sanpham == "P7"
    assert hits[0].score == pytest.approx(1, abs=1e-5)
    scores = [hit.score or 0 for hit in hits]
    assert scores == sorted(scores, reverse=True)


def test_image_search_leaves_out_products_without_image_vector(store: MilvusStore) -> None:
    sync(store, [record("P1"), record("P2", has_image_vector=False)])
    query = np.eye(DIMENSION, dtype=np.float32)[0]
    by_image = store.search(query, "image_vector", 10, consistency="Strong")
    assert [hit.id_sanpham for hit in by_image] == ["P1"]
    by_text = store.search(query, "description_vector", 10, consistency="Strong")
    assert {hit.id_sanpham for hit in by_text} == {"P1", "P2"}


@pytest.mark.parametrize("limit", [0, -1, 16_385])
def test_a_search_for_too_few_or_too_many_is_refused(store: MilvusStore, limit: int) -> None:
    with pytest.raises(ConfigurationError, match="1 to 16384"):
        store.search(vector("x"), "image_vector", limit)


@pytest.mark.parametrize("index", ["FLAT", "IVF_FLAT", "HNSW"])
def test_every_index_type_builds_and_searches(uri: str, index: str) -> None:
    with temporary_store(uri, index=index) as store:
        sync(store, [record(f"P{number}") for number in range(50)])
        assert set(store.state().indexes.values()) == {index}
        hits = store.search(vector("Mô tả của P7"), "description_vector", 50, consistency="Strong")
        assert hits[0].id_sanpham == "P7"


def test_an_unknown_index_type_is_refused(uri: str) -> None:
    with pytest.raises(ConfigurationError, match="DISKANN"):
        store_of(uri, index="DISKANN")


def embedder(**changes: Any) -> EmbedderIdentity:
    values = {"name": "test", "revision": "r1", "preprocessing_version": "p1", "dimension": DIMENSION}
    return EmbedderIdentity(**values | changes)


@pytest.mark.parametrize(
    "changes", [{"name": "x"}, {"revision": "r2"}, {"preprocessing_version": "p2"}, {"dimension": 4}]
)
def test_another_embedder_is_refused(uri: str, store: MilvusStore, changes: dict[str, Any]) -> None:
    other = store_of(uri, store.state().physical_name, embedder(**changes))
    uses: list[Callable[[], object]] = [
        other.ensure,
        lambda: other.existing(["P1"]),
        lambda: other.sync_day(MONDAY, [], find_elsewhere=nowhere),
        lambda: other.check_embedder(embedder(**changes)),
    ]
    for use in uses:
        with pytest.raises(EmbedderMismatchError, match="LABELING_MILVUS_COLLECTION"):
            use()
    other.close()
