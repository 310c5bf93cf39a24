from __future__ import annotations

import hashlib
import importlib.util
import io
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
import tenacity
from faulty_image_host import (
    QUICK,
    Handler,
    ImageHost,
    content,
    encoded,
    image_host,
    in_turn,
    jpeg,
    redirect,
    silent,
    status,
    with_etag,
    with_last_modified,
)
from PIL import Image

from labeling_assets.errors import (
    ConfigurationError,
    ImageAddressRefusedError,
    ImageError,
    ImageNotFoundError,
    ImageTooLargeError,
    ImageTooSmallError,
    ImageUnavailableError,
    InvalidImageError,
    ServiceUnavailableError,
)
from labeling_assets.products.images import StoredImage
from labeling_assets.services.images import files, store
from labeling_assets.services.images.addresses import AddressPolicy
from labeling_assets.services.images.fetcher import ImageFetcher
from labeling_assets.services.images.history import ImageHistory
from labeling_assets.services.images.store import FetchCounts, ImageStore
from labeling_assets.services.postgres import create_engine
from labeling_assets.services.tables import image_fetches, images


@pytest.fixture
def host() -> Iterator[ImageHost]:
    with image_host() as host:
        yield host


@pytest.fixture
def fetcher(host: ImageHost) -> Iterator[ImageFetcher]:
    fetcher = ImageFetcher(AddressPolicy([f"127.0.0.1:{host.port}"]), **QUICK)
    yield fetcher
    fetcher.close()


@pytest.fixture
def image_store(home: Path, engine: sa.Engine, fetcher: ImageFetcher) -> ImageStore:
    return ImageStore(str(home / "storage"), engine, fetcher, workers=4)


def fetch(store: ImageStore, *urls: str) -> tuple[dict[str, StoredImage | ImageError], FetchCounts]:
    counts = FetchCounts()
    results = list(store.fetch_all(urls, counts))
    assert len(results) == counts.urls == len(set(urls))
    return dict(results), counts


def fetch_image(store: ImageStore, url: str) -> StoredImage:
    result = fetch(store, url)[0][url]
    assert isinstance(result, StoredImage), result
    return result


def stored_files(home: Path) -> list[Path]:
    return sorted(path for path in (home / "storage").rglob("*") if path.is_file())


def add_images(host: ImageHost, count: int) -> list[str]:
    """URLs of images with different bytes."""
    tile = Image.new("RGB", (64, 48), "olive")
    return [host.add(f"/{n}.jpg", with_etag(encoded(tile, "JPEG", comment=b"%d" % n))) for n in range(count)]


# What is stored


def test_an_image_is_stored_by_its_content(host: ImageHost, image_store: ImageStore, home: Path) -> None:
    body = jpeg(size=(1000, 500))
    sha256 = hashlib.sha256(body).hexdigest()
    image = fetch_image(image_store, host.add("/a.jpg", with_etag(body)))
    assert (image.sha256, image.path) == (sha256, f"images/{sha256[:2]}/{sha256}")
    assert (image.size_bytes, image.width_px, image.height_px, image.format) == (len(body), 1000, 500, "JPEG")
    assert (image.model_width_px, image.model_height_px, len(image.phash)) == (512, 256, 16)
    assert image.is_downloaded
    assert (home / "storage" / image.path).read_bytes() == image_store.original(sha256) == body
    assert len(image_store.model_jpeg(sha256)) == image.model_size_bytes
    assert Image.open(io.BytesIO(image_store.thumbnail(sha256))).size == (96, 48)
    assert len(stored_files(home)) == 2


def test_the_counts_add_up(host: ImageHost, image_store: ImageStore) -> None:
    body = jpeg()
    good = host.add("/good.jpg", in_turn(status(503), with_etag(body)))
    gone, html = host.add("/gone.jpg", status(404)), host.add("/html.jpg", content(b"<html>"))
    results, counts = fetch(image_store, good, gone, html, good, gone)
    image = results[good]
    assert isinstance(image, StoredImage)
    assert counts == FetchCounts(
        urls=3,
        downloaded=2,
        failed=2,
        retries=1,
        bytes_downloaded=len(body) + 6,
        bytes_stored=len(body) + image.model_size_bytes,
    )
    assert fetch(image_store, good)[1] == FetchCounts(urls=1, not_modified=1)


def test_the_same_url_is_fetched_once(host: ImageHost, image_store: ImageStore) -> None:
    url = host.add("/a.jpg", content(jpeg()))
    fetch(image_store, url, url, url)
    assert host.count("/a.jpg") == 1


