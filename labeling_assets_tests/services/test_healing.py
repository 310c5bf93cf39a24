"""Drift is found with the right ids, repaired from the files, and gone; nothing follows from a failed read."""

from __future__ import annotations

import dataclasses
import datetime as dt
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from upath import UPath

from labeling_assets.errors import (
    ConfigurationError,
    EmbedderMismatchError,
    ImageUnavailableError,
    ServiceUnavailableError,
)
from labeling_assets.products.detection import is_changed
from labeling_assets.products.vectors import IMAGE_VECTOR
from labeling_assets.services.checked_files import LABELS, VECTORS, day_of
from labeling_assets.services.day_state import STORES, SyncedDays
from labeling_assets.services.day_tables import mark_source, read_table, write_table
from labeling_assets.services.drift import Drift, Healing, Kind
from labeling_assets.services.milvus import MilvusStore
from labeling_assets.services.quarantine import Quarantine
from labeling_assets.services.writer_lease import writer_lease
from labeling_assets_tests.services.healed_shop import MONDAY, SUNDAY, TABLE, TUESDAY, WEDNESDAY, Shop
from labeling_assets_tests.services.milvus_samples import IDENTITY, store_of, temporary_store

FAR_DAY = dt.date(2026, 2, 1)
END_OF_TIME = dt.date(9999, 12, 31)


@pytest.fixture
def shop(engine: sa.Engine, milvus_uri: str, tmp_path: Path) -> Iterator[Shop]:
    with temporary_store(milvus_uri) as store:
        # Nobody waits long for a writer that died: only one process writes here.
        store._writer_lock = lambda: writer_lease(engine, f"milvus:{id(store)}", lease_seconds=0.1)
        shop = Shop(engine, store, UPath(tmp_path))
        shop.open()
        yield shop


def found(drifts: list[Drift]) -> dict[tuple[dt.date | None, str], tuple[str, ...]]:
    return {(drift.day, str(drift.kind)): drift.sample_ids for drift in drifts}


def no_milvus(shop: Shop, *ids: str) -> None:
    shop.store._rows.remove(ids)


def no_data_label(shop: Shop, *ids: str) -> None:
    shop.sql("delete from ai_craw.data_label where id_sanpham = any(:ids)", ids=list(ids))


STORE_DAMAGE: dict[str, tuple[Callable[[Shop], None], dict[tuple[dt.date | None, str], tuple[str, ...]]]] = {
    "deleted in Milvus": (
        lambda shop: no_milvus(shop, "a", 'with "quotes"\\'),
        {(MONDAY, "milvus_missing"): ("a",), (TUESDAY, "milvus_missing"): ('with "quotes"\\',)},
    ),
    "altered in Milvus": (
        lambda shop: shop.put_in_milvus("b", MONDAY),
        {(MONDAY, "milvus_different"): ("b",)},
    ),
    "stranger of the day in Milvus": (
        lambda shop: shop.put_in_milvus("stranger", MONDAY),
        {(MONDAY, "milvus_surplus"): ("stranger",)},
    ),
    "stranger of a day that nobody knows in Milvus": (
        lambda shop: shop.put_in_milvus("stranger", FAR_DAY),
        {(FAR_DAY, "milvus_surplus"): ("stranger",)},
    ),
    "stranger of no day in Milvus": (
        lambda shop: shop.put_in_milvus("stranger", "20260302"),
        {(None, "milvus_dateless"): ("stranger",)},
    ),
    "product of no day in Milvus": (
        lambda shop: shop.put_in_milvus("a", "no date"),
        {(None, "milvus_dateless"): ("a",), (MONDAY, "milvus_different"): ("a",)},
    ),
    "moved to an older day in Milvus": (
        lambda shop: shop.put_in_milvus("c", MONDAY),
        {(MONDAY, "milvus_surplus"): ("c",), (TUESDAY, "milvus_different"): ("c",)},
    ),
    "moved to a newer day in Milvus": (
        lambda shop: shop.put_in_milvus("c", WEDNESDAY),
        {(WEDNESDAY, "milvus_surplus"): ("c",)},
    ),
    "taken from the newer of two days in Milvus": (
        lambda shop: no_milvus(shop, "both"),
        {(MONDAY, "milvus_missing"): ("both",), (TUESDAY, "milvus_missing"): ("both",)},
    ),
    "deleted in data_label": (
        lambda shop: no_data_label(shop, "a", "both"),
        {(MONDAY, "data_label_missing"): ("a", "both"), (TUESDAY, "data_label_missing"): ("both",)},
    ),
    "altered in data_label": (
        lambda shop: shop.put_in_data_label("b", MONDAY),
        {(MONDAY, "data_label_different"): ("b",)},
    ),
    "stranger of the day in data_label": (
        lambda shop: shop.put_in_data_label("stranger", MONDAY),
        {(MONDAY, "data_label_surplus"): ("stranger",)},
    ),
    "stranger of the last day of the calendar in data_label": (
        lambda shop: shop.put_in_data_label("stranger", END_OF_TIME),
        {(END_OF_TIME, "data_label_surplus"): ("stranger",)},
    ),
    "moved to an older day in data_label": (
        lambda shop: shop.put_in_data_label("c", MONDAY),
        {(MONDAY, "data_label_surplus"): ("c",), (TUESDAY, "data_label_different"): ("c",)},
    ),
    "moved to a newer day in data_label": (
        lambda shop: shop.put_in_data_label("both", WEDNESDAY),
        {(WEDNESDAY, "data_label_surplus"): ("both",)},
    ),
}


