"""The image store: every image fetched once, kept by its content, and asked for conditionally ever after.

`ImageStore` puts together the fetcher, the decoder, the files and the history. The order in which it writes makes a
crash cost a repeat and nothing else: the original, then the model JPEG, then the history in the database.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import queue
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import sqlalchemy as sa
from PIL import Image

from labeling_assets.errors import ImageError, ImageUnavailableError
from labeling_assets.products.images import ImageFacts, StoredImage
from labeling_assets.services.images.decoding import decode, model_image, thumbnail
from labeling_assets.services.images.fetcher import ImageFetcher, NotModified, Validators
from labeling_assets.services.images.files import ImageFiles, model_jpeg_path, original_path
from labeling_assets.services.images.history import CONTENT_ERRORS, ImageHistory, Remembered

LOOK_UP_URLS = 500
BATCH_SECONDS = 0.05
"""What is finished waits so long for more, since the history remembers many in the time of one."""


@dataclass
class FetchCounts:
    """What one `fetch_all` has done so far.

    Attributes:
        urls: Distinct URLs finished.
        downloaded: Of these, bodies taken from the network.
        not_modified: Of these, answers that the content is unchanged.
        stale: Of these, not answered by the host and served from the store.
        failed: Of these, without a usable image, whether or not a body was taken.
        retries: Attempts beyond the first.
        bytes_downloaded: Size of the bodies taken.
        bytes_stored: Size of the files written.
    """

    urls: int = 0
    downloaded: int = 0
    not_modified: int = 0
    stale: int = 0
    failed: int = 0
    retries: int = 0
    bytes_downloaded: int = 0
    bytes_stored: int = 0


@dataclass
class _Fetch:
    """The work on one URL: what was known before, what was learned, and what it cost."""

    url: str
    before: Remembered
    after: Remembered | None = None
    result: StoredImage | ImageError = field(init=False)
    is_not_modified: bool = False
    is_stale: bool = False
    is_downloaded: bool = False
    retries: int = 0
    bytes_downloaded: int = 0
    bytes_stored: int = 0

    def count_retry(self) -> None:
        self.retries += 1


class ImageStore:
    """Images by content, and the history of their URLs. Thread-safe, and safe with other processes on the same store.

    Args:
        root: A folder, `s3://…` or `gs://…`; images lie below `images/`.
        engine: Database with the tables `image_fetches` and `images`.
        fetcher: Fetches what is not at hand; the caller closes it.
        workers: URLs worked on at once.

    Raises:
        ConfigurationError: The root's protocol is unknown, or its driver is not installed.
    """

    def __init__(self, root: str, engine: sa.Engine, fetcher: ImageFetcher, workers: int = 16) -> None:
        self._files = ImageFiles(root)
        self._history = ImageHistory(engine)
        self._fetcher = fetcher
        self._workers = workers

    def fetch_all(
        self, urls: Iterable[str], counts: FetchCounts | None = None
    ) -> Iterator[tuple[str, StoredImage | ImageError]]:
        """Fetch each distinct URL once; yield its image, or what is wrong with it, in the order in which they finish.

        At most `3 * workers` URLs are in work, wait for it or wait to be taken, so memory does not grow with their
        number (but for a digest of each, to know repeats). What is yielded is remembered before. Closing the iterator
        ends the work.

        Args:
            urls: As the source has them, taken as the work goes on.
            counts: Filled while the iterator is read.

        Raises:
            ServiceUnavailableError: The database or the storage does not answer.
        """
        counts = counts or FetchCounts()
        cancelled = threading.Event()
        finished: queue.SimpleQueue[Future[_Fetch]] = queue.SimpleQueue()
        in_work = 0
        pool = ThreadPoolExecutor(self._workers, thread_name_prefix="image-fetch")
        try:
            for fetch in self._planned(urls):
                pool.submit(self._work, fetch, cancelled).add_done_callback(finished.put)
                in_work += 1
                if in_work >= 3 * self._workers:
                    batch = self._batch(finished, self._workers)
                    in_work -= len(batch)
                    yield from self._remembered(batch, counts)
            while in_work:
                batch = self._batch(finished, min(in_work, self._workers))
                in_work -= len(batch)
                yield from self._remembered(batch, counts)
        finally:
            cancelled.set()
            pool.shutdown(cancel_futures=True)

    def original(self, sha256: str) -> bytes:
        """The bytes of an image as fetched.

        Raises:
            ImageUnavailableError: The store does not have it.
            ServiceUnavailableError: The storage does not answer.
        """
        return self._files.read(original_path(sha256))

    def model_jpeg(self, sha256: str) -> bytes:
        """The JPEG of an image that the models read: RGB, at most 512 px.

        Raises:
            ImageUnavailableError: The store does not have it.
            ServiceUnavailableError: The storage does not answer.
        """
        return self._files.read(model_jpeg_path(sha256))

    def model_image(self, sha256: str, edge_px: int = 0) -> Image.Image:
        """The image that the models read, decoded: RGB, at most 512 px; smaller, see `decoding.model_image`.

        Raises:
            ImageUnavailableError: The store does not have it.
            InvalidImageError: Its file is damaged.
            ServiceUnavailableError: The storage does not answer.
        """
        return model_image(self.model_jpeg(sha256), edge_px)

    def thumbnail(self, sha256: str, edge_px: int = 96) -> bytes:
        """A JPEG of a few kilobytes, at most `edge_px` wide and high.

        Raises:
            ImageUnavailableError: The store does not have the image.
            InvalidImageError: Its file is damaged.
            ServiceUnavailableError: The storage does not answer.
        """
        return thumbnail(self.model_jpeg(sha256), edge_px)

    def forget(self, urls: Iterable[str]) -> None:
        """Drop what is remembered of the URLs, their errors too, so that they are fetched and decoded anew.

        Raises:
            ServiceUnavailableError: The database does not answer.
        """
        self._history.forget(urls)

    def _planned(self, urls: Iterable[str]) -> Iterator[_Fetch]:
        """Each distinct URL with what is known of it, looked up in batches."""
        distinct = _distinct(urls)
        while batch := list(itertools.islice(distinct, LOOK_UP_URLS)):
            known = self._history.look_up(batch)
            for url in batch:
                yield _Fetch(url, known.get(url, Remembered()))

    def _batch(self, finished: queue.SimpleQueue[Future[_Fetch]], most: int) -> list[_Fetch]:
        """Wait for a fetch to finish, and for others, up to `most`, that finish shortly after it."""
        batch = [finished.get().result()]
        until = time.monotonic() + BATCH_SECONDS
        with contextlib.suppress(queue.Empty):
            while len(batch) < most:
                batch.append(finished.get(timeout=max(0.0, until - time.monotonic())).result())
        return batch

    def _remembered(
        self, fetches: Sequence[_Fetch], counts: FetchCounts
    ) -> Iterator[tuple[str, StoredImage | ImageError]]:
        """Remember what fetches learned in one transaction, and yield their results."""
        learned = {fetch.url: fetch.after for fetch in fetches if fetch.after and fetch.after != fetch.before}
        if learned:
            self._history.remember(learned)
        for fetch in fetches:
            counts.urls += 1
            counts.downloaded += fetch.is_downloaded
            counts.not_modified += fetch.is_not_modified
            counts.stale += fetch.is_stale
            counts.failed += isinstance(fetch.result, ImageError)
            counts.retries += fetch.retries
            counts.bytes_downloaded += fetch.bytes_downloaded
            counts.bytes_stored += fetch.bytes_stored
            yield fetch.url, fetch.result

    def _work(self, fetch: _Fetch, cancelled: threading.Event) -> _Fetch:
        """Fetch and store one URL, in a thread of the pool. Only what is wrong with this image is caught."""
        try:
            fetch.result = self._image(fetch, cancelled)
        except ImageError as error:
            # The traceback would keep the body in memory for as long as somebody keeps the error.
            error.__cause__ = error.__context__ = error.__traceback__ = None
            fetch.result = error
        return fetch

    def _image(self, fetch: _Fetch, cancelled: threading.Event) -> StoredImage:
        """The image of one URL, asked for conditionally where its content is at hand."""
        known = fetch.before if self._is_at_hand(fetch.before) else Remembered()
        try:
            answer = self._fetcher.fetch(fetch.url, known.validators, cancelled=cancelled, on_retry=fetch.count_retry)
        except ImageUnavailableError:
            # An outage of the image host takes nothing away that the store has.
            if known.facts is None:
                raise
            fetch.is_stale = True
            return self._stored(fetch, known.validators, known.sha256, known.facts)
        if isinstance(answer, NotModified):
            fetch.is_not_modified = True
            if known.error is not None:
                raise known.error
            return self._stored(fetch, known.validators, known.sha256, known.facts)
        fetch.is_downloaded = True
        fetch.bytes_downloaded = len(answer.body)
        sha256 = hashlib.sha256(answer.body).hexdigest()
        facts = self._history.facts(sha256) if self._files.has(model_jpeg_path(sha256)) else None
        return self._stored(fetch, answer.validators, sha256, facts, answer.body)

    def _is_at_hand(self, known: Remembered) -> bool:
        """Whether the answer "not modified" would be enough."""
        if known.error is not None:
            return True
        return known.facts is not None and self._files.has(original_path(known.sha256), known.facts.size_bytes)

    def _stored(
        self, fetch: _Fetch, validators: Validators, sha256: str, facts: ImageFacts | None, body: bytes | None = None
    ) -> StoredImage:
        """The image of a content; it is decoded and written only where the store does not have all of it."""
        path = original_path(sha256)
        try:
            if facts is None or not self._has_files(sha256, facts):
                body = self._files.read(path) if body is None else body
                facts, jpeg = decode(body)
                self._files.write(path, body)
                self._files.write(model_jpeg_path(sha256), jpeg)
                fetch.bytes_stored = len(body) + len(jpeg)
        except CONTENT_ERRORS as error:
            fetch.after = Remembered(validators, error=error)
            raise
        fetch.after = Remembered(validators, sha256, facts)
        return StoredImage(**vars(facts), sha256=sha256, path=path, is_downloaded=fetch.is_downloaded)

    def _has_files(self, sha256: str, facts: ImageFacts) -> bool:
        """Whether both files are there in the size that they should have."""
        return self._files.has(original_path(sha256), facts.size_bytes) and self._files.has(
            model_jpeg_path(sha256), facts.model_size_bytes
        )


def _distinct(urls: Iterable[str]) -> Iterator[str]:
    """Each URL once, in order; only a digest of each is kept."""
    seen: set[bytes] = set()
    for url in urls:
        digest = hashlib.sha256(url.encode("utf-8", "surrogatepass")).digest()
        if digest not in seen:
            seen.add(digest)
            yield url
