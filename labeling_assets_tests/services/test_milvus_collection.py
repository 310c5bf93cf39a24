"""The life of the collection: what a crash left undone is mended, and what is not ours is refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from milvus_samples import DIMENSION, IDENTITY, MONDAY, record, store_of

from labeling_assets.errors import ConfigurationError, EmbedderMismatchError
from labeling_assets.services.milvus import MilvusStore
from labeling_assets.services.milvus.schema import collection_properties, collection_schema


@pytest.fixture
def client(milvus_uri: str) -> Iterator[Any]:
    from pymilvus import MilvusClient

    client = MilvusClient(milvus_uri)
    before = set(client.list_collections())
    yield client
    for name in set(client.list_collections()) - before:
        client.drop_collection(name)
    client.close()


@pytest.fixture
def store(milvus_uri: str, client: Any) -> Iterator[MilvusStore]:
    store = store_of(milvus_uri, "repair")
    yield store
    store.close()


def fields_of_foreign_collection(client: Any) -> Any:
    from pymilvus import DataType

    schema = client.create_schema(enable_dynamic_field=True)
    schema.add_field("id_sanpham", DataType.VARCHAR, is_primary=True, max_length=64)
    schema.add_field("image_vector", DataType.FLOAT_VECTOR, dim=DIMENSION)
    return schema


def create(client: Any) -> None:
    client.create_collection("repair", schema=collection_schema(DIMENSION), properties=collection_properties(IDENTITY))


def index(client: Any, *fields: str) -> None:
    parameters = client.prepare_index_params()
    for field in fields:
        parameters.add_index(field, index_type="FLAT", index_name=field, metric_type="COSINE")
    client.create_index("repair", parameters, sync=False)


def test_the_collection_is_made_complete(store: MilvusStore) -> None:
    store.ensure()
    state = store.state()
    assert (state.alias, state.physical_name, state.rows, state.load_state) == ("repair_live", "repair", 0, "Loaded")
    assert state.indexes == {"image_vector": "FLAT", "description_vector": "FLAT"}
    assert (state.embedder, state.dimension, state.schema_version) == (IDENTITY.key, DIMENSION, "1")
    assert state.server.startswith("milvus_lite")


def test_making_it_again_changes_nothing(store: MilvusStore) -> None:
    store.ensure()
    store.sync_day(MONDAY, [[record("P1")]], find_elsewhere=lambda _: [])
    before = store.state()
    store.ensure()
    assert store.state() == before


def stopped_after_creation(client: Any) -> None:
    create(client)


def stopped_after_first_index(client: Any) -> None:
    create(client)
    index(client, "image_vector")


def stopped_before_alias(client: Any) -> None:
    create(client)
    index(client, "image_vector", "description_vector")


def stopped_before_load(client: Any) -> None:
    stopped_before_alias(client)
    client.create_alias("repair", "repair_live")
    client.release_collection("repair")


@pytest.mark.parametrize(
    "crash", [stopped_after_creation, stopped_after_first_index, stopped_before_alias, stopped_before_load]
)
def test_what_a_crash_left_undone_is_done(store: MilvusStore, client: Any, crash: Any) -> None:
    crash(client)
    store.ensure()
    state = store.state()
    assert (state.alias, state.physical_name, state.load_state) == ("repair_live", "repair", "Loaded")
    assert set(state.indexes) == {"image_vector", "description_vector"}
    assert store.sync_day(MONDAY, [[record("P1")]], find_elsewhere=lambda _: []).new == 1


def test_a_released_collection_is_loaded_by_the_call_that_needs_it(store: MilvusStore, client: Any) -> None:
    store.ensure()
    store.sync_day(MONDAY, [[record("P1")]], find_elsewhere=lambda _: [])
    client.release_collection("repair")
    assert store.get("P1") is not None


def test_readers_and_writers_follow_the_alias(store: MilvusStore, client: Any) -> None:
    store.ensure()
    store.sync_day(MONDAY, [[record("old")]], find_elsewhere=lambda _: [])
    client.create_collection(
        "repair_green", schema=collection_schema(DIMENSION), properties=collection_properties(IDENTITY)
    )
    client.alter_alias("repair_green", "repair_live")
    store.sync_day(MONDAY, [[record("new")]], find_elsewhere=lambda _: [])
    assert set(store.existing(["old", "new"])) == {"new"}
    assert store.state().physical_name == "repair_green"
    assert client.query("repair", filter="", output_fields=["count(*)"])[0]["count(*)"] == 1


@pytest.mark.parametrize("has_alias", [False, True])
def test_a_collection_of_unknown_origin_is_refused_and_left_alone(
    store: MilvusStore, client: Any, has_alias: bool
) -> None:
    client.create_collection("repair", schema=fields_of_foreign_collection(client))
    if has_alias:
        client.create_alias("repair", "repair_live")
    with pytest.raises(EmbedderMismatchError, match="does not tell whose vectors"):
        store.ensure()
    assert client.list_indexes("repair") == []
    assert "labeling.embedder" not in client.describe_collection("repair")["properties"]


def test_a_collection_of_another_schema_is_refused(store: MilvusStore, client: Any) -> None:
    properties = collection_properties(IDENTITY) | {"labeling.schema_version": "0"}
    client.create_collection("repair", schema=collection_schema(DIMENSION), properties=properties)
    with pytest.raises(EmbedderMismatchError, match="schema 0"):
        store.ensure()


def test_reading_before_anything_was_indexed_says_so(store: MilvusStore) -> None:
    for read in (store.state, lambda: store.check_embedder(IDENTITY)):
        with pytest.raises(ConfigurationError, match="labeling run"):
            read()
