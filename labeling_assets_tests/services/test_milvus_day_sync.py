"""One day in Milvus is made equal to its records: the contract, on Milvus Lite and on a Milvus server."""

from __future__ import annotations

import datetime as dt
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from milvus_samples import (
    MONDAY,
    NASTY_IDS,
    SERVERS,
    TUESDAY,
    nowhere,
    record,
    store_of,
    sync,
    temporary_store,
    uri_of,
)

from labeling_assets.errors import EmbedderMismatchError
from labeling_assets.services.milvus import MilvusStore
from labeling_assets.services.milvus.connection import MilvusConnection


@pytest.fixture(scope="module", params=SERVERS)
def uri(request: pytest.FixtureRequest) -> str:
    return uri_of(request.param, request)


@pytest.fixture
def store(uri: str) -> Iterator[MilvusStore]:
    with temporary_store(uri) as store:
        yield store


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
