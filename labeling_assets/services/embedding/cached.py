"""Vectors by content: what an embedder has seen once it does not see again.

Works with every `Embedder`, in front of the table `vector_cache`. Vectors are stored batch by batch, so that a run that
dies half-way has lost one batch at most.
"""

from __future__ import annotations

import collections
import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import numpy.typing as npt
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from labeling_assets.errors import ConfigurationError, RowError, VectorError
from labeling_assets.services.embedding import Embedder, EmbedderIdentity
from labeling_assets.services.postgres import database_errors, waits_out_outages
from labeling_assets.services.tables import vector_cache

if TYPE_CHECKING:
    from PIL import Image

FloatArray = npt.NDArray[np.float32]
Item = TypeVar("Item")

TEXT_BATCH = 32
IMAGE_BATCH = 16
"""Texts and images of one call of the embedder, as the source system had them (requirement P9)."""
LOOKUP_BATCH = 500
"""Contents of one query; their vectors take 2 MB at 1024 dimensions."""
OPEN_THREADS = 4
OPEN_AHEAD = 2 * IMAGE_BATCH
"""Decoded images that wait at most; a 512 px image takes 0.8 MB."""

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


class CachedEmbedder:
    """An embedder with a memory in Postgres.

    Args:
        embedder: Computes what is not known.
        engine: Engine of the database with table `labeling.vector_cache`.
    """

    def __init__(self, embedder: Embedder, engine: sa.Engine) -> None:
        self._embedder = embedder
        self._engine = engine
        self.counts = CacheCounts()

    @property
    def identity(self) -> EmbedderIdentity:
        """Identity of the embedder."""
        return self._embedder.identity

    def model_info(self) -> dict[str, str | int]:
        """See `Embedder.model_info`."""
        return self._embedder.model_info()

    def embed_texts(self, texts: Sequence[str]) -> FloatArray:
        """Unit vectors of the texts, float32, shape (len(texts), dimension); the zero vector for a blank text.

        Raises:
            VectorError: The embedder gave a vector that is not finite or not of unit length.
            ConfigurationError: The embedder gave vectors of another shape than it says.
            ServiceUnavailableError: Postgres does not answer.
        """
        keys = [f"text:{hashlib.sha256(text.encode()).hexdigest()}" if text.strip() else None for text in texts]
        positions = _positions(keys)
        vectors = np.zeros((len(texts), self.identity.dimension), dtype=np.float32)
        for batch in _batches(self._fill_known(vectors, positions), TEXT_BATCH):
            self.counts.computed += len(batch)
            embedded = self._checked(
                self._embedder.embed_texts([texts[positions[key][0]] for key in batch]), len(batch)
            )
            self._keep(dict(zip(batch, embedded, strict=True)), vectors, positions)
        return vectors

    def embed_images(
        self, shas: Sequence[str], open_image: Callable[[str], Image.Image]
    ) -> tuple[FloatArray, dict[int, VectorError]]:
        """Unit vectors of images, and the error of each that has none.

        Args:
            shas: sha256 of each image; an image that occurs twice is embedded once.
            open_image: Gives the decoded image of a sha256, in any thread. A `RowError` concerns that image alone; any
                other error ends the call.

        Returns:
            Float32 array of shape (len(shas), dimension), and the errors by position. The row of an image with an error
            is NaN, so that it cannot pass for a vector.

        Raises:
            ConfigurationError: The embedder gave vectors of another shape than it says.
            ServiceUnavailableError: Postgres does not answer.
        """
        positions = _positions([f"image:{sha}" for sha in shas])
        vectors = np.full((len(shas), self.identity.dimension), np.nan, dtype=np.float32)
        errors: dict[int, VectorError] = {}
        missing = self._fill_known(vectors, positions)
        opened = _opened(missing, lambda key: open_image(key.removeprefix("image:")))
        for batch in _batches(opened, IMAGE_BATCH):
            images = [(key, image) for key, image in batch if not isinstance(image, VectorError)]
            self.counts.computed += len(images)
            outcomes = dict(batch) | self._embed_each(images)
            failed = {key: outcome for key, outcome in outcomes.items() if isinstance(outcome, VectorError)}
            errors.update((position, error) for key, error in failed.items() for position in positions[key])
            embedded = {key: outcome for key, outcome in outcomes.items() if isinstance(outcome, np.ndarray)}
            self._keep(embedded, vectors, positions)
        return vectors, errors

    def _embed_each(self, images: Sequence[tuple[str, Image.Image]]) -> dict[str, FloatArray | VectorError]:
        """The vector or the error of each image; a batch that fails is halved until the faulty image stands alone."""
        if not images:
            return {}
        try:
            vectors = self._checked(self._embedder.embed_images([image for _, image in images]), len(images))
        except VectorError as error:
            if len(images) == 1:
                return {images[0][0]: error}
            middle = len(images) // 2
            return self._embed_each(images[:middle]) | self._embed_each(images[middle:])
        return {key: vector for (key, _), vector in zip(images, vectors, strict=True)}

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


def _opened(
    keys: Iterable[str], open_image: Callable[[str], Image.Image]
) -> Iterator[tuple[str, Image.Image | VectorError]]:
    """Each key with its image, in order, opened a bounded number ahead of who reads them."""
    waiting: collections.deque[tuple[str, Future[Image.Image]]] = collections.deque()
    with ThreadPoolExecutor(OPEN_THREADS, thread_name_prefix="open-image") as pool:
        for key in keys:
            waiting.append((key, pool.submit(open_image, key)))
            if len(waiting) == OPEN_AHEAD:
                yield _result(*waiting.popleft())
        while waiting:
            yield _result(*waiting.popleft())


def _result(key: str, future: Future[Image.Image]) -> tuple[str, Image.Image | VectorError]:
    try:
        return key, future.result()
    except RowError as error:
        return key, VectorError(f"The image cannot be read: {error}")