def test_nothing_is_wrong_after_the_days_ran(shop: Shop) -> None:
    before = shop.stores()
    assert shop.healer().find() == []
    healing = shop.healer().heal()
    assert (healing.days_examined, healing.found, healing.left) == (2, [], [])
    assert shop.stores() == before


def test_every_damage_of_a_store_is_found_and_repaired_from_the_files(shop: Shop) -> None:
    before = shop.stores()
    for name, (damage, expected) in STORE_DAMAGE.items():
        damage(shop)
        damaged = shop.stores()
        assert damaged != before, name
        assert found(shop.healer().find()) == expected, name
        assert shop.stores() == damaged, f"{name}: looking changes nothing"
        healing = shop.healer().heal()
        assert (found(healing.found), healing.left) == (expected, []), name
        assert shop.stores() == before, name
        assert shop.healer().heal().found == [], f"{name}: nothing is left to do"


def rewritten(asset: str, change: Callable[[pa.Table], pa.Table]) -> Callable[[Shop], None]:
    return lambda shop: write_table(shop.path(asset, MONDAY), change(read_table(shop.path(asset, MONDAY))))


def with_nan(table: pa.Table) -> pa.Table:
    values = np.asarray(table[IMAGE_VECTOR].to_pylist(), np.float32)
    values[1, 2] = np.nan
    column = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])
    return table.set_column(table.column_names.index(IMAGE_VECTOR), IMAGE_VECTOR, column)


