"""The contract of the vector store, on Milvus Lite and, where LABELING_TEST_MILVUS_URI is set, on a Milvus server."""

from __future__ import annotations

import datetime as dt
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from milvus_samples import DIMENSION, IDENTITY, MONDAY, TUESDAY, product, record, store_of, vector

from labeling_assets.errors import ConfigurationError, EmbedderMismatchError
from labeling_assets.services.embedding import EmbedderIdentity
from labeling_assets.services.milvus import MilvusStore, SyncResult
from labeling_assets.services.milvus.connection import MilvusConnection

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


@pytest.fixture(scope="module", params=["lite", "server"])
def uri(request: pytest.FixtureRequest) -> str:
    if request.param == "lite":
        return str(request.getfixturevalue("milvus_uri"))
    server = os.environ.get("LABELING_TEST_MILVUS_URI")
    return server or pytest.skip("LABELING_TEST_MILVUS_URI is not set")


@pytest.fixture
def store(uri: str) -> Iterator[MilvusStore]:
    store = store_of(uri)
    store.ensure()
    yield store
    drop(uri, store)


def drop(uri: str, store: MilvusStore) -> None:
    from pymilvus import MilvusClient

    state = store.state()
    store.close()
    client = MilvusClient(uri, dedicated=True)
    client.drop_alias(state.alias)
    client.drop_collection(state.physical_name)
    client.close()


def nowhere(ids: Sequence[str]) -> list[dict[str, Any]]:
    return []


def sync(store: MilvusStore, records: Sequence[dict[str, Any]], day: dt.date = MONDAY, **options: Any) -> SyncResult:
    return store.sync_day(day, [records], **{"find_elsewhere": nowhere} | options)


