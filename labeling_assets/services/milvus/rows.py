"""Reading and writing rows of the product collection by key and by day."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from labeling_assets.services.milvus.connection import FLUSH_SECONDS, MilvusConnection
from labeling_assets.services.milvus.filters import all_of, in_batches, literal
from labeling_assets.services.milvus.schema import PRIMARY_KEY

Record = Mapping[str, Any]
PAGE_ROWS = 10_000
"""Rows of one page; a server returns at most 16384 at once (milvus.io/docs/limitations.md)."""


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
        found = {}
        for expression in in_batches(PRIMARY_KEY, dict.fromkeys(ids)):
            found.update(self._stored(expression))
        return found

    def of_day(self, day: dt.date) -> dict[str, StoredProduct]:
        """The products that Milvus holds for a day, by id; read in pages ordered by id."""
        of_day = f"date == {literal(day.isoformat())}"
        found: dict[str, StoredProduct] = {}
        beyond = ""
        while True:
            # Only a request of an iterator is sorted by key; pymilvus's own iterator does not escape its cursor.
            page = self._stored(all_of([of_day, beyond]), limit=PAGE_ROWS, iterator="True")
            found.update(page)
            if len(page) < PAGE_ROWS:
                return found
            beyond = f"{PRIMARY_KEY} > {literal(max(page))}"

    def upsert(self, records: Sequence[Record]) -> None:
        """Insert or replace rows; no id may occur twice, since a server would keep both."""
        self._connection.call("upsert", self._alias, list(records))

    def remove(self, ids: Iterable[str]) -> None:
        """Remove the rows of these products."""
        for expression in in_batches(PRIMARY_KEY, ids):
            self._connection.call("delete", self._alias, filter=expression)

    def flush(self) -> None:
        """Write what is in memory to storage; Milvus Lite searches rows in memory fifty times slower."""
        self._connection.call("flush", self._alias, seconds=FLUSH_SECONDS)

    def _stored(self, expression: str, **options: Any) -> dict[str, StoredProduct]:  # noqa: ANN401 - passed to pymilvus
        rows = self._connection.call(
            "query",
            self._alias,
            filter=expression,
            output_fields=[PRIMARY_KEY, "row_hash", "record_hash", "date"],
            consistency_level="Strong",
            **options,
        )
        return {
            row[PRIMARY_KEY]: StoredProduct(row["row_hash"], row["record_hash"], dt.date.fromisoformat(row["date"]))
            for row in rows
        }