def torn(shop: Shop) -> None:
    content = shop.path(VECTORS, MONDAY).read_bytes()
    shop.path(VECTORS, MONDAY).write_bytes(content[: len(content) // 2])


def spoilt(shop: Shop) -> None:
    content = bytearray(shop.path(LABELS, MONDAY).read_bytes())
    content[4:200] = bytes(196)
    shop.path(LABELS, MONDAY).write_bytes(content)


def replaced(table: pa.Table, name: str, values: list[Any]) -> pa.Table:
    return table.set_column(table.column_names.index(name), table.schema.field(name), pa.array(values))


FILE_DAMAGE: dict[str, tuple[Callable[[Shop], None], str]] = {
    "vectors deleted": (lambda shop: shop.path(VECTORS, MONDAY).unlink(), "file_missing"),
    "labels deleted": (lambda shop: shop.path(LABELS, MONDAY).unlink(), "file_missing"),
    "torn": (torn, "file_unreadable"),
    "spoilt": (spoilt, "file_unreadable"),
    "empty": (lambda shop: shop.path(VECTORS, MONDAY).write_bytes(b""), "file_unreadable"),
    "no Parquet": (lambda shop: shop.path(VECTORS, MONDAY).write_bytes(b"garbage" * 99), "file_unreadable"),
    "without a column": (rewritten(VECTORS, lambda table: table.drop_columns(["image_sha256"])), "file_unreadable"),
    "without vectors": (rewritten(VECTORS, lambda table: table.drop_columns([IMAGE_VECTOR])), "file_unreadable"),
    "of another day": (rewritten(LABELS, lambda table: replaced(table, "date", [SUNDAY] * 3)), "file_unreadable"),
    "vectors without direction": (rewritten(VECTORS, with_nan), "file_unreadable"),
    "of a limited run": (lambda shop: shop.run(MONDAY, partial=True), "file_partial"),
    "of another embedder": (rewritten(VECTORS, lambda table: replaced(table, "embedder", ["x"] * 3)), "file_outdated"),
    "of another state of the source": (
        rewritten(LABELS, lambda table: mark_source(table, "9:9", partial=False)),
        "file_outdated",
    ),
}


def is_seen_by_the_sensor(shop: Shop, day: dt.date) -> bool:
    recorded = SyncedDays(shop.engine).find(day, day).get(day, {})
    return is_changed(shop.source_days.fingerprints(day, day)[day], recorded, STORES)


def test_a_broken_file_of_an_emptied_day_is_run_as_well(shop: Shop) -> None:
    shop.sql(f"delete from {TABLE} where published_at < '2026-03-03 00:00+07'")
    assert shop.healer().heal().days_to_run == [MONDAY]
    assert is_seen_by_the_sensor(shop, MONDAY)
    shop.run(MONDAY)
    assert not is_seen_by_the_sensor(shop, MONDAY)
    torn(shop)
    assert shop.healer().heal().days_to_run == [MONDAY]
    assert is_seen_by_the_sensor(shop, MONDAY)
    shop.run(MONDAY)
    assert shop.healer().find() == []


def test_a_day_with_an_unusable_file_must_run_and_its_stores_are_left_alone(shop: Shop) -> None:
    for name, (damage, kind) in FILE_DAMAGE.items():
        damage(shop)
        no_milvus(shop, "a")
        before = shop.stores()
        healing = shop.healer().heal()
        assert found(healing.found) == found(healing.left) == {(MONDAY, kind): ()}, name
        assert healing.days_to_run == [MONDAY], name
        assert shop.stores() == before, name
        assert is_seen_by_the_sensor(shop, MONDAY), name
        shop.run(MONDAY)
        assert shop.healer().find() == [], name


@pytest.mark.parametrize(
    ("edit", "days"),
    [
        (f"update {TABLE} set title = 'new' where product_id = 'a'", [MONDAY]),
        (f"delete from {TABLE} where product_id = 'both'", [MONDAY, TUESDAY]),
        (
            f"update {TABLE} set published_at = '2026-03-03 00:00+07' where product_id = 'b'",
            [MONDAY, TUESDAY],
        ),
        (f"delete from {TABLE}", [MONDAY, TUESDAY]),
    ],
)
def test_an_edited_source_means_that_the_day_must_run(shop: Shop, edit: str, days: list[dt.date]) -> None:
    shop.sql(edit)
    assert found(shop.healer().find()) == {(day, "source_changed"): () for day in days}
    healing = shop.healer().heal()
    assert healing.days_to_run == days
    for day in healing.days_to_run:
        shop.run(day)
    assert shop.healer().heal().found == []


def forget(shop: Shop, day: dt.date) -> None:
    """Take away everything but the stores' rows of a day."""
    for asset in (VECTORS, LABELS):
        shop.path(asset, day).unlink()
    shop.sql("delete from labeling.synced_days where day = :day", day=day)


def test_rows_of_a_day_without_file_and_source_are_removed_and_give_way_to_the_older_day(shop: Shop) -> None:
    forget(shop, TUESDAY)
    shop.sql(f"delete from {TABLE} where published_at >= '2026-03-03 00:00+07'")
    left = ("both", "c", "d", 'with "quotes"\\')
    assert found(shop.healer().find()) == {(TUESDAY, "milvus_surplus"): left, (TUESDAY, "data_label_surplus"): left}
    assert shop.healer().heal().left == []
    milvus, labels = shop.stores()
    assert set(milvus) == set(labels) == {"a", "b", "both"}
    assert {day for day, _ in milvus.values()} == {str(MONDAY)}
    assert shop.healer().heal().found == []


def test_rows_of_a_day_without_file_that_the_source_has_are_not_removed(shop: Shop) -> None:
    forget(shop, TUESDAY)
    before = shop.stores()
    healing = shop.healer().heal()
    assert found(healing.left) == {(TUESDAY, "file_missing"): ()}
    assert shop.stores() == before


@pytest.mark.parametrize("partitions", [(TUESDAY, WEDNESDAY), (FAR_DAY, SUNDAY)], ids=["before the first", "not over"])
def test_a_day_that_cannot_run_is_left_alone_while_the_source_has_rows(
    shop: Shop, partitions: tuple[dt.date, dt.date]
) -> None:
    for asset in (VECTORS, LABELS):
        shop.path(asset, MONDAY).unlink()
    before = shop.stores()
    assert shop.healer(partitions).heal().left == []
    assert shop.stores() == before


def test_what_waits_for_a_retry_stays_in_the_stores(shop: Shop) -> None:
    shop.put_in_milvus("waiting", MONDAY)
    shop.put_in_data_label("waiting", MONDAY)
    Quarantine(shop.engine).report(MONDAY, "product_images", {"waiting": ImageUnavailableError("503")})
    assert shop.healer().heal().found == []
    no_milvus(shop, "a")
    no_data_label(shop, "a")
    assert shop.healer().heal().left == []
    milvus, labels = shop.stores()
    assert {"a", "waiting"} <= milvus.keys() & labels.keys()


def test_nothing_is_removed_while_a_file_that_may_have_the_product_is_missing(shop: Shop) -> None:
    shop.put_in_milvus("c", MONDAY)
    shop.put_in_data_label("c", MONDAY)
    no_milvus(shop, "a")
    content = shop.path(VECTORS, TUESDAY).read_bytes()
    shop.path(VECTORS, TUESDAY).write_bytes(content[:-9])
    healing = shop.healer().heal()
    assert found(healing.left) == {
        (MONDAY, "milvus_surplus"): ("c",),
        (MONDAY, "data_label_surplus"): ("c",),
        (TUESDAY, "file_unreadable"): (),
    }
    milvus, labels = shop.stores()
    assert {"a", "c"} <= milvus.keys() & labels.keys()
    shop.run(TUESDAY)
    assert shop.healer().heal().left == []
    assert shop.healer().find() == []


def test_a_broken_file_outside_the_range_stops_a_removal(shop: Shop) -> None:
    shop.put_in_milvus("c", MONDAY)
    shop.path(VECTORS, TUESDAY).write_bytes(b"garbage")
    before = shop.stores()
    with pytest.raises(ConfigurationError, match="clip_vectors cannot be read"):
        shop.healer().heal(MONDAY, MONDAY)
    assert shop.stores() == before


def test_a_storage_that_fails_stops_the_healing_before_anything_is_changed(shop: Shop) -> None:
    shop.put_in_milvus("stranger", MONDAY)
    shop.put_in_milvus("dateless", "x")
    before = shop.stores()
    shop.path(LABELS, TUESDAY).unlink()
    shop.path(LABELS, TUESDAY).mkdir()
    with pytest.raises(ServiceUnavailableError, match="storage cannot be read"):
        shop.healer().heal()
    assert shop.stores() == before


def test_a_source_that_cannot_be_read_stops_the_healing_before_anything_is_changed(shop: Shop) -> None:
    shop.put_in_data_label("stranger", MONDAY)
    before = shop.stores()
    shop.sql(f"alter table {TABLE} rename column published_at to published")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        shop.healer().heal()
    assert shop.stores() == before


def test_a_collection_of_another_embedder_is_not_judged(shop: Shop, milvus_uri: str) -> None:
    name = shop.store.state().physical_name
    other = store_of(milvus_uri, name, dataclasses.replace(IDENTITY, name="other"))
    with pytest.raises(EmbedderMismatchError):
        shop.healer(store=other).find()
    other.close()


def test_looking_makes_neither_collection_nor_table(engine: sa.Engine, milvus_uri: str, tmp_path: Path) -> None:
    store = store_of(milvus_uri)
    shop = Shop(engine, store, UPath(tmp_path))
    shop.sql("create schema ai_craw")
    shop.sql(f"create table {TABLE} (published_at timestamptz)")
    assert shop.healer().find() == shop.healer().find(SUNDAY, TUESDAY) == []
    assert not store.exists()
    assert not sa.inspect(engine).has_table("data_label", schema="ai_craw")
    store.close()


def test_a_lost_collection_is_made_again_from_the_files(shop: Shop, milvus_uri: str) -> None:
    before = shop.stores()
    store = store_of(milvus_uri)
    shop.store, lost = store, shop.store
    kinds = {drift.kind for drift in shop.healer().find()}
    assert kinds == {Kind.MILVUS_MISSING}
    assert shop.healer().heal().left == []
    assert shop.stores() == before
    store._connection.call("drop_alias", store._collection.alias)
    store._connection.call("drop_collection", store._collection._name)
    store.close()
    shop.store = lost


def test_only_the_days_of_the_range_are_examined(shop: Shop) -> None:
    no_milvus(shop, "a", "c")
    assert found(shop.healer().find(TUESDAY, TUESDAY)) == {(TUESDAY, "milvus_missing"): ("c",)}
    assert found(shop.healer().find(last=MONDAY)) == {(MONDAY, "milvus_missing"): ("a",)}
    assert shop.healer().heal(first=TUESDAY).days_examined == 2
    assert found(shop.healer().find()) == {(MONDAY, "milvus_missing"): ("a",)}
    with pytest.raises(ConfigurationError, match="is after"):
        shop.healer().find(TUESDAY, MONDAY)


def test_a_range_finds_days_that_only_the_source_knows(shop: Shop) -> None:
    shop.add("new", WEDNESDAY)
    assert shop.healer().find() == []
    assert found(shop.healer().find(MONDAY, WEDNESDAY)) == {(WEDNESDAY, "file_missing"): ()}


def test_a_run_that_ends_in_the_middle_of_a_repair_is_not_undone(shop: Shop) -> None:
    class Racing(MilvusStore):
        """A run of the day ends between the examination and the repair."""

        has_run = False

        def sync_day(self, day: dt.date, *args: Any, **options: Any) -> Any:
            if not Racing.has_run:
                Racing.has_run = True
                shop.sql(f"update {TABLE} set title = 'newest' where product_id = 'a'")
                shop.run(day)
            return super().sync_day(day, *args, **options)

    racing = Racing.__new__(Racing)
    racing.__dict__.update(shop.store.__dict__)
    shop.put_in_milvus("b", MONDAY)
    assert shop.healer(store=racing).heal().left == []
    expected = {row["id_sanpham"]: row["record_hash"] for row in shop.tables(MONDAY)[VECTORS].to_pylist()}
    assert shop.stores()[0]["a"] == (str(MONDAY), expected["a"])
    assert shop.stores()[0]["b"] == (str(MONDAY), expected["b"])


@pytest.mark.parametrize("step", ["upsert", "remove", "remove_date", "flush"])
def test_a_healing_that_died_half_way_is_taken_up_by_the_next(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    before = shop.stores()
    no_milvus(shop, "a", "c")
    no_data_label(shop, "b")
    shop.put_in_milvus("stranger", MONDAY)
    shop.put_in_milvus("dateless", "x")
    with monkeypatch.context() as patch:
        patch.setattr(shop.store._rows, step, lambda *_: sys.exit(9))
        with pytest.raises(SystemExit):
            shop.healer().heal()
    assert shop.healer().heal().left == []
    assert shop.stores() == before


def test_two_healings_at_once_end_in_the_same_state(shop: Shop) -> None:
    before = shop.stores()
    no_milvus(shop, "a", "c")
    no_data_label(shop, "b", "both")
    shop.put_in_milvus("stranger", MONDAY)
    shop.put_in_data_label("stranger", TUESDAY)
    with ThreadPoolExecutor(2) as pool:
        healings = list(pool.map(lambda _: shop.healer().heal(), range(2)))
    assert [healing.left for healing in healings] == [[], []]
    assert shop.stores() == before


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    stores=st.lists(st.sampled_from(sorted(STORE_DAMAGE)), max_size=4),
    files=st.lists(st.sampled_from(sorted(FILE_DAMAGE)), max_size=1),
    is_edited=st.booleans(),
)
def test_whatever_is_damaged_healing_and_running_days_mends_it(
    shop: Shop, stores: list[str], files: list[str], *, is_edited: bool
) -> None:
    for name in stores:
        STORE_DAMAGE[name][0](shop)
    for name in files:
        FILE_DAMAGE[name][0](shop)
    if is_edited:
        shop.sql(f"update {TABLE} set title = title || '.' where product_id = 'both'")
    for day in shop.healer().heal().days_to_run:
        shop.run(day)
    assert shop.healer().heal().left == []
    assert shop.healer().find() == []
    milvus, labels = shop.stores()
    assert milvus.keys() == labels.keys() == {*shop.source(MONDAY), *shop.source(TUESDAY)}
    assert {id_: row[2] for id_, row in labels.items()} == {id_: day_of(date) for id_, (date, _) in milvus.items()}


def test_the_counts_name_every_kind_every_time() -> None:
    left = [Drift(MONDAY, Kind.FILE_MISSING), Drift(SUNDAY, Kind.SOURCE_CHANGED)]
    healing = Healing(3, [*left, *Drift.of_products(TUESDAY, Kind.MILVUS_MISSING, map(str, range(30)))], left)
    counts = healing.counts()
    assert counts.keys() == Healing().counts().keys()
    assert (counts["milvus_missing_found"], counts["milvus_missing_repaired"]) == (30, 30)
    assert (counts["file_missing_found"], counts["file_missing_repaired"]) == (1, 0)
    assert healing.days_to_run == [MONDAY, SUNDAY], "days whose files others wait for come first"
    assert len(healing.found[2].sample_ids) == 20


@given(st.text() | st.dates().map(str))
def test_only_a_full_date_is_a_day(text: str) -> None:
    day = day_of(text)
    assert day is None or str(day) == text