def test_the_same_bytes_behind_several_urls_are_stored_and_decoded_once(
    host: ImageHost, image_store: ImageStore, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    urls = [host.add(f"/{n}.jpg", content(jpeg())) for n in range(5)]
    first = fetch_image(image_store, urls[0])
    monkeypatch.setattr(store, "decode", None)
    results, counts = fetch(image_store, *urls)
    assert {result.sha256 for result in results.values() if isinstance(result, StoredImage)} == {first.sha256}
    assert (counts.downloaded, counts.bytes_stored) == (5, 0)
    assert len(stored_files(home)) == 2


# The second time


@pytest.mark.parametrize("answer", [with_etag(jpeg()), with_last_modified(jpeg())])
def test_an_unchanged_image_is_not_downloaded_again(answer, host: ImageHost, image_store: ImageStore) -> None:
    url = host.add("/a.jpg", answer)
    first, again = fetch_image(image_store, url), fetch_image(image_store, url)
    assert first.is_downloaded
    assert not again.is_downloaded
    assert (first.sha256, first.phash, first.path) == (again.sha256, again.phash, again.path)


def test_an_unchanged_image_behind_a_redirect_is_not_downloaded_again(host: ImageHost, image_store: ImageStore) -> None:
    host.add("/b.jpg", with_etag(jpeg()))
    url = host.add("/a.jpg", redirect("/b.jpg"))
    fetch_image(image_store, url)
    assert not fetch_image(image_store, url).is_downloaded


def test_a_replaced_image_is_noticed(host: ImageHost, image_store: ImageStore) -> None:
    url = host.add("/a.jpg", with_etag(jpeg("navy")))
    first = fetch_image(image_store, url)
    host.add("/a.jpg", with_etag(jpeg("red")))
    second = fetch_image(image_store, url)
    assert second.is_downloaded
    assert second.sha256 != first.sha256
    assert image_store.original(first.sha256)
    assert not fetch_image(image_store, url).is_downloaded


def test_an_unchanged_day_writes_nothing(host: ImageHost, image_store: ImageStore, engine: sa.Engine) -> None:
    urls = add_images(host, 20)
    fetch(image_store, *urls)

    def rows() -> list[sa.Row]:
        with engine.connect() as connection:
            return list(connection.execute(sa.text("select ctid, xmin, * from labeling.image_fetches order by url")))

    before = rows()
    _, counts = fetch(image_store, *urls)
    assert rows() == before
    assert counts == FetchCounts(urls=20, not_modified=20)


# What goes wrong with an image


BAD_CONTENT = {
    "html": (b"<!DOCTYPE html><h1>Sold out</h1>", InvalidImageError),
    "truncated": (encoded(Image.effect_noise((300, 200), 90).convert("RGB"), "JPEG")[:5000], InvalidImageError),
    "tiny": (jpeg(size=(20, 20)), ImageTooSmallError),
    "bomb": (b"GIF89a\xff\xff\xff\xff\x00\x00\x00", ImageTooLargeError),
    "empty": (b"", InvalidImageError),
}


@pytest.mark.parametrize("name", BAD_CONTENT)
def test_bad_content_is_remembered_with_its_reason(name: str, host: ImageHost, image_store: ImageStore) -> None:
    body, error_class = BAD_CONTENT[name]
    url = host.add("/a.jpg", with_etag(body))
    first, _ = fetch(image_store, url)
    again, counts = fetch(image_store, url)
    assert type(first[url]) is type(again[url]) is error_class
    assert str(first[url]) == str(again[url])
    assert counts == FetchCounts(urls=1, not_modified=1, failed=1)
    host.add("/a.jpg", with_etag(jpeg()))
    assert fetch_image(image_store, url).is_downloaded


def test_a_remembered_fault_is_forgotten_on_demand(host: ImageHost, image_store: ImageStore) -> None:
    url, other = host.add("/a.jpg", with_etag(b"<html>")), host.add("/b.jpg", with_etag(b"<html>"))
    fetch(image_store, url, other)
    image_store.forget([url, "http://never.seen/x.jpg"])
    assert fetch(image_store, url)[1].downloaded == 1
    assert fetch(image_store, other)[1].downloaded == 0


def test_an_image_that_is_gone_from_the_host_is_forgotten_only_when_something_else_comes(
    host: ImageHost, image_store: ImageStore
) -> None:
    url = host.add("/a.jpg", with_etag(jpeg()))
    fetch_image(image_store, url)
    host.add("/a.jpg", status(404))
    assert type(fetch(image_store, url)[0][url]) is ImageNotFoundError
    host.add("/a.jpg", with_etag(jpeg()))
    assert not fetch_image(image_store, url).is_downloaded


def test_an_outage_of_the_host_is_bridged_by_the_store(host: ImageHost, image_store: ImageStore) -> None:
    url = host.add("/a.jpg", with_etag(jpeg()))
    before = fetch_image(image_store, url)
    host.add("/a.jpg", status(503))
    results, counts = fetch(image_store, url)
    assert results[url] == replace(before, is_downloaded=False)
    assert (counts.stale, counts.not_modified, counts.failed) == (1, 0, 0)


def test_an_outage_of_the_host_fails_an_image_that_the_store_does_not_have(
    host: ImageHost, image_store: ImageStore
) -> None:
    url = host.add("/a.jpg", status(503))
    assert type(fetch(image_store, url)[0][url]) is ImageUnavailableError


def test_one_failing_image_affects_no_other(host: ImageHost, image_store: ImageStore) -> None:
    good = add_images(host, 12)
    bad = {
        host.add("/404.jpg", status(404)): ImageNotFoundError,
        host.add("/500.jpg", status(500)): ImageUnavailableError,
        host.add("/html.jpg", content(b"<html>")): InvalidImageError,
        host.add("/tiny.jpg", content(jpeg(size=(9, 9)))): ImageTooSmallError,
        host.add("/away.jpg", redirect("http://10.0.0.1/")): ImageAddressRefusedError,
        "ftp://127.0.0.1/a.jpg": ImageAddressRefusedError,
        "": ImageAddressRefusedError,
        "http://127.0.0.1/'; drop table images; --\\ \"\n": ImageAddressRefusedError,
        "http://x/\udc80\x00": ImageAddressRefusedError,
    }
    results, counts = fetch(image_store, *bad, *good)
    assert {url: type(results[url]) for url in bad} == bad
    assert all(isinstance(results[url], StoredImage) for url in good)
    assert counts.failed == len(bad)


def test_a_url_with_quotes_and_vietnamese_letters_is_remembered(host: ImageHost, image_store: ImageStore) -> None:
    host.add("/C%E1%BB%91c%20'%22%25s.jpg", with_etag(jpeg()))
    url = host.url("/Cốc '\"%25s.jpg")
    fetch_image(image_store, url)
    assert not fetch_image(image_store, url).is_downloaded


def test_an_error_does_not_keep_the_body_in_memory(host: ImageHost, image_store: ImageStore) -> None:
    url = host.add("/a.jpg", content(b"GIF89a" + bytes(100)))
    error = fetch(image_store, url)[0][url]
    assert isinstance(error, ImageError)
    assert (error.__traceback__, error.__cause__, error.__context__) == (None, None, None)


# Lost and damaged files


def test_an_image_whose_file_is_lost_is_fetched_anew(host: ImageHost, image_store: ImageStore, home: Path) -> None:
    url = host.add("/a.jpg", with_etag(jpeg()))
    first = fetch_image(image_store, url)
    (home / "storage" / first.path).unlink()
    assert fetch_image(image_store, url).is_downloaded
    assert image_store.original(first.sha256) == jpeg()


def test_an_empty_file_left_by_a_power_cut_is_replaced(host: ImageHost, image_store: ImageStore, home: Path) -> None:
    url = host.add("/a.jpg", with_etag(jpeg()))
    first = fetch_image(image_store, url)
    for path in stored_files(home):
        path.write_bytes(b"")
    fetch_image(image_store, url)
    assert image_store.original(first.sha256) == jpeg()
    assert image_store.model_jpeg(first.sha256)


def test_a_lost_model_jpeg_is_made_from_the_original_without_a_download(
    host: ImageHost, image_store: ImageStore, home: Path
) -> None:
    url = host.add("/a.jpg", with_etag(jpeg()))
    first = fetch_image(image_store, url)
    small = image_store.model_jpeg(first.sha256)
    (home / "storage" / files.model_jpeg_path(first.sha256)).unlink()
    with pytest.raises(ImageUnavailableError, match="Materialize product_images"):
        image_store.model_jpeg(first.sha256)
    assert not fetch_image(image_store, url).is_downloaded
    assert image_store.model_jpeg(first.sha256) == small


def test_a_new_version_of_the_model_jpeg_is_made_without_a_download(
    host: ImageHost, image_store: ImageStore, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = host.add("/a.jpg", with_etag(jpeg()))
    first = fetch_image(image_store, url)
    monkeypatch.setattr(files, "MODEL_JPEG_VERSION", "next")
    assert not fetch_image(image_store, url).is_downloaded
    assert image_store.model_jpeg(first.sha256)
    assert len(stored_files(home)) == 3


@pytest.mark.parametrize("read", [ImageStore.original, ImageStore.model_jpeg, ImageStore.thumbnail])
def test_an_image_that_was_never_stored_is_an_error(read, image_store: ImageStore) -> None:
    with pytest.raises(ImageUnavailableError):
        read(image_store, "0" * 64)


# Crashes, and several at once


def test_a_crash_between_two_writes_costs_a_repeat_only(
    host: ImageHost, image_store: ImageStore, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    url = host.add("/a.jpg", with_etag(jpeg()))
    write = files.ImageFiles.write

    def killed_before_the_model_jpeg(self: files.ImageFiles, path: str, body: bytes) -> None:
        if path.endswith(".jpg"):
            raise Killed
        write(self, path, body)

    def killed(*arguments: object) -> None:
        raise Killed

    for where, name, crash in (
        (files.ImageFiles, "write", killed),
        (files.ImageFiles, "write", killed_before_the_model_jpeg),
        (ImageHistory, "remember", killed),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(where, name, crash)
            with pytest.raises(Killed):
                list(image_store.fetch_all([url]))
    assert fetch_image(image_store, url).is_downloaded
    assert not fetch_image(image_store, url).is_downloaded
    assert len(stored_files(home)) == 2


FETCH_IN_A_PROCESS = """
import sys
from labeling_assets.services.images.addresses import AddressPolicy
from labeling_assets.services.images.fetcher import ImageFetcher
from labeling_assets.services.images.store import ImageStore
from labeling_assets.services.postgres import create_engine
root, database, address, count = sys.argv[1:]
fetcher = ImageFetcher(AddressPolicy([address]), backoff_seconds=0.01)
store = ImageStore(root, create_engine(database), fetcher, workers=8)
for url, image in store.fetch_all(f"http://{address}/{n}.jpg" for n in range(int(count))):
    print(image.sha256, flush=True)
"""


@pytest.mark.parametrize("killed_after", [1, 25])
def test_kill_9_leaves_no_half_file_and_loses_nothing(
    killed_after: int, host: ImageHost, image_store: ImageStore, home: Path, postgres_url: str, engine: sa.Engine
) -> None:
    urls = add_images(host, 60)
    arguments = [str(home / "storage"), postgres_url, f"127.0.0.1:{host.port}", str(len(urls))]
    process = subprocess.Popen([sys.executable, "-c", FETCH_IN_A_PROCESS, *arguments], stdout=subprocess.PIPE)
    assert process.stdout is not None
    reported = [process.stdout.readline().decode().strip() for _ in range(killed_after)]
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    for path in stored_files(home):
        if not path.name.endswith((".jpg", ".part")):
            assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name
    with engine.connect() as connection:
        assert set(reported) <= set(connection.execute(sa.select(image_fetches.c.image_sha256)).scalars())
    _, counts = fetch(image_store, *urls)
    assert counts.failed == 0
    assert counts.not_modified >= killed_after
    for path in stored_files(home):
        if path.name.endswith(".jpg"):
            Image.open(path).load()


def test_two_stores_at_once_agree(
    host: ImageHost, fetcher: ImageFetcher, home: Path, postgres_url: str, engine: sa.Engine
) -> None:
    urls = add_images(host, 40)
    stores = [ImageStore(str(home / "storage"), create_engine(postgres_url), fetcher, workers=6) for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(fetch, one, *wanted) for one, wanted in zip(stores, (urls, urls[::-1]), strict=True)]
        first, second = (job.result()[0] for job in jobs)
    for one in stores:
        one._history._engine.dispose()
    assert {url: image.sha256 for url, image in first.items() if isinstance(image, StoredImage)} == {
        url: image.sha256 for url, image in second.items() if isinstance(image, StoredImage)
    }
    assert len(stored_files(home)) == 80
    with engine.connect() as connection:
        for table in (image_fetches, images):
            assert connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one() == 40


# The iterator


def test_work_in_flight_is_bounded_and_ends_when_the_iterator_is_closed(
    host: ImageHost, image_store: ImageStore
) -> None:
    taken = 0

    def endless() -> Iterator[str]:
        nonlocal taken
        while True:
            yield host.url(f"/{taken}.jpg")
            taken += 1

    results = image_store.fetch_all(endless())
    for _ in range(20):
        next(results)
    results.close()
    assert taken < 2 * store.LOOK_UP_URLS
    assert host.most_in_flight <= 4
    assert len(host.requests) <= 20 + 3 * 4
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("image-fetch")]


def test_one_slow_host_does_not_hold_up_the_others(host: ImageHost, image_store: ImageStore) -> None:
    released = threading.Event()

    def slow(handler: Handler) -> None:
        released.wait(10)
        handler.reply(200, jpeg("lime"))

    slow_url = host.add("/slow.jpg", slow)
    results = image_store.fetch_all([slow_url, *add_images(host, 5)])
    assert slow_url not in {next(results)[0] for _ in range(5)}
    released.set()
    assert [url for url, _ in results] == [slow_url]


def test_closing_does_not_wait_for_a_host_that_is_silent(home: Path, engine: sa.Engine, host: ImageHost) -> None:
    fetcher = ImageFetcher(AddressPolicy([f"127.0.0.1:{host.port}"]), **(QUICK | {"read_timeout_seconds": 0.2}))
    results = ImageStore(str(home), engine, fetcher, workers=2).fetch_all(
        [host.add("/silent.jpg", silent), *add_images(host, 1)]
    )
    next(results)
    results.close()
    fetcher.close()
    assert host.count("/silent.jpg") == 1


def test_an_error_of_the_callers_urls_is_raised(host: ImageHost, image_store: ImageStore) -> None:
    def urls() -> Iterator[str]:
        yield from add_images(host, 3)
        raise LookupError("the source is gone")

    with pytest.raises(LookupError, match="the source is gone"):
        list(image_store.fetch_all(urls()))


def test_a_programming_error_is_raised_and_not_taken_for_a_bad_image(
    host: ImageHost, image_store: ImageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "decode", lambda body: body.no_such_attribute)
    with pytest.raises(AttributeError, match="no_such_attribute"):
        list(image_store.fetch_all(add_images(host, 3)))


# Services that fail


@pytest.mark.parametrize("call", ["look_up", "facts", "remember", "forget"])
def test_a_database_that_is_down_is_service_unavailable(call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    history = ImageHistory(create_engine("postgresql://user:s3cret@127.0.0.1:1/none"))
    monkeypatch.setattr(getattr(ImageHistory, call).retry, "wait", tenacity.wait_none())
    with pytest.raises(ServiceUnavailableError) as failure:
        getattr(history, call)({} if call == "remember" else "a")
    assert "s3cret" not in str(failure.value)


def test_a_store_that_cannot_be_written_is_service_unavailable(
    host: ImageHost, home: Path, engine: sa.Engine, fetcher: ImageFetcher
) -> None:
    (home / "images").write_text("a file where a folder should be")
    with pytest.raises(ServiceUnavailableError, match="image store cannot be"):
        list(ImageStore(str(home), engine, fetcher).fetch_all(add_images(host, 2)))


@pytest.mark.parametrize(
    ("root", "driver", "message"),
    [
        ("s3://bucket/folder", "s3fs", r"pip install 'labeling-assets\[s3\]'"),
        ("gs://bucket/folder", "gcsfs", r"pip install 'labeling-assets\[gcs\]'"),
        ("nonsense://bucket", "nonsense", "LABELING_STORAGE"),
    ],
)
def test_a_missing_driver_is_a_configuration_error(root: str, driver: str, message: str) -> None:
    if importlib.util.find_spec(driver):
        pytest.skip(f"{driver} is installed")
    with pytest.raises(ConfigurationError, match=message):
        files.ImageFiles(root)


def test_an_object_store_serves_as_well(host: ImageHost, engine: sa.Engine, fetcher: ImageFetcher) -> None:
    on_objects = ImageStore("memory://bucket/below", engine, fetcher)
    url = host.add("/a.jpg", with_etag(jpeg()))
    image = fetch_image(on_objects, url)
    assert on_objects.original(image.sha256) == jpeg()
    assert not fetch_image(on_objects, url).is_downloaded
    with pytest.raises(ImageUnavailableError):
        on_objects.original("0" * 64)
