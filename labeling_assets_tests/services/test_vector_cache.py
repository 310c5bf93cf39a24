"""The vector cache: each distinct content is embedded once, and no unusable vector gets in or out."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence

import numpy as np
import pytest
import sqlalchemy as sa
from milvus_samples import DIMENSION, IDENTITY, vector
from PIL import Image

from labeling_assets.errors import (
    ConfigurationError,
    ImageError,
    ImageUnavailableError,
    InvalidImageError,
    ServiceUnavailableError,
    VectorError,
)
from labeling_assets.services.embedding import EmbedderIdentity
from labeling_assets.services.embedding.cached import IMAGE_BATCH, TEXT_BATCH, CachedEmbedder
from labeling_assets.services.embedding.embedded import EmbeddedEmbedder
from labeling_assets.services.postgres import create_engine
from labeling_assets.services.tables import vector_cache


class CountingEmbedder:
    """Embeds texts by their words and images by their first pixel, and remembers what it was asked."""

    workers = 1

    def __init__(self, identity: EmbedderIdentity = IDENTITY, faulty_pixel: int = -1) -> None:
        self.identity = identity
        self.faulty_pixel = faulty_pixel
        self.text_batches: list[list[str]] = []
        self.image_batches: list[list[int]] = []

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        self.text_batches.append(list(texts))
        return np.stack([vector(text) for text in texts])

    def embed_query(self, text: str) -> np.ndarray:
        return vector(text)

    def embed_images(self, images: Sequence[Image.Image]) -> np.ndarray:
        pixels = [pixel_of(image) for image in images]
        self.image_batches.append(pixels)
        vectors = np.stack([vector(str(pixel)) for pixel in pixels])
        vectors[[pixel == self.faulty_pixel for pixel in pixels]] = np.nan
        return vectors

    def model_info(self) -> dict[str, str | int]:
        return {"name": self.identity.name}

    def close(self) -> None:
        pass


def pixel_of(image: Image.Image) -> int:
    value = image.getpixel((0, 0))
    assert isinstance(value, tuple)
    return int(value[0])


def image_of(sha: str) -> Image.Image:
    return Image.new("RGB", (4, 4), (int(sha), 0, 0))


def shas(*numbers: int) -> list[str]:
    return [str(number) for number in numbers]


def test_a_text_is_embedded_once_in_all_runs(engine: sa.Engine) -> None:
    embedder = CountingEmbedder()
    first = CachedEmbedder(embedder, engine)
    vectors, errors = first.embed_texts(["cốc", "mug", "cốc", "tote"])
    assert errors == {}
    np.testing.assert_array_equal(vectors, np.stack([vector(text) for text in ("cốc", "mug", "cốc", "tote")]))
    assert (first.counts.computed, first.counts.cached) == (3, 0)
    second = CachedEmbedder(embedder, engine)
    np.testing.assert_array_equal(second.embed_texts(["tote", "new", "cốc"])[0][[0, 2]], vectors[[3, 0]])
    assert (second.counts.computed, second.counts.cached) == (1, 2)
    assert embedder.text_batches == [["tote", "cốc", "mug"], ["new"]], "the longest first"


def test_texts_and_images_are_embedded_in_batches(engine: sa.Engine) -> None:
    embedder = CountingEmbedder()
    cached = CachedEmbedder(embedder, engine)
    cached.embed_texts([f"text {number}" for number in range(70)])
    assert [len(batch) for batch in embedder.text_batches] == [TEXT_BATCH, TEXT_BATCH, 6]
    cached.embed_images(shas(*range(40)), image_of)
    assert [len(batch) for batch in embedder.image_batches] == [IMAGE_BATCH, IMAGE_BATCH, 8]
    assert embedder.image_batches[0] == list(range(IMAGE_BATCH))


def test_a_blank_text_is_the_zero_vector_and_is_not_embedded(engine: sa.Engine) -> None:
    embedder = CountingEmbedder()
    vectors, _ = CachedEmbedder(embedder, engine).embed_texts(["", "mug", " \n"])
    assert not vectors[[0, 2]].any()
    assert vectors[1].any()
    assert embedder.text_batches == [["mug"]]


def test_nothing_to_embed_gives_an_empty_array(engine: sa.Engine) -> None:
    cached = CachedEmbedder(CountingEmbedder(), engine)
    assert cached.embed_texts([])[0].shape == (0, DIMENSION)
    vectors, errors = cached.embed_images([], image_of)
    assert (vectors.shape, vectors.dtype, errors) == ((0, DIMENSION), np.float32, {})


def test_a_text_and_an_image_of_one_sha256_are_two_contents(engine: sa.Engine) -> None:
    cached = CachedEmbedder(CountingEmbedder(), engine)
    sha = hashlib.sha256(b"mug").hexdigest()
    cached.embed_texts(["mug"])
    vectors, _ = cached.embed_images([sha], lambda _: image_of("7"))
    np.testing.assert_array_equal(vectors[0], vector("7"))


def test_vectors_of_another_embedder_are_not_used(engine: sa.Engine) -> None:
    CachedEmbedder(CountingEmbedder(), engine).embed_texts(["mug"])
    other = CachedEmbedder(CountingEmbedder(EmbedderIdentity("test", "r2", "p1", DIMENSION)), engine)
    other.embed_texts(["mug"])
    assert (other.counts.computed, other.counts.cached) == (1, 0)


def test_the_same_image_on_many_products_is_opened_and_embedded_once(engine: sa.Engine) -> None:
    opened: list[str] = []

    def open_image(sha: str) -> Image.Image:
        opened.append(sha)
        return image_of(sha)

    vectors, errors = CachedEmbedder(CountingEmbedder(), engine).embed_images(shas(5, 9, 5, 5), open_image)
    assert (sorted(opened), errors) == (["5", "9"], {})
    np.testing.assert_array_equal(vectors, np.stack([vector(text) for text in "5955"]))


@pytest.mark.parametrize("faulty", [0, 7, 15, 16, 19])
def test_a_faulty_image_fails_alone(engine: sa.Engine, faulty: int) -> None:
    cached = CachedEmbedder(CountingEmbedder(faulty_pixel=faulty), engine)
    numbers = [*range(20), faulty]
    vectors, errors = cached.embed_images(shas(*numbers), image_of)
    assert set(errors) == {faulty, 20}
    assert all(isinstance(error, VectorError) for error in errors.values())
    assert np.isnan(vectors[[faulty, 20]]).all()
    for position in set(range(20)) - {faulty}:
        np.testing.assert_array_equal(vectors[position], vector(str(position)))
    again = CachedEmbedder(CountingEmbedder(), engine)
    again.embed_images(shas(*range(20)), image_of)
    assert (again.counts.computed, again.counts.cached) == (1, 19)


def test_an_image_that_cannot_be_read_fails_alone(engine: sa.Engine) -> None:
    def open_image(sha: str) -> Image.Image:
        if sha == "3":
            raise InvalidImageError("cut off after 12 bytes")
        return image_of(sha)

    vectors, errors = CachedEmbedder(CountingEmbedder(), engine).embed_images(shas(1, 3, 5), open_image)
    assert set(errors) == {1}
    assert np.isnan(vectors[1]).all()
    assert np.isfinite(vectors[[0, 2]]).all()


@pytest.mark.parametrize("error", [InvalidImageError("cut off after 12 bytes"), ImageUnavailableError("no file")])
def test_an_image_that_cannot_be_read_keeps_its_error_and_whether_a_retry_can_help(
    engine: sa.Engine, error: ImageError
) -> None:
    def open_image(sha: str) -> Image.Image:
        raise error

    _, errors = CachedEmbedder(CountingEmbedder(), engine).embed_images(["1"], open_image)
    assert errors == {0: error}


@pytest.mark.parametrize("faulty", [0, 17, TEXT_BATCH, TEXT_BATCH + 7])
def test_a_faulty_text_fails_alone(engine: sa.Engine, faulty: int) -> None:
    texts = [f"text {number:03d}" for number in range(TEXT_BATCH + 8)]

    class Faulty(CountingEmbedder):
        def embed_texts(self, batch: Sequence[str]) -> np.ndarray:
            if texts[faulty] in batch:
                raise VectorError("The embedder returned a vector that is not finite, or zero.")
            return super().embed_texts(batch)

    vectors, errors = CachedEmbedder(Faulty(), engine).embed_texts([*texts, texts[faulty], ""])
    assert set(errors) == {faulty, len(texts)}
    assert np.isnan(vectors[[faulty, len(texts)]]).all()
    assert not vectors[-1].any()
    for position in set(range(len(texts))) - {faulty}:
        np.testing.assert_array_equal(vectors[position], vector(texts[position]))
    again = CachedEmbedder(CountingEmbedder(), engine)
    again.embed_texts(texts)
    assert (again.counts.computed, again.counts.cached) == (1, len(texts) - 1)


def test_a_store_that_cannot_be_read_ends_the_call(engine: sa.Engine) -> None:
    def open_image(sha: str) -> Image.Image:
        raise PermissionError(sha)

    with pytest.raises(PermissionError):
        CachedEmbedder(CountingEmbedder(), engine).embed_images(shas(1, 2), open_image)


def test_images_are_opened_a_bounded_number_ahead(engine: sa.Engine) -> None:
    lock, opened, embedded, most = threading.Lock(), [0], [0], [0]

    def open_image(sha: str) -> Image.Image:
        with lock:
            opened[0] += 1
            most[0] = max(most[0], opened[0] - embedded[0])
        return image_of(sha)

    class Slow(CountingEmbedder):
        def embed_images(self, images: Sequence[Image.Image]) -> np.ndarray:
            with lock:
                embedded[0] += len(images)
            return super().embed_images(images)

    CachedEmbedder(Slow(), engine).embed_images(shas(*range(200)), open_image)
    assert opened[0] == 200
    assert most[0] <= 2 * IMAGE_BATCH, "one batch is computed, one is waiting"


@pytest.mark.parametrize("content", [b"", b"123", np.zeros(DIMENSION, "<f4").tobytes(), np.ones(4, "<f4").tobytes()])
def test_a_damaged_row_is_computed_again_and_mended(engine: sa.Engine, content: bytes) -> None:
    CachedEmbedder(CountingEmbedder(), engine).embed_texts(["mug"])
    with engine.begin() as connection:
        connection.execute(sa.update(vector_cache).values(vector=content))
    cached = CachedEmbedder(CountingEmbedder(), engine)
    np.testing.assert_array_equal(cached.embed_texts(["mug"])[0][0], vector("mug"))
    assert CachedEmbedder(CountingEmbedder(), engine).embed_texts(["mug"])[0].any()
    assert cached.counts.computed == 1


@pytest.mark.parametrize("fault", [np.nan, 0.0, 3.0])
def test_an_unusable_text_vector_is_refused_and_not_stored(engine: sa.Engine, fault: float) -> None:
    class Faulty(CountingEmbedder):
        def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
            return super().embed_texts(texts) * fault

    vectors, errors = CachedEmbedder(Faulty(), engine).embed_texts(["mug"])
    assert np.isnan(vectors).all()
    assert "unit length" in str(errors[0])
    with engine.connect() as connection:
        assert connection.execute(sa.select(sa.func.count()).select_from(vector_cache)).scalar_one() == 0


def test_vectors_of_another_length_than_the_embedder_says_are_refused(engine: sa.Engine) -> None:
    liar = CountingEmbedder(EmbedderIdentity("test", "r1", "p1", DIMENSION + 1))
    with pytest.raises(ConfigurationError, match="of shape"):
        CachedEmbedder(liar, engine).embed_texts(["mug"])
    with pytest.raises(ConfigurationError, match="of shape"):
        CachedEmbedder(liar, engine).embed_images(["1"], image_of)


def test_what_was_embedded_before_a_failure_is_kept(engine: sa.Engine) -> None:
    class Dying(CountingEmbedder):
        def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
            if len(self.text_batches) == 2:
                raise MemoryError
            return super().embed_texts(texts)

    texts = [f"text {number}" for number in range(3 * TEXT_BATCH)]
    with pytest.raises(MemoryError):
        CachedEmbedder(Dying(), engine).embed_texts(texts)
    cached = CachedEmbedder(CountingEmbedder(), engine)
    cached.embed_texts(texts)
    assert (cached.counts.computed, cached.counts.cached) == (TEXT_BATCH, 2 * TEXT_BATCH)


def test_two_processes_that_embed_the_same_do_not_hinder_each_other(engine: sa.Engine) -> None:
    texts = [f"text {number}" for number in range(300)]
    results: list[np.ndarray] = []
    orders = [texts, texts[::-1]]
    threads = [
        threading.Thread(
            target=lambda own=own: results.append(CachedEmbedder(CountingEmbedder(), engine).embed_texts(own)[0])
        )
        for own in orders
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 2
    assert all(np.allclose(np.linalg.norm(vectors, axis=1), 1) for vectors in results)


def test_a_database_that_is_down_is_an_error_and_not_an_empty_cache() -> None:
    embedder = CountingEmbedder()
    with pytest.raises(ServiceUnavailableError):
        CachedEmbedder(embedder, create_engine("postgresql://x:y@127.0.0.1:1/none")).embed_texts(["mug"])
    assert embedder.text_batches == []


def test_the_embedded_embedder_works_through_the_cache(engine: sa.Engine) -> None:
    cached = CachedEmbedder(EmbeddedEmbedder(), engine)
    texts = ["best dad ever mug", "cốc sứ tặng bố", ""]
    first, _ = cached.embed_texts(texts)
    np.testing.assert_array_equal(CachedEmbedder(EmbeddedEmbedder(), engine).embed_texts(texts)[0], first)
    images, errors = cached.embed_images(["10", "200"], image_of)
    assert errors == {}
    np.testing.assert_allclose(np.linalg.norm(images, axis=1), 1, atol=1e-3)


def test_an_embedder_chooses_its_batch_of_images_unless_it_is_set(engine: sa.Engine) -> None:
    class Wide(CountingEmbedder):
        def model_info(self) -> dict[str, str | int]:
            return {"name": self.identity.name, "batch_size": 24}

    chosen, forced = Wide(), Wide(EmbedderIdentity("test", "r2", "p1", DIMENSION))
    CachedEmbedder(chosen, engine).embed_images(shas(*range(30)), image_of)
    CachedEmbedder(forced, engine, 10).embed_images(shas(*range(30)), image_of)
    assert [len(batch) for batch in chosen.image_batches] == [24, 6]
    assert [len(batch) for batch in forced.image_batches] == [10, 10, 10]


def test_texts_of_one_length_share_a_batch_and_their_order_is_restored(engine: sa.Engine) -> None:
    embedder = CountingEmbedder()
    texts = [f"{number:03d}{'!' * (number * 7 % 100)}" for number in range(100)]
    vectors, _ = CachedEmbedder(embedder, engine).embed_texts(texts)
    np.testing.assert_array_equal(vectors, np.stack([vector(text) for text in texts]))
    lengths = [len(text) for batch in embedder.text_batches for text in batch]
    assert lengths == sorted(lengths, reverse=True)


def test_reading_embedding_and_storing_overlap(engine: sa.Engine) -> None:
    third_is_read, second_is_embedding, writes = threading.Event(), threading.Event(), []

    def open_image(sha: str) -> Image.Image:
        if int(sha) >= 2 * IMAGE_BATCH:
            third_is_read.set()
        return image_of(sha)

    class Waiting(CountingEmbedder):
        def embed_images(self, images: Sequence[Image.Image]) -> np.ndarray:
            if len(self.image_batches) == 1:
                second_is_embedding.set()
                assert third_is_read.wait(30), "the third batch is read while the second is embedded"
            return super().embed_images(images)

    def before_write(connection: object, cursor: object, statement: str, *_: object) -> None:
        if statement.startswith("INSERT INTO labeling.vector_cache"):
            writes.append(second_is_embedding.wait(30))

    sa.event.listen(engine, "before_cursor_execute", before_write)
    vectors, errors = CachedEmbedder(Waiting(), engine).embed_images(shas(*range(48)), open_image)
    assert writes
    assert all(writes), "the second batch is embedded while the first is written"
    assert errors == {}
    np.testing.assert_array_equal(vectors, np.stack([vector(str(number)) for number in range(48)]))


def test_every_worker_of_an_embedder_is_used_and_no_row_is_mixed_up(engine: sa.Engine) -> None:
    together = threading.Barrier(3)

    class Parallel(CountingEmbedder):
        workers = 3

        def embed_images(self, images: Sequence[Image.Image]) -> np.ndarray:
            together.wait(30)
            return super().embed_images(images)

    numbers = [number % 96 for number in range(192)]
    vectors, errors = CachedEmbedder(Parallel(), engine).embed_images(shas(*numbers), image_of)
    assert errors == {}
    np.testing.assert_array_equal(vectors, np.stack([vector(str(number)) for number in numbers]))
