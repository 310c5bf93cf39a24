"""Search by text with filters, on a real Milvus Lite."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator

import pytest
from milvus_samples import record, store_of

from labeling_assets.errors import ConfigurationError, EmbedderMismatchError
from labeling_assets.products.records import LABEL_FIELDS
from labeling_assets.products.vectors import DESCRIPTION_VECTOR, IMAGE_VECTOR
from labeling_assets.services.embedding.embedded import EmbeddedEmbedder
from labeling_assets.services.milvus import MilvusStore
from labeling_assets.services.product_search import ProductFilters, search_products

EMBEDDER = EmbeddedEmbedder()
DAYS = [dt.date(2026, 3, day) for day in (1, 2, 3)]
ODD = 'say "hi"\\\n] or 1 == 1'
PRODUCTS = {
    "mug": (
        "Ceramic mug for the best dad ever",
        {"occasion": ["father's day"], "name_store": "Nhà Quà", "text": "BEST DAD"},
    ),
    "shirt": ("T-shirt for a cat lover grandma", {"occasion": ["birthday", "christmas"], "platform": "Shopify"}),
    "plaque": (
        "Plaque in memory of a beloved dog",
        {"occasion": [ODD], "trademark_level": "Slight TM", "name_store": ODD},
    ),
}


@pytest.fixture(scope="module")
def store(milvus_uri: str) -> Iterator[MilvusStore]:
    from pymilvus import MilvusClient

    store = store_of(milvus_uri, identity=EMBEDDER.identity)
    for day, (id_, (description, changes)) in zip(DAYS, PRODUCTS.items(), strict=True):
        row = record(id_, day, description=description, embedder=EMBEDDER.identity.key, **changes)
        row |= {name: EMBEDDER.embed_query(description) for name in (IMAGE_VECTOR, DESCRIPTION_VECTOR)}
        store.sync_day(day, [[row]], find_elsewhere=lambda _: [])
    yield store
    client = MilvusClient(milvus_uri)
    client.drop_collection(store.state().physical_name)
    client.close()
    store.close()


def found(store: MilvusStore, filters: ProductFilters) -> set[str]:
    return {hit.id_sanpham for hit in search_products(store, EMBEDDER, "a present", 10, filters)}


@pytest.mark.parametrize(
    ("text", "nearest"),
    [("best dad ever mug", "mug"), ("cat lover grandma", "shirt"), ("in memory of my dog", "plaque")],
)
def test_the_product_that_is_described_comes_first(store: MilvusStore, text: str, nearest: str) -> None:
    hits = search_products(store, EMBEDDER, text, 3)
    assert hits[0].id_sanpham == nearest
    assert len(hits) == 3


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        (ProductFilters(), {"mug", "shirt", "plaque"}),
        (ProductFilters(labels={"occasion": ["birthday"]}), {"shirt"}),
        (ProductFilters(labels={"occasion": ["christmas", "father's day"]}), {"mug", "shirt"}),
        (ProductFilters(labels={"occasion": [ODD]}), {"plaque"}),
        (ProductFilters(labels={"occasion": ["birth"]}), set()),
        (ProductFilters(labels={"occasion": []}), {"mug", "shirt", "plaque"}),
        (ProductFilters(labels={"trademark_level": ["Slight TM", "Direct TM"]}), {"plaque"}),
        (ProductFilters(labels={"text": ["BEST DAD"], "occasion": ["father's day"]}), {"mug"}),
        (ProductFilters(stores=[ODD]), {"plaque"}),
        (ProductFilters(stores=["Nhà Quà", ODD]), {"mug", "plaque"}),
        (ProductFilters(platforms=["Shopify"]), {"shirt"}),
        (ProductFilters(first_day=DAYS[1]), {"shirt", "plaque"}),
        (ProductFilters(last_day=DAYS[1]), {"mug", "shirt"}),
        (ProductFilters(first_day=DAYS[1], last_day=DAYS[1]), {"shirt"}),
        (ProductFilters(labels={"occasion": ["birthday"]}, stores=["Nhà Quà"]), set()),
    ],
)
def test_filters_leave_what_fits(store: MilvusStore, filters: ProductFilters, expected: set[str]) -> None:
    assert found(store, filters) == expected


@pytest.mark.parametrize("field", LABEL_FIELDS)
def test_every_label_field_can_be_filtered(store: MilvusStore, field: str) -> None:
    assert found(store, ProductFilters(labels={field: ["there is no such value"]})) == set()


def test_a_label_field_that_does_not_exist_is_refused_with_those_that_do(store: MilvusStore) -> None:
    with pytest.raises(ConfigurationError, match="occasion") as caught:
        search_products(store, EMBEDDER, "x", 3, ProductFilters(labels={'x") or 1==1 //': ["a"]}))
    assert "no label field" in caught.value.message


@pytest.mark.parametrize("text", ["", "  ", "\n\t"])
def test_an_empty_search_text_is_refused(store: MilvusStore, text: str) -> None:
    with pytest.raises(ConfigurationError, match="search text is empty"):
        search_products(store, EMBEDDER, text, 3)


def test_a_collection_of_another_embedder_is_not_searched(milvus_uri: str, store: MilvusStore) -> None:
    other = store_of(milvus_uri)
    other.ensure()
    with pytest.raises(EmbedderMismatchError, match="test@r1"):
        search_products(other, EMBEDDER, "mug", 3)
    other.close()


def test_a_search_before_anything_was_indexed_says_what_to_do(milvus_uri: str) -> None:
    nothing = store_of(milvus_uri, identity=EMBEDDER.identity)
    with pytest.raises(ConfigurationError, match="labeling run"):
        search_products(nothing, EMBEDDER, "mug", 3)
    nothing.close()
