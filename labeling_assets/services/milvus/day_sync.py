"""The algorithm that makes one day in Milvus equal the day's records.

A product has one row, and the newest day that has it wins. Upserts begin with the first batch; nothing is removed
before the last one is read, so that a run that dies half-way has only added what belongs there. Doing a day again is
safe at any point: what is written follows from the records and from what Milvus holds, and from nothing else.
"""

from __future__ import annotations

import datetime as dt
import itertools
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from labeling_assets.errors import EmbedderMismatchError
from labeling_assets.services.milvus.rows import ProductRows, Record, StoredProduct
from labeling_assets.services.milvus.schema import PRIMARY_KEY

BATCH_ROWS = 500
"""Rows of one upsert: the fastest on Milvus Lite, and nearly so on a server."""
BATCH_BYTES = 32 * 1024 * 1024
"""Half of what the proxy of a Milvus server takes in one message (proxy.grpc.serverMaxRecvSize)."""

FindElsewhere = Callable[[Sequence[str]], Iterable[Record]]
Guard = Callable[[], None]


@dataclass
class SyncResult:
    """What a synchronisation did, by product id.

    Attributes:
        inserted_ids: Products that Milvus did not hold.
        updated_ids: Products whose record or day changed.
        removed_ids: Products that left the day and that no other day has.
        restored_ids: Products that left the day and are back with the record of another day.
        unchanged: Products that were left as they are.
        held_by_newer_day: Products that were left as they are because Milvus holds them for a newer day.
        insert_batches: Calls of upsert.
        seconds: Duration.
    """

    inserted_ids: list[str] = field(default_factory=list)
    updated_ids: list[str] = field(default_factory=list)
    removed_ids: list[str] = field(default_factory=list)
    restored_ids: list[str] = field(default_factory=list)
    unchanged: int = 0
    held_by_newer_day: int = 0
    insert_batches: int = 0
    seconds: float = 0.0

    @property
    def new(self) -> int:
        """Number of products that Milvus did not hold."""
        return len(self.inserted_ids)

    @property
    def updated(self) -> int:
        """Number of products whose record or day changed."""
        return len(self.updated_ids)

    @property
    def removed(self) -> int:
        """Number of products removed."""
        return len(self.removed_ids)

    @property
    def restored(self) -> int:
        """Number of products that are back with the record of another day."""
        return len(self.restored_ids)


class DaySync:
    """One synchronisation of one day; the caller holds the writer lock.

    Args:
        rows: Rows of the collection.
        day: The business day.
        embedder: `EmbedderIdentity.key` of the collection.
        guard: Called before every write; raises when another writer has taken over.
    """

    def __init__(self, rows: ProductRows, day: dt.date, embedder: str, guard: Guard) -> None:
        self._rows = rows
        self._guard = guard
        self._embedder = embedder
        self._day = day
        self._held: dict[str, StoredProduct] = {}
        self._seen: set[str] = set()
        self.result = SyncResult()

    def run(
        self, records: Iterable[Record], find_elsewhere: FindElsewhere | None, keep: Collection[str] = ()
    ) -> SyncResult:
        """Write what is new or changed, then restore or remove what left the day, then flush once.

        Args:
            records: The day's rows of the collection.
            find_elsewhere: Gives the records that other days have of products, at most one each; None leaves products
                in Milvus that are not among the records.
            keep: Products that stay although they are not among the records.
        """
        started = time.monotonic()
        self._held = self._rows.of_day(self._day)
        self._upsert(self._changed(records))
        if find_elsewhere is not None:
            left = [id_ for id_ in self._held if id_ not in self._seen and id_ not in keep]
            self._upsert(self._restored(left, find_elsewhere))
            self.result.removed_ids = sorted(set(left) - set(self.result.restored_ids))
            for start in range(0, len(self.result.removed_ids), BATCH_ROWS):
                self._guard()
                self._rows.remove(self.result.removed_ids[start : start + BATCH_ROWS])
        if self.result.insert_batches or self.result.removed_ids:
            self._rows.flush()
        self.result.seconds = time.monotonic() - started
        return self.result

    def _upsert(self, records: Iterable[Record]) -> None:
        for batch in _bounded(records):
            self._refuse_other_embedders(batch)
            self._guard()
            self._rows.upsert(batch)
            self.result.insert_batches += 1

    def _refuse_other_embedders(self, batch: Iterable[Record]) -> None:
        for record in batch:
            if record["metadata"]["embedder"] != self._embedder:
                raise EmbedderMismatchError(
                    f"{record[PRIMARY_KEY]!r} of {record['date']} has vectors of {record['metadata']['embedder']}, "
                    f"but the collection is of {self._embedder}.",
                    "Materialize clip_vectors of that day again.",
                )

    def _changed(self, records: Iterable[Record]) -> Iterator[Record]:
        """The records that must be written; of several with one id the first."""
        distinct = self._distinct(records)
        while batch := list(itertools.islice(distinct, BATCH_ROWS)):
            elsewhere = self._rows.existing(
                record[PRIMARY_KEY] for record in batch if record[PRIMARY_KEY] not in self._held
            )
            for record in batch:
                id_ = record[PRIMARY_KEY]
                if self._must_be_written(record, self._held.get(id_) or elsewhere.get(id_)):
                    yield record

    def _distinct(self, records: Iterable[Record]) -> Iterator[Record]:
        for record in records:
            if record["date"] != self._day.isoformat():
                msg = f"record {record[PRIMARY_KEY]!r} is of {record['date']}, not of {self._day}"
                raise ValueError(msg)
            if record[PRIMARY_KEY] not in self._seen:
                self._seen.add(record[PRIMARY_KEY])
                yield record

    def _must_be_written(self, record: Record, stored: StoredProduct | None) -> bool:
        if stored is None:
            self.result.inserted_ids.append(record[PRIMARY_KEY])
            return True
        if stored.date > self._day:
            self.result.held_by_newer_day += 1
            return False
        if (stored.date, stored.record_hash) == (self._day, record["record_hash"]):
            self.result.unchanged += 1
            return False
        self.result.updated_ids.append(record[PRIMARY_KEY])
        return True

    def _restored(self, left: Sequence[str], find_elsewhere: FindElsewhere) -> Iterator[Record]:
        waiting = set(left)
        for record in find_elsewhere(left) if left else ():
            if record[PRIMARY_KEY] not in waiting or record["date"] == self._day.isoformat():
                msg = f"no other day's record of a product that left: {record[PRIMARY_KEY]!r} of {record['date']}"
                raise ValueError(msg)
            waiting.remove(record[PRIMARY_KEY])
            self.result.restored_ids.append(record[PRIMARY_KEY])
            yield record


def _bounded(records: Iterable[Record]) -> Iterator[list[Record]]:
    """The records in batches that one message holds."""
    batch: list[Record] = []
    batch_bytes = 0
    for record in records:
        size_bytes = sum(_size_bytes(value) for value in record.values())
        if batch and batch_bytes + size_bytes > BATCH_BYTES:
            yield batch
            batch, batch_bytes = [], 0
        batch.append(record)
        batch_bytes += size_bytes
        if len(batch) == BATCH_ROWS:
            yield batch
            batch, batch_bytes = [], 0
    if batch:
        yield batch


def _size_bytes(value: object) -> int:
    return value.nbytes if isinstance(value, np.ndarray) else len(str(value).encode())
