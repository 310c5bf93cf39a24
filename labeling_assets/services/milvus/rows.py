"""Reading and writing rows of the product collection by key and by day."""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from labeling_assets.services.milvus.connection import FLUSH_SECONDS, MilvusConnection
from labeling_assets.services.milvus.filters import all_of, any_of, in_batches, literal
from labeling_assets.services.milvus.schema import PRIMARY_KEY

Record = Mapping[str, Any]
PAGE_ROWS = 10_000
"""Rows of one page; a server returns at most 16384 at once (milvus.io/docs/limitations.md)."""
WHOLE_ROWS = 100
"""Rows of one page with all their fields; at their longest, texts and vectors of so many stay under the 64 MiB that a
server takes in one message."""
STORED_FIELDS = (PRIMARY_KEY, "row_hash", "record_hash", "date")
"""Fields of `StoredProduct`."""
WRITE_SECONDS = 20.0
"""Deadline of one write. With its repetitions during an outage it is over before a writer's lease ends."""


@dataclass(frozen=True)
class StoredProduct:
    """What Milvus holds of a product, as far as it tells whether the product changed.

    Attributes:
        row_hash: Hash of the source row that was indexed.
        record_hash: Hash of everything stored.
        date: Business day under which it was indexed.
    """

    row_hash: str
    record_hash: str
    date: dt.date


class ProductRows:
    """The rows behind one alias. Reads see every write that was acknowledged before.

    Args:
        connection: Connection to the server.
        alias: Alias of the collection.
    """

    def __init__(self, connection: MilvusConnection, alias: str) -> None:
        self._connection = connection
        self._alias = alias

    def existing(self, ids: Iterable[str]) -> dict[str, StoredProduct]:
        """Those of the products that Milvus holds, by id.

        Raises:
            ServiceUnavailableError: Milvus does not answer.
        """
        return {
            row[PRIMARY_KEY]: _stored_product(row)
            for expression in in_batches(PRIMARY_KEY, dict.fromkeys(ids))
            for row in self._query(expression)
        }

    def of_day(self, day: dt.date) -> dict[str, StoredProduct]:
        """The products that Milvus holds for a day, by id; read in pages ordered by id."""
        rows = self._paged(f"date == {literal(day.isoformat())}")
        return {row[PRIMARY_KEY]: _stored_product(row) for row in rows}

    def descriptions(self, day: dt.date) -> dict[str, str]:
        """The descriptions of the products that Milvus holds for a day, by id."""
        rows = self._paged(f"date == {literal(day.isoformat())}", [PRIMARY_KEY, "description"], WHOLE_ROWS * 10)
        return {row[PRIMARY_KEY]: row["description"] for row in rows}

    def outside(self, days: Collection[dt.date]) -> dict[str, list[str]]:
        """The products of all other dates, by date as the text that Milvus holds, which need not be a date."""
        listed = any_of(sorted(day.isoformat() for day in days))
        found: dict[str, list[str]] = {}
        for row in self._paged(f"date not in {listed}" if days else f'{PRIMARY_KEY} != ""'):
            found.setdefault(row["date"], []).append(row[PRIMARY_KEY])
        return found

    def whole(self, field_names: Sequence[str]) -> Iterator[list[Record]]:
        """Every row with these fields, in pages of at most `WHOLE_ROWS`, ordered by id."""
        ids = (row[PRIMARY_KEY] for row in self._paged(f'{PRIMARY_KEY} != ""'))
        # Milvus Lite looks at every row for each page of a range, but at the rows alone for ids that are named.
        while page := list(itertools.islice(ids, WHOLE_ROWS)):
            rows: dict[str, Record] = {}
            for expression in in_batches(PRIMARY_KEY, page):
                found = self._query(expression, field_names)
                rows.update((row[PRIMARY_KEY], row) for row in found)
            yield [rows[id_] for id_ in page if id_ in rows]

    def upsert(self, records: Sequence[Record]) -> None:
        """Insert or replace rows; no id may occur twice, since a server would keep both."""
        self._connection.call("upsert", self._alias, list(records), seconds=WRITE_SECONDS)

    def remove(self, ids: Iterable[str]) -> None:
        """Remove the rows of these products."""
        for expression in in_batches(PRIMARY_KEY, ids):
            self._connection.call("delete", self._alias, filter=expression, seconds=WRITE_SECONDS)

    def remove_date(self, date: str) -> None:
        """Remove all rows with a date, given as text."""
        self._connection.call("delete", self._alias, filter=f"date == {literal(date)}", seconds=WRITE_SECONDS)

    def flush(self) -> None:
        """Write what is in memory to storage; Milvus Lite searches rows in memory fifty times slower."""
        self._connection.call("flush", self._alias, seconds=FLUSH_SECONDS)

    def _paged(
        self, expression: str, field_names: Sequence[str] = STORED_FIELDS, page_rows: int = PAGE_ROWS
    ) -> Iterator[Mapping[str, Any]]:
        beyond = ""
        while True:
            # Only a request of an iterator is sorted by key; pymilvus's own iterator does not escape its cursor.
            page = self._query(all_of([expression, beyond]), field_names, limit=page_rows, iterator="True")
            yield from page
            if len(page) < page_rows:
                return
            beyond = f"{PRIMARY_KEY} > {literal(max(row[PRIMARY_KEY] for row in page))}"

    def _query(
        self,
        expression: str,
        field_names: Sequence[str] = STORED_FIELDS,
        **options: Any,  # noqa: ANN401 - passed to pymilvus
    ) -> Sequence[Mapping[str, Any]]:
        rows: Sequence[Mapping[str, Any]] = self._connection.call(
            "query",
            self._alias,
            filter=expression,
            output_fields=list(field_names),
            consistency_level="Strong",
            **options,
        )
        return rows


def _stored_product(row: Mapping[str, Any]) -> StoredProduct:
    """What a row tells; a date that is none is older than every day, so that any day may replace the row."""
    try:
        day = dt.date.fromisoformat(row["date"])
    except ValueError:
        day = dt.date.min
    return StoredProduct(row["row_hash"], row["record_hash"], day)
