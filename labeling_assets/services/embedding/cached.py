"""Vectors by content: what an embedder has seen once it does not see again.

Works with every `Embedder`, in front of the table `vector_cache`. Reading, embedding and storing overlap. Vectors are
stored as they come, so that a run that dies half-way has lost a few batches of each device at most.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import numpy.typing as npt
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from labeling_assets.errors import ConfigurationError, RowError, VectorError
from labeling_assets.services.embedding import Embedder, EmbedderIdentity
from labeling_assets.services.pipeline import Pipeline, Ready
from labeling_assets.services.postgres import database_errors, waits_out_outages
from labeling_assets.services.tables import vector_cache

if TYPE_CHECKING:
    from PIL import Image

FloatArray = npt.NDArray[np.float32]
Item = TypeVar("Item")

TEXT_BATCH = 32
IMAGE_BATCH = 16
"""Texts and images of one call of the embedder, as the source system had them; an embedder may have another best
size for images."""
LOOKUP_BATCH = 500
"""Contents of one query; their vectors take 2 MB at 1024 dimensions."""

STORED_TYPE = "<f4"
UNIT_LENGTH_TOLERANCE = 1e-3


@dataclass
class CacheCounts:
    """Distinct contents since the cache was made.

    Attributes:
        computed: Contents that the embedder was asked for.
        cached: Contents whose vector was known.
    """

    computed: int = 0
    cached: int = 0


@dataclass(frozen=True)
class _Outcome:
    """What became of a content: its vector, or why it has none."""

    key: str
    result: FloatArray | RowError
    is_computed: bool = True


class CachedEmbedder:
    """An embedder with a memory in Postgres.

    Args:
        embedder: Computes what is not known, in as many threads as it has workers.
        engine: Engine of the database with table `labeling.vector_cache`.
        image_batch: Images of one call of the embedder; 0: what `model_info` names as `batch_size`, else 16.
    """

    def __init__(self, embedder: Embedder, engine: sa.Engine, image_batch: int = 0) -> None:
        self._embedder = embedder
        self._engine = engine
        self._image_batch = image_batch
        self.counts = CacheCounts()

    @property
    def identity(self) -> EmbedderIdentity:
        """Identity of the embedder."""
        return self._embedder.identity

    def model_info(self) -> dict[str, str | int]:
        """See `Embedder.model_info`."""
        return self._embedder.model_info()

    def embed_texts(self, texts: Sequence[str]) -> tuple[FloatArray, dict[int, RowError]]:
        """Unit vectors of texts, and the error of each that has none; the zero vector for a blank text.

        Returns:
            As `embed_images`.

        Raises:
            ConfigurationError: The embedder gave vectors of another shape than it says.
            ServiceUnavailableError: Postgres does not answer.
        """
        keys = [f"text:{hashlib.sha256(text.encode()).hexdigest()}" if text.strip() else None for text in texts]
        positions = _positions(keys)
        vectors = np.zeros((len(texts), self.identity.dimension), dtype=np.float32)

        def read(key: str) -> Ready[str] | _Outcome:
            return Ready(texts[positions[key][0]])

        def embed(batch: Sequence[tuple[str, str]]) -> list[_Outcome]:
            return self._embed_each(self._embedder.embed_texts, batch)

        missing = self._fill_known(vectors, positions)
        # Models pad a batch to its longest text. The longest first, so that memory which suffices for them suffices.
        missing.sort(key=lambda key: -len(texts[positions[key][0]]))
        pipeline = Pipeline(self._embedder.workers, read, embed, batch=TEXT_BATCH, readers=1)
        return vectors, self._compute(pipeline, missing, vectors, positions)

    def embed_images(
        self, shas: Sequence[str], open_image: Callable[[str], Image.Image]
    ) -> tuple[FloatArray, dict[int, RowError]]:
        """Unit vectors of images, and the error of each that has none.

        Args:
            shas: sha256 of each image; an image that occurs twice is embedded once.
            open_image: Gives the decoded image of a sha256, in any thread. A `RowError` concerns that image alone; any
                other error ends the call.

        Returns:
            Float32 array of one row per item, shape (n, dimension), and the errors by position. The row of an item with
            an error is NaN, so that it cannot pass for a vector.

        Raises:
            ConfigurationError: The embedder gave vectors of another shape than it says.
            ServiceUnavailableError: Postgres does not answer.
        """
        positions = _positions([f"image:{sha}" for sha in shas])
        vectors = np.zeros((len(shas), self.identity.dimension), dtype=np.float32)

        def read(key: str) -> Ready[Image.Image] | _Outcome:
            try:
                return Ready(open_image(key.removeprefix("image:")))
            except RowError as error:
                return _Outcome(key, error, is_computed=False)

        def embed(batch: Sequence[tuple[str, Image.Image]]) -> list[_Outcome]:
            return self._embed_each(self._embedder.embed_images, batch)

        missing = self._fill_known(vectors, positions)
        batch = self._image_batch or int(self._embedder.model_info().get("batch_size", IMAGE_BATCH))
        pipeline = Pipeline(self._embedder.workers, read, embed, batch=batch)
        return vectors, self._compute(pipeline, missing, vectors, positions)

    def _compute(
        self,
        pipeline: Pipeline[Item, _Outcome],
        missing: Sequence[str],
        vectors: FloatArray,
        positions: Mapping[str, Sequence[int]],
    ) -> dict[int, RowError]:
        """Store vectors and write them to the result while the next are computed; returns the errors by position."""
        errors: dict[int, RowError] = {}
        try:
            pipeline.submit(missing)
            while pipeline.outstanding:
                outcomes = pipeline.next_outcomes()
                self.counts.computed += sum(outcome.is_computed for outcome in outcomes)
                results = {outcome.key: outcome.result for outcome in outcomes}
                embedded = {key: result for key, result in results.items() if isinstance(result, np.ndarray)}
                self._keep(embedded, vectors, positions)
                failed = {key: result for key, result in results.items() if isinstance(result, RowError)}
                errors |= {position: error for key, error in failed.items() for position in positions[key]}
        finally:
            pipeline.stop()
        vectors[list(errors)] = np.nan
        return errors

    def _embed_each(
        self, embed: Callable[[Sequence[Item]], FloatArray], items: Sequence[tuple[str, Item]]
    ) -> list[_Outcome]:
        """The vector or the error of each item; a batch that fails is halved until the faulty item stands alone."""
        try:
            vectors = self._checked(embed([item for _, item in items]), len(items))
        except VectorError as error:
            if len(items) == 1:
                return [_Outcome(items[0][0], error)]
            middle = len(items) // 2
            return self._embed_each(embed, items[:middle]) + self._embed_each(embed, items[middle:])
        return [_Outcome(key, vector) for (key, _), vector in zip(items, vectors, strict=True)]

    def _checked(self, vectors: FloatArray, count: int) -> FloatArray:
        if vectors.shape != (count, self.identity.dimension):
            raise ConfigurationError(
                f"{self.identity.key} gave vectors of shape {vectors.shape} for {count} items.",
                "The embedder is broken, or is not the model that it says it is.",
            )
        if not all(map(_is_unit, vectors)):
            raise VectorError(f"{self.identity.key} gave a vector that is not finite or not of unit length.")
        return vectors.astype(np.float32, copy=False)

    def _fill_known(self, vectors: FloatArray, positions: Mapping[str, Sequence[int]]) -> list[str]:
        """Write the vectors that the table has, and return the contents that it has not, in order."""
        missing = []
        for batch in _batches(positions, LOOKUP_BATCH):
            known = self._known(batch)
            for key, vector in known.items():
                vectors[positions[key]] = vector
            self.counts.cached += len(known)
            missing += [key for key in batch if key not in known]
        return missing

    @waits_out_outages
    def _known(self, keys: Sequence[str]) -> dict[str, FloatArray]:
        query = sa.select(vector_cache.c.content_key, vector_cache.c.vector).where(
            vector_cache.c.embedder == self.identity.key,
            vector_cache.c.content_key == sa.any_(sa.literal(keys, sa.ARRAY(sa.Text))),
        )
        with database_errors("The vector cache cannot be read"), self._engine.connect() as connection:
            rows = connection.execute(query).all()
        known = {key: np.frombuffer(content, dtype=STORED_TYPE) for key, content in rows if len(content) % 4 == 0}
        # A damaged row is computed again and replaced.
        return {
            key: vector for key, vector in known.items() if len(vector) == self.identity.dimension and _is_unit(vector)
        }

    def _keep(
        self, embedded: Mapping[str, FloatArray], vectors: FloatArray, positions: Mapping[str, Sequence[int]]
    ) -> None:
        """Write new vectors to the table and to the result."""
        for key, vector in embedded.items():
            vectors[positions[key]] = vector
        if not embedded:
            return
        # Two processes that store the same contents wait for each other in one order, and never in a ring.
        rows = [
            {"embedder": self.identity.key, "content_key": key, "vector": embedded[key].astype(STORED_TYPE).tobytes()}
            for key in sorted(embedded)
        ]
        self._store(rows)

    @waits_out_outages
    def _store(self, rows: Sequence[Mapping[str, object]]) -> None:
        statement = insert(vector_cache).values([dict(row) for row in rows])
        statement = statement.on_conflict_do_update(
            index_elements=[vector_cache.c.embedder, vector_cache.c.content_key],
            set_={"vector": statement.excluded.vector},
        )
        with database_errors("The vector cache cannot be written"), self._engine.begin() as connection:
            connection.execute(statement)


def _positions(keys: Iterable[str | None]) -> dict[str, list[int]]:
    """Where each content stands, in order of first appearance; None stands for no content."""
    positions: dict[str, list[int]] = {}
    for position, key in enumerate(keys):
        if key is not None:
            positions.setdefault(key, []).append(position)
    return positions


def _batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    iterator = iter(items)
    while batch := list(itertools.islice(iterator, size)):
        yield batch


def _is_unit(vector: FloatArray) -> bool:
    return bool(abs(float(np.linalg.norm(vector)) - 1) <= UNIT_LENGTH_TOLERANCE)