def days_of(store: MilvusStore, ids: Sequence[str]) -> dict[str, dt.date]:
    return {id_: stored.date for id_, stored in store.existing(ids).items()}


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The methods of Milvus called from here on."""
    methods: list[str] = []
    call = MilvusConnection.call

    def recorded(self: MilvusConnection, method: str, *args: Any, **kwargs: Any) -> Any:
        methods.append(method)
        return call(self, method, *args, **kwargs)

    monkeypatch.setattr(MilvusConnection, "call", recorded)
    return methods


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


def test_a_changed_record_replaces_the_old_one_whole(store: MilvusStore) -> None:
    sync(store, [record("P1"), record("P2")])
    result = sync(store, [record("P1", title=None, occasion=["birthday"]), record("P2")])
    assert (result.new, result.updated_ids, result.unchanged) == (0, ["P1"], 1)
    hit = store.get("P1")
    assert hit is not None
    assert hit.title is None
    assert hit.labels["occasion"] == ["birthday"]
    assert store.state().rows == 2


def test_a_day_that_did_not_change_costs_no_write(store: MilvusStore, calls: list[str]) -> None:
    records = [record(f"P{number}") for number in range(20)]
    sync(store, records)
    calls.clear()
    result = sync(store, records)
    assert (result.unchanged, result.insert_batches) == (20, 0)
    assert not {"upsert", "delete", "flush"} & set(calls)


def test_a_day_is_written_in_batches_of_500_with_one_flush(store: MilvusStore, calls: list[str]) -> None:
    batches = ([record(f"P{batch}-{number}") for number in range(70)] for batch in range(16))
    result = store.sync_day(MONDAY, batches, find_elsewhere=nowhere)
    assert (result.new, result.insert_batches) == (1120, 3)
    assert (calls.count("upsert"), calls.count("flush")) == (3, 1)
    assert store.state().rows == 1120


def test_writing_begins_before_all_batches_are_read(store: MilvusStore, calls: list[str]) -> None:
    seen = []

    def batches() -> Iterator[list[dict[str, Any]]]:
        for batch in range(4):
            seen.append(calls.count("upsert"))
            yield [record(f"P{batch}-{number}") for number in range(500)]

    store.sync_day(MONDAY, batches(), find_elsewhere=nowhere)
    assert seen[0] == 0
    assert seen[-1] >= 1


def test_long_texts_are_split_over_several_upserts(store: MilvusStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("labeling_assets.services.milvus.day_sync.BATCH_BYTES", 100_000)
    result = sync(store, [record(f"P{number}", description="ü" * 30_000) for number in range(5)])
    assert (result.new, result.insert_batches) == (5, 5)


def test_of_two_records_with_one_id_the_first_counts(store: MilvusStore) -> None:
    result = sync(store, [record("P1", title="first"), record("P2"), record("P1", title="second")])
    hit = store.get("P1")
    assert hit is not None
    assert (hit.title, result.new, store.state().rows) == ("first", 2, 2)


def test_what_left_the_day_is_removed_and_other_days_are_not_touched(store: MilvusStore) -> None:
    sync(store, [record("P1"), record("P2")])
    sync(store, [record("P3", TUESDAY)], TUESDAY)
    assert sync(store, [record("P2")]).removed_ids == ["P1"]
    assert days_of(store, ["P1", "P2", "P3"]) == {"P2": MONDAY, "P3": TUESDAY}


def test_an_empty_day_removes_all_of_it(store: MilvusStore) -> None:
    sync(store, [record("P1"), record("P2")])
    assert sync(store, []).removed == 2
    assert store.state().rows == 0


def test_a_part_of_a_day_removes_nothing(store: MilvusStore) -> None:
    sync(store, [record("P1"), record("P2")])
    result = sync(store, [record("P3")], is_partial=True)
    assert (result.new, result.removed) == (1, 0)
    assert set(store.existing(["P1", "P2", "P3"])) == {"P1", "P2", "P3"}


def test_nothing_is_removed_when_reading_the_day_fails(store: MilvusStore) -> None:
    sync(store, [record("P1"), record("P2")])

    def broken() -> Iterator[list[dict[str, Any]]]:
        yield [record("P3")]
        raise OSError("the file is gone")

    with pytest.raises(OSError, match="the file is gone"):
        store.sync_day(MONDAY, broken(), find_elsewhere=nowhere)
    assert {"P1", "P2"} <= set(store.existing(["P1", "P2", "P3"]))


@pytest.mark.parametrize("first", [MONDAY, TUESDAY])
def test_a_product_that_moved_to_another_day_is_there_once(store: MilvusStore, first: dt.date) -> None:
    sync(store, [record("P1"), record("P2")])
    after = {MONDAY: [record("P2")], TUESDAY: [record("P1", TUESDAY)]}
    second = TUESDAY if first == MONDAY else MONDAY
    for day in (first, second):
        sync(store, after[day], day)
    assert days_of(store, ["P1", "P2"]) == {"P1": TUESDAY, "P2": MONDAY}
    assert store.state().rows == 2


def test_the_newest_day_of_a_product_wins_in_any_order(store: MilvusStore) -> None:
    sync(store, [record("P1", TUESDAY)], TUESDAY)
    result = sync(store, [record("P1"), record("P2")])
    assert (result.new, result.held_by_newer_day) == (1, 1)
    assert days_of(store, ["P1"]) == {"P1": TUESDAY}
    assert sync(store, [record("P1"), record("P2")]).insert_batches == 0


def test_a_product_that_left_its_newest_day_comes_back_as_an_older_day_has_it(store: MilvusStore) -> None:
    sync(store, [record("P1"), record("P2")])
    sync(store, [record("P1", TUESDAY), record("P3", TUESDAY)], TUESDAY)
    asked: list[str] = []

    def elsewhere(ids: Sequence[str]) -> Iterator[dict[str, Any]]:
        asked.extend(ids)
        yield record("P1")

    result = sync(store, [], TUESDAY, find_elsewhere=elsewhere)
    assert sorted(asked) == ["P1", "P3"]
    assert (result.restored_ids, result.removed_ids) == (["P1"], ["P3"])
    assert days_of(store, ["P1", "P2", "P3"]) == {"P1": MONDAY, "P2": MONDAY}


@pytest.mark.parametrize("wrong", [record("P1", TUESDAY), record("P9")])
def test_a_record_that_does_not_restore_what_left_is_refused(store: MilvusStore, wrong: dict[str, Any]) -> None:
    sync(store, [record("P1", TUESDAY)], TUESDAY)
    with pytest.raises(ValueError, match="no other day's record"):
        sync(store, [], TUESDAY, find_elsewhere=lambda _: [wrong])


def test_a_record_of_another_day_is_refused(store: MilvusStore) -> None:
    with pytest.raises(ValueError, match="not of 2026-03-02"):
        sync(store, [record("P1", TUESDAY)])


def test_a_record_of_another_embedder_is_refused_before_it_is_written(store: MilvusStore) -> None:
    with pytest.raises(EmbedderMismatchError, match="vectors of other@1"):
        sync(store, [record("P1", embedder="other@1")])
    assert store.existing(["P1"]) == {}


def test_a_day_of_more_rows_than_a_page_is_read_whole(store: MilvusStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("labeling_assets.services.milvus.rows.PAGE_ROWS", 3)
    sync(store, [record(id_) for id_ in NASTY_IDS])
    assert sync(store, []).removed == len(NASTY_IDS)
    assert store.state().rows == 0


def test_two_writers_at_once_lose_nothing(uri: str, store: MilvusStore) -> None:
    lock = threading.Lock()
    days = [MONDAY + dt.timedelta(days=number) for number in range(4)]
    stores = [store_of(uri, store.state().physical_name, lock=lock) for _ in days]

    def write(own: MilvusStore, day: dt.date) -> int:
        batches = ([record(f"{day}-{batch}-{number}", day) for number in range(50)] for batch in range(4))
        return own.sync_day(day, batches, find_elsewhere=nowhere).new

    with ThreadPoolExecutor(len(days)) as pool:
        assert list(pool.map(write, stores, days)) == [200] * len(days)
    for own in stores:
        own.close()
    assert store.state().rows == 800


def test_the_same_day_written_twice_at_once_is_there_once(uri: str, store: MilvusStore) -> None:
    lock = threading.Lock()
    stores = [store_of(uri, store.state().physical_name, lock=lock) for _ in range(2)]
    records = [record(f"P{number}") for number in range(600)]
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda own: sync(own, records), stores))
    for own in stores:
        own.close()
    assert sorted(result.new for result in results) == [0, 600]
    assert store.state().rows == 600


KILLED_SYNC = """
import sys
from milvus_samples import MONDAY, record, store_of
def batches():
    yield [record(f"P{number}") for number in range(500)]
    yield [record(f"P{number}") for number in range(500, 600)]
    print("written", flush=True)
    sys.stdin.read()
store_of(sys.argv[1], sys.argv[2]).sync_day(MONDAY, batches(), find_elsewhere=lambda ids: [])
"""


def test_a_killed_sync_is_completed_by_the_next(uri: str, store: MilvusStore) -> None:
    sync(store, [record("gone")])
    command = [sys.executable, "-c", KILLED_SYNC, uri, store.state().physical_name]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"written\n"
        process.send_signal(signal.SIGKILL)
    assert store.state().rows == 501
    result = sync(store, [record(f"P{number}") for number in range(600)])
    assert (result.unchanged, result.new, result.removed_ids) == (500, 100, ["gone"])
    assert store.state().rows == 600


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
    store = store_of(uri, index=index)
    sync(store, [record(f"P{number}") for number in range(50)])
    assert set(store.state().indexes.values()) == {index}
    hits = store.search(vector("Mô tả của P7"), "description_vector", 50, consistency="Strong")
    assert hits[0].id_sanpham == "P7"
    drop(uri, store)


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
