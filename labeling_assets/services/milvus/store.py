"""`MilvusStore`: the vector store of the platform, for assets, CLI, web and notebooks.

It runs on Milvus Lite and on a Milvus server alike; one contract test holds for both.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from labeling_assets.errors import ConfigurationError
from labeling_assets.products.records import LABEL_FIELDS
from labeling_assets.products.vectors import IMAGE_VECTOR
from labeling_assets.services.embedding import EmbedderIdentity
from labeling_assets.services.milvus.collection import CollectionState, ProductCollection
from labeling_assets.services.milvus.connection import MilvusConnection
from labeling_assets.services.milvus.day_sync import DaySync, FindElsewhere, Guard, SyncResult
from labeling_assets.services.milvus.filters import all_of, literal
from labeling_assets.services.milvus.rows import ProductRows, Record, StoredProduct
from labeling_assets.services.milvus.schema import PRIMARY_KEY, search_parameters

VectorField = Literal["image_vector", "description_vector"]
MAX_HITS = 16_384
"""Hits of one search (milvus.io/docs/limitations.md)."""

_SHOWN = (
    "image",
    "description",
    "platform",
    "name_store",
    "link_redirect",
    "title",
    "like",
    "comment",
    "share",
    "image_sha256",
    "has_image_vector",
    "metadata",
)
_OUTPUT_FIELDS = [PRIMARY_KEY, "date", *_SHOWN, *LABEL_FIELDS]


@dataclass(frozen=True)
class ProductHit:
    """A product as Milvus holds it.

    Attributes:
        id_sanpham: Key of the product.
        score: Cosine similarity with the query, -1 to 1; None where it was fetched by key.
        labels: The fifteen label fields.
        date: Business day.
        metadata: Everything that is only shown: source numbers, image facts, who labeled and embedded it.
    """

    id_sanpham: str
    score: float | None
    title: str | None
    image: str
    description: str
    date: dt.date
    platform: str
    name_store: str
    link_redirect: str
    like: int
    comment: int
    share: int
    image_sha256: str
    has_image_vector: bool
    labels: Mapping[str, Any]
    metadata: Mapping[str, Any]


class MilvusStore:
    """The product collection of one Milvus.

    Args:
        uri: `http://host:port`.
        token: `user:password` or API key; empty where the server asks for none.
        collection: Physical name of the collection; everybody uses its alias `<collection>_live`.
        index: auto, FLAT, IVF_FLAT or HNSW.
        identity: Embedder whose vectors the collection holds.
        writer_lock: Gives a lock that excludes every other writer of the collection, in all processes, and that is not
            taken twice by one thread: Milvus Lite loses rows of writers that overlap. It yields what is called before
            every write, and raises when another writer has taken over; see `services/writer_lease.py`.

    Raises:
        ConfigurationError: The index type is unknown.
    """

    def __init__(
        self,
        uri: str,
        token: str,
        collection: str,
        index: str,
        identity: EmbedderIdentity,
        writer_lock: Callable[[], AbstractContextManager[Guard]],
    ) -> None:
        self._connection = MilvusConnection(uri, token)
        self._identity = identity
        self._writer_lock = writer_lock
        self._collection = ProductCollection(self._connection, collection, index, identity, writer_lock)
        self._rows = ProductRows(self._connection, self._collection.alias)

    @property
    def identity(self) -> EmbedderIdentity:
        """The embedder whose vectors the collection holds."""
        return self._identity

    def ensure(self) -> None:
        """Create the collection, or what is missing of it after a crash, and load it.

        Raises:
            EmbedderMismatchError: It holds vectors of another embedder, dimension or schema, or of unknown origin.
            ServiceUnavailableError: Milvus does not answer.
        """
        self._collection.ensure()

    def check_embedder(self, identity: EmbedderIdentity) -> None:
        """Make sure that vectors of this embedder can be compared with those of the collection.

        Raises:
            ConfigurationError: There is no collection yet.
            EmbedderMismatchError: It holds vectors of another embedder, dimension or schema.
            ServiceUnavailableError: Milvus does not answer.
        """
        self._collection.check(identity)

    def state(self) -> CollectionState:
        """The state of the collection, for metadata and `labeling doctor`.

        Raises:
            ConfigurationError: There is no collection yet.
            ServiceUnavailableError: Milvus does not answer.
        """
        return self._collection.state()

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def existing(self, ids: Iterable[str]) -> dict[str, StoredProduct]:
        """Those of the products that Milvus holds, by id. Creates the collection where there is none.

        Raises:
            EmbedderMismatchError: The collection is of another embedder, dimension or schema.
            ServiceUnavailableError: Milvus does not answer.
        """
        self.ensure()
        return self._rows.existing(ids)

    def exists(self) -> bool:
        """Whether there is a collection that can be read.

        Raises:
            EmbedderMismatchError: It holds vectors of another embedder, dimension or schema.
            ServiceUnavailableError: Milvus does not answer.
        """
        if not self._connection.call("has_collection", self._collection.alias):
            return False
        self._collection.check(self._identity)
        return True

    def of_day(self, day: dt.date) -> dict[str, StoredProduct]:
        """The products that Milvus holds for a day, by id; the collection must be there, see `exists`.

        Raises:
            ServiceUnavailableError: Milvus does not answer.
        """
        return self._rows.of_day(day)

    def descriptions(self, day: dt.date) -> dict[str, str]:
        """The descriptions of the products that Milvus holds for a day, by id.

        Raises:
            ServiceUnavailableError: Milvus does not answer.
        """
        return self._rows.descriptions(day)

    def outside(self, days: Collection[dt.date]) -> dict[str, list[str]]:
        """The products of all other dates, by date as the text that Milvus holds, which need not be a date.

        Raises:
            ServiceUnavailableError: Milvus does not answer.
        """
        return self._rows.outside(days)

    def remove_date(self, date: str) -> None:
        """Remove the products with a date that is none, and that no day can therefore take care of.

        Raises:
            ServiceUnavailableError: Milvus does not answer.
        """
        with self._writer_lock() as guard:
            guard()
            self._rows.remove_date(date)
            self._rows.flush()

    def sync_day(
        self,
        day: dt.date,
        batches: Iterable[Iterable[Record]],
        *,
        find_elsewhere: FindElsewhere,
        is_partial: bool = False,
        keep: Collection[str] = (),
    ) -> SyncResult:
        """Make the day in Milvus equal the day's records.

        New and changed rows are upserted while the batches are read, 500 at a time; of records with one id the first
        counts. Unchanged rows cost nothing. A product that Milvus holds for a newer day is left to it. Products that
        left the day come back with the record of another day, or are removed; not before all batches are read. Ends
        with one flush where anything was written. Holds the writer lock throughout.

        Args:
            day: The business day.
            batches: Rows of the collection, as `products.vectors.milvus_records` gives them, all of this day.
            find_elsewhere: Gives the records that other days have of some products, the newest of each.
            is_partial: Whether the records are only a part of the day; nothing is removed then.
            keep: Products that stay although they are not among the records.

        Raises:
            ValueError: A record is of another day.
            EmbedderMismatchError: The collection, or a record, is of another embedder, dimension or schema.
            ServiceUnavailableError: Milvus does not answer; what was written is right, and doing the day again goes on.
            SupersededError: Another writer has taken over; idem.
        """
        self.ensure()
        with self._writer_lock() as guard:
            sync = DaySync(self._rows, day, self._identity.key, guard)
            return sync.run(itertools.chain.from_iterable(batches), None if is_partial else find_elsewhere, keep)

    def search(
        self,
        vector: npt.NDArray[np.float32],
        field: VectorField,
        limit: int,
        filter_expression: str = "",
        *,
        consistency: Literal["Bounded", "Strong"] = "Bounded",
    ) -> list[ProductHit]:
        """The products nearest to one vector, best first; arguments and errors are those of `search_each`."""
        return self.search_each([vector], field, limit, filter_expression, consistency=consistency)[0]

    def search_each(
        self,
        vectors: Sequence[npt.NDArray[np.float32]],
        field: VectorField,
        limit: int,
        filter_expression: str = "",
        *,
        consistency: Literal["Bounded", "Strong"] = "Bounded",
    ) -> list[list[ProductHit]]:
        """The products nearest to each vector, best first. Image search leaves out products without image vector.

        Args:
            vectors: At least one; float32, shape (dimension,), of the collection's embedder; see `check_embedder`.
            field: The vector to compare with.
            limit: Hits at most.
            filter_expression: Made with `services.milvus.filters`; empty for all products.
            consistency: Bounded may miss what was written in the last seconds; Strong waits for it on a server.

        Raises:
            ConfigurationError: The limit is out of range.
            ServiceUnavailableError: Milvus does not answer.
        """
        if not 1 <= limit <= MAX_HITS:
            raise ConfigurationError(f"A search returns 1 to {MAX_HITS} products, not {limit}.")
        has_vector = "has_image_vector == true" if field == IMAGE_VECTOR else ""
        answers = self._connection.call(
            "search",
            self._collection.alias,
            data=list(vectors),
            anns_field=field,
            limit=limit,
            filter=all_of([filter_expression, has_vector]),
            output_fields=_OUTPUT_FIELDS,
            search_params=search_parameters(self._collection.indexes().get(field, ""), len(vectors[0]), limit),
            consistency_level=consistency,
        )
        return [[_hit(row["entity"], row["distance"]) for row in rows] for rows in answers]

    def get(self, id_sanpham: str) -> ProductHit | None:
        """One product by its key, as it is now.

        Raises:
            ServiceUnavailableError: Milvus does not answer.
        """
        rows = self._connection.call(
            "query",
            self._collection.alias,
            filter=f"{PRIMARY_KEY} == {literal(id_sanpham)}",
            output_fields=_OUTPUT_FIELDS,
            consistency_level="Strong",
        )
        return _hit(rows[0], None) if rows else None

    @contextlib.contextmanager
    def exclusive_rows(self) -> Iterator[tuple[ProductRows, Guard]]:
        """The rows as they are stored, while nobody else writes. Creates the collection where there is none.

        Yields:
            The rows, and the guard to be called before every write, and after the last read: it raises when another
            writer has taken over.

        Raises:
            EmbedderMismatchError: The collection is of another embedder, dimension or schema.
            ServiceUnavailableError: Milvus does not answer.
        """
        self.ensure()
        with self._writer_lock() as guard:
            yield self._rows, guard


def _hit(row: Mapping[str, Any], score: float | None) -> ProductHit:
    return ProductHit(
        id_sanpham=row[PRIMARY_KEY],
        score=score,
        date=dt.date.fromisoformat(row["date"]),
        labels={name: row[name] if isinstance(row[name], str) else list(row[name]) for name in LABEL_FIELDS},
        **{name: row[name] for name in _SHOWN},
    )
