"""Finds where source, files, Milvus and `data_label` disagree, day by day, and repairs the stores from the files.

A day's two files, `clip_vectors` and `qwen_labels`, are what the stores are made from. Where both show the source as it
is now, each store is made equal to its file; no model is asked. Where they do not, because the source has changed or a
file is missing, broken or of a limited crawl, nothing can be said of the stores: the day must run again, which mends
them too. Running days is not done here. Days that are no partition are left alone, but for rows that neither a file nor
the source knows.

One day is in memory at a time. Examining a day costs one query of Milvus, a few of PostgreSQL and two files; a repair,
one synchronisation of the day and another examination. On two cores with Milvus Lite, 35 days of 500 products are
examined in 10 s, and with drift on every day repaired in a minute. A repair goes through the synchronisation of a day,
so that it excludes other writers and leaves a product to a newer day; it can be killed at any point and begun again.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from upath import UPath

from labeling_assets.errors import ConfigurationError
from labeling_assets.products.assembly import data_label_rows
from labeling_assets.products.detection import EMPTY_DAY, is_changed
from labeling_assets.products.vectors import milvus_records
from labeling_assets.services.checked_files import (
    FILES,
    LABELS,
    VECTORS,
    BrokenFileError,
    day_of,
    days_with_file,
    newest_elsewhere,
    read_checked,
)
from labeling_assets.services.day_state import STORES, SyncedDays
from labeling_assets.services.day_tables import is_partial, source_fingerprint
from labeling_assets.services.drift import HIDING, Drift, Healing, Kind
from labeling_assets.services.milvus import MilvusStore
from labeling_assets.services.postgres import ProductDatabase
from labeling_assets.services.quarantine import Quarantine
from labeling_assets.services.source_days import SourceDays

ATTEMPTS = 3
"""A run may write a newer file while a day is repaired from the older one; the day is then repaired once more."""


class _DayMustRunError(Exception):
    """The files of a day do not show the source as it is now."""

    def __init__(self, kind: Kind, details: str) -> None:
        super().__init__(details)
        self.kind = kind
        self.details = details


class StoreHealer:
    """Compares the stores with the source and the files, and repairs them.

    Args:
        database: The database with `data_label` and the tables of ours.
        source_days: Fingerprints of the source.
        store: The Milvus collection.
        storage: Root of the files.
        partitions: First and last day that can run.
    """

    def __init__(
        self,
        database: ProductDatabase,
        source_days: SourceDays,
        store: MilvusStore,
        storage: UPath,
        partitions: tuple[dt.date, dt.date],
    ) -> None:
        self._database = database
        self._source_days = source_days
        self._store = store
        self._storage = storage
        self._partitions = partitions
        self._synced_days = SyncedDays(database.engine)
        self._quarantine = Quarantine(database.engine)

    def find(self, first: dt.date | None = None, last: dt.date | None = None) -> list[Drift]:
        """Everything that is wrong with the days from `first` to `last`, oldest first. Changes nothing.

        Args:
            first: First day; where only `last` is given, the first partition.
            last: Last day, included; where only `first` is given, the last partition. With neither, every day that a
                store or a file knows.

        Raises:
            EmbedderMismatchError: The collection is of another embedder than the one in use.
            ServiceUnavailableError: A store, the source or the storage does not answer.
        """
        days, dateless = self._scope(first, last)
        return [*dateless, *itertools.chain.from_iterable(map(self.examine, days))]

    def heal(self, first: dt.date | None = None, last: dt.date | None = None) -> Healing:
        """Repair the stores from the files, and tell what is left.

        All days are examined before the first one is changed. Days that must run are recorded as changed, so that the
        sensor and the nightly backfill request them. Two healings at once, and beside runs, are safe.

        Args:
            first: As in `find`.
            last: As in `find`.

        Raises:
            EmbedderMismatchError: The collection is of another embedder than the one in use.
            ServiceUnavailableError: A store, the source or the storage does not answer; repeating it goes on.
        """
        days, dateless = self._scope(first, last)
        by_day = {day: self.examine(day) for day in days}
        found = [*dateless, *itertools.chain.from_iterable(by_day.values())]
        may_remove = not any(drift.kind in HIDING for drift in found)
        for drift in dateless:
            self._store.remove_date(drift.details)
        left = [self._repaired(day, by_day[day], may_remove=may_remove) for day in days]
        for drift in itertools.chain.from_iterable(left):
            if drift.must_run and drift.kind is not Kind.SOURCE_CHANGED and drift.day:
                self._request_run(drift.day)
        return Healing(len(days), found, list(itertools.chain.from_iterable(left)))

    def examine(self, day: dt.date) -> list[Drift]:
        """What is wrong with one day; only the first reason, where it must run again. Changes nothing."""
        try:
            tables = self._tables(day)
        except _DayMustRunError as error:
            is_partition = self._partitions[0] <= day <= self._partitions[1]
            return [Drift(day, error.kind, details=error.details)] if is_partition else []
        waiting = self._waiting(day)
        return [
            *self._milvus_drift(day, tables[VECTORS], waiting),
            *self._data_label_drift(day, tables[LABELS], waiting),
        ]

    # Which days there are, and what their files say

    def _scope(self, first: dt.date | None, last: dt.date | None) -> tuple[list[dt.date], list[Drift]]:
        """The days to examine, and the rows of no day, which are looked for where no range is given."""
        has_collection = self._store.exists()
        if first or last:
            start, end = first or self._partitions[0], last or self._partitions[1]
            if start > end:
                raise ConfigurationError(f"{start} is after {end}.", "Give --start and --end in the order of time.")
            return [start + dt.timedelta(days=number) for number in range((end - start).days + 1)], []
        known = days_with_file(self._storage).union(
            self._synced_days.find(dt.date.min, dt.date.max), self._database.data_label_days()
        )
        outside = self._store.outside(known) if has_collection else {}
        dateless = [
            drift
            for date, ids in outside.items()
            if day_of(date) is None
            for drift in Drift.of_products(None, Kind.MILVUS_DATELESS, ids, date)
        ]
        return sorted(known.union(filter(None, map(day_of, outside)))), dateless

    def _tables(self, day: dt.date) -> dict[str, pa.Table | None]:
        """The day's files, which show the source as it is now; None where there is none because the source has no rows.

        Raises:
            _DayMustRunError: They do not, or the stores were made from another state of the source.
        """
        fingerprint = self._fingerprint(day)
        tables = {asset: self._table(asset, day, fingerprint) for asset in FILES}
        recorded = self._synced_days.find(day, day).get(day, {})
        if is_changed(fingerprint, recorded, STORES):
            stores = ", ".join(f"{store}: {recorded.get(store, 'nothing')}" for store in STORES)
            raise _DayMustRunError(Kind.SOURCE_CHANGED, f"{stores}; source: {fingerprint}")
        for asset, table in tables.items():
            if table is not None and (held := source_fingerprint(table)) != fingerprint:
                raise _DayMustRunError(Kind.FILE_OUTDATED, f"{asset}: {held}; source: {fingerprint}")
        return tables

    def _table(self, asset: str, day: dt.date, fingerprint: str) -> pa.Table | None:
        try:
            table = read_checked(self._storage, asset, day)
        except BrokenFileError as error:
            raise _DayMustRunError(Kind.FILE_UNREADABLE, f"{asset}: {error}") from error
        if table is None:
            if fingerprint == EMPTY_DAY:
                return None
            raise _DayMustRunError(Kind.FILE_MISSING, f"{asset}: no file")
        if is_partial(table):
            raise _DayMustRunError(Kind.FILE_PARTIAL, asset)
        for embedder in pc.unique(table["embedder"]).to_pylist() if asset == VECTORS else []:
            if embedder != self._store.identity.key:
                raise _DayMustRunError(Kind.FILE_OUTDATED, f"{asset}: vectors of {embedder}")
        return table

    def _fingerprint(self, day: dt.date) -> str:
        """The state of the source's rows; the last day of the calendar, which strangers may write, has no end."""
        return self._source_days.fingerprints(day, day)[day] if day < dt.date.max else EMPTY_DAY

    def _waiting(self, day: dt.date) -> set[str]:
        """Products of the day that failed and may succeed later; what the stores have of them stays."""
        return {row.product_id for row in self._quarantine.find(day=day, can_retry=True)}

    # Comparing

    def _milvus_drift(self, day: dt.date, table: pa.Table | None, waiting: set[str]) -> list[Drift]:
        columns = ("id_sanpham", "record_hash")
        wanted = dict(zip(*(table[name].to_pylist() for name in columns), strict=True)) if table is not None else {}
        has_collection = self._store.exists()
        held = self._store.of_day(day) if has_collection else {}
        absent = wanted.keys() - held.keys()
        elsewhere = self._store.existing(absent) if has_collection and absent else {}
        different = {id_ for id_ in wanted.keys() & held.keys() if held[id_].record_hash != wanted[id_]}
        different |= {id_ for id_, stored in elsewhere.items() if stored.date < day}
        return [
            *Drift.of_products(day, Kind.MILVUS_MISSING, absent - elsewhere.keys()),
            *Drift.of_products(day, Kind.MILVUS_DIFFERENT, different),
            *Drift.of_products(day, Kind.MILVUS_SURPLUS, held.keys() - wanted.keys() - waiting),
        ]

    def _data_label_drift(self, day: dt.date, table: pa.Table | None, waiting: set[str]) -> list[Drift]:
        wanted = {row["id_sanpham"]: row for row in data_label_rows(table)} if table is not None else {}
        held = self._database.data_label_of_day(day)
        absent = wanted.keys() - held.keys()
        elsewhere = self._database.data_label_days_of(sorted(absent)) if absent else {}
        different = {id_ for id_ in wanted.keys() & held.keys() if held[id_] != wanted[id_]}
        different |= {id_ for id_, other in elsewhere.items() if other < day}
        return [
            *Drift.of_products(day, Kind.DATA_LABEL_MISSING, absent - elsewhere.keys()),
            *Drift.of_products(day, Kind.DATA_LABEL_DIFFERENT, different),
            *Drift.of_products(day, Kind.DATA_LABEL_SURPLUS, held.keys() - wanted.keys() - waiting),
        ]

    # Repairing

    def _repaired(self, day: dt.date, drifts: list[Drift], *, may_remove: bool) -> list[Drift]:
        """Repair a day of what was found, and examine it again; returns what is left."""
        for _ in range(ATTEMPTS):
            if not drifts or any(drift.must_run for drift in drifts):
                break
            # The files are no longer those that were examined where a run, or its end by kill -9, came between.
            with contextlib.suppress(_DayMustRunError):
                if any(drift.kind.startswith("milvus") for drift in drifts):
                    self._repair_milvus(day, may_remove=may_remove)
                if any(drift.kind.startswith("data_label") for drift in drifts):
                    self._repair_data_label(day, may_remove=may_remove)
            drifts = self.examine(day)
        return drifts

    def _request_run(self, day: dt.date) -> None:
        """Let the day look changed, as it does not by itself where only a file is at fault."""
        for store in STORES:
            self._synced_days.record(day, store, None)

    def _repair_milvus(self, day: dt.date, *, may_remove: bool) -> None:
        def records() -> Iterator[list[dict[str, Any]]]:
            # Read when the writer lock is held: a run that wrote a newer file syncs it before or after this.
            table = self._tables(day)[VECTORS]
            yield from milvus_records(table) if table is not None else ()

        def find_elsewhere(ids: Sequence[str]) -> Iterator[dict[str, Any]]:
            table = newest_elsewhere(self._storage, VECTORS, day, ids)
            return itertools.chain.from_iterable(milvus_records(table) if table is not None else ())

        self._store.sync_day(
            day, records(), find_elsewhere=find_elsewhere, is_partial=not may_remove, keep=self._waiting(day)
        )

    def _repair_data_label(self, day: dt.date, *, may_remove: bool) -> None:
        table = self._tables(day)[LABELS]
        rows = data_label_rows(table) if table is not None else []
        present = [*(row["id_sanpham"] for row in rows), *self._waiting(day)]
        leaving = self._database.data_label_ids_leaving(day, present) if may_remove else []
        elsewhere = newest_elsewhere(self._storage, LABELS, day, leaving)
        self._database.sync_data_label(day, rows, data_label_rows(elsewhere) if elsewhere is not None else [], leaving)
