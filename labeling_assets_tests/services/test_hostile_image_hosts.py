"""A fetcher and a store among hostile hosts: bodies as told or none, no private address, bounded time and memory."""

from __future__ import annotations

import hashlib
import ipaddress
import itertools
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import sqlalchemy as sa
from faulty_image_host import (
    QUICK,
    Answer,
    Handler,
    ImageHost,
    chunked,
    content,
    dripping,
    image_host,
    jpeg,
    redirect,
    resolving_to,
    silent,
    with_etag,
)
from hostile_bodies import SMALL, STRIPS, is_clear, jpeg_in_scans
from hypothesis import example, given, settings
from hypothesis import strategies as st
from test_image_addresses import PRIVATE_NETWORKS, PUBLIC_IPV4

from labeling_assets.errors import (
    ImageAddressRefusedError,
    ImageError,
    ImageNotFoundError,
    ImageUnavailableError,
    InvalidImageError,
)
from labeling_assets.products.images import StoredImage
from labeling_assets.services.images.addresses import AddressPolicy
from labeling_assets.services.images.fetcher import FetchedBody, ImageFetcher
from labeling_assets.services.images.files import model_jpeg_path
from labeling_assets.services.images.store import ImageStore

BODY = jpeg()
IMPATIENT = QUICK | {"connect_timeout_seconds": 0.2, "read_timeout_seconds": 0.2, "total_timeout_seconds": 0.4}
MEGABYTE = 1_000_000


@pytest.fixture(scope="module")
def host() -> Iterator[ImageHost]:
    with image_host() as host:
        yield host


@pytest.fixture(scope="module")
def fetcher(host: ImageHost) -> Iterator[ImageFetcher]:
    fetcher = ImageFetcher(AddressPolicy([f"127.0.0.1:{host.port}"]), **(QUICK | {"backoff_seconds": 0.0}))
    yield fetcher
    fetcher.close()


LENGTHS = (None, len(BODY), len(BODY) - 1, len(BODY) + 1, 0, 10**12, 10**30)
FIELDS = (
    b"Content-Encoding: gzip",
    b"Content-Encoding: identity",
    b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: gzip, chunked",
    b"Content-Length: -1",
    b"Content-Length: 1, 2",
    b"Location: /a.jpg",
    b"Location: http://169.254.169.254/latest/meta-data/iam",
    b"Location: file:///etc/passwd",
    b"Location: //[::1]:1/",
    b"Location: \xff\xfe",
    b"Retry-After: 0",
    b"ETag: " + b"e" * 9000,
    b"Set-Cookie: a=b",
    b"Upgrade: h2c",
    b"Connection: keep-alive",
    b"X: \x00",
)


@settings(max_examples=200)
@given(
    code=st.sampled_from([200, 200, 200, 101, 204, 206, 301, 302, 304, 404, 429, 500, 503, 999]),
    length=st.sampled_from(LENGTHS),
    fields=st.lists(st.sampled_from(FIELDS), max_size=3),
    kept=st.one_of(st.just(len(BODY)), st.integers(0, len(BODY))),
)
def test_a_body_arrives_as_it_was_told_or_not_at_all(
    host: ImageHost, fetcher: ImageFetcher, code: int, length: int | None, fields: list[bytes], kept: int
) -> None:
    told = [] if length is None else [b"Content-Length: %d" % length]
    answer = b"\r\n".join([b"HTTP/1.1 %d X" % code, *told, *fields, b"", BODY[:kept]])
    try:
        fetched: object = fetcher.fetch(host.add("/a.jpg", lambda handler: handler.raw(answer)))
    except ImageError as error:
        fetched = error
    if isinstance(fetched, ImageError):
        assert is_clear(fetched)
        return
    assert isinstance(fetched, FetchedBody)
    assert fetched.body == BODY[:kept][: kept if length is None else length]
    assert length is None or len(fetched.body) == length


def spellings(address: ipaddress.IPv4Address) -> Sequence[str]:
    """Ways to write an IPv4 address in a URL that some resolver understands."""
    number, parts = int(address), address.packed
    return (
        str(address),
        str(number),
        hex(number),
        ".".join(f"0{part:o}" for part in parts),
        f"{parts[0]}.{number & 0xFFFFFF}",
        f"[::ffff:{address}]",
        f"[64:ff9b::{address}]",
        f"[2002:{number >> 16:x}:{number & 0xFFFF:x}::1]",
    )


@given(
    st.sampled_from([network for network in PRIVATE_NETWORKS if ":" not in network]),
    st.integers(0, 2**32),
    st.integers(0, 7),
)
def test_a_redirect_to_a_private_address_is_refused_however_it_is_written(
    host: ImageHost, fetcher: ImageFetcher, network: str, offset: int, spelling: int
) -> None:
    block = ipaddress.IPv4Network(network)
    written = spellings(block[offset % block.num_addresses])[spelling]
    url = host.add("/a.jpg", redirect(f"http://{written}/b.jpg"))
    with pytest.raises(ImageAddressRefusedError):
        fetcher.fetch(url)


@given(st.sampled_from(PRIVATE_NETWORKS), st.integers(0), st.integers(0, 2))
@example("127.0.0.0/8", 1, 0)
@example("169.254.0.0/16", 0xA9FE, 2)
def test_a_redirect_to_a_name_with_a_private_address_is_refused(
    host: ImageHost, network: str, offset: int, place: int
) -> None:
    block = ipaddress.ip_network(network)
    addresses = [PUBLIC_IPV4, "2606:4700::1111"]
    addresses.insert(place, str(block[offset % block.num_addresses]))

    def resolve(name: str, port: int) -> Sequence[str]:
        return [name] if name == "127.0.0.1" else addresses

    fetcher = ImageFetcher(AddressPolicy([f"127.0.0.1:{host.port}"], resolve), **QUICK)
    host.add("/secret.jpg", content(BODY))
    asked = host.count("/secret.jpg")
    with pytest.raises(ImageAddressRefusedError, match=r"cdn\.example"):
        fetcher.fetch(host.add("/a.jpg", redirect(f"http://cdn.example:{host.port}/secret.jpg")))
    fetcher.close()
    assert host.count("/secret.jpg") == asked


@pytest.mark.parametrize(
    ("code", "expected"), [(404, ImageNotFoundError), (503, ImageUnavailableError), (302, FetchedBody)]
)
def test_an_endless_body_behind_another_status_is_not_read(
    code: int, expected: type, host: ImageHost, fetcher: ImageFetcher
) -> None:
    host.add("/b.jpg", content(BODY))
    start = f"HTTP/1.1 {code} X\r\nLocation: /b.jpg\r\n\r\n".encode()
    url = host.add("/a.jpg", dripping(start, b"a" * 10_000, every_seconds=0))
    try:
        result: object = fetcher.fetch(url)
    except ImageError as error:
        result = error
    assert type(result) is expected


def late(answer: Answer) -> Answer:
    """The answer, after a tenth of a second."""

    def wait_and_answer(handler: Handler) -> None:
        handler.server.image_host.stopping.wait(0.15)
        answer(handler)

    return wait_and_answer


def test_the_deadline_holds_for_all_redirects_together(host: ImageHost) -> None:
    fetcher = ImageFetcher(AddressPolicy([f"127.0.0.1:{host.port}"]), **IMPATIENT)
    for hop in range(5):
        host.add(f"/{hop}", late(redirect(f"/{hop + 1}")))
    host.add("/5", late(content(BODY)))
    with pytest.raises(ImageUnavailableError, match="in time"):
        fetcher.fetch(host.url("/0"))
    fetcher.close()


def test_a_host_that_never_shakes_hands_meets_the_time_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        fetcher = ImageFetcher(AddressPolicy([address]), **IMPATIENT)
        with pytest.raises(ImageUnavailableError, match="in time"):
            fetcher.fetch(f"https://{address}/a.jpg")
        fetcher.close()


def test_a_body_in_tiny_chunks_takes_no_more_memory_than_its_size() -> None:
    script = """
import resource
import httpcore
from labeling_assets.services.images.addresses import AddressPolicy, parse_image_url
from labeling_assets.services.images.fetcher import ImageFetcher
fetcher = ImageFetcher(AddressPolicy())
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
response = httpcore.Response(200, content=(b"%03d" % (n % 1000) for n in range(1_000_000)))
assert len(fetcher._body(response, parse_image_url("http://cdn.example/a.jpg"))) == 3_000_000
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert int(done.stdout) < 20_000  # kilobytes


# The store


def test_a_damaged_file_of_the_store_is_an_image_error(home: Path, engine: sa.Engine, host: ImageHost) -> None:
    fetcher = ImageFetcher(AddressPolicy([f"127.0.0.1:{host.port}"]), **QUICK)
    store = ImageStore(str(home), engine, fetcher)
    (_, image), *_ = store.fetch_all([host.add("/a.jpg", with_etag(SMALL["jpeg"]))])
    fetcher.close()
    assert isinstance(image, StoredImage)
    small, file = store.model_jpeg(image.sha256), home / model_jpeg_path(image.sha256)
    for damaged in (b"", small[:3], small[: len(small) // 2], b"\0" * len(small)):
        file.write_bytes(damaged)
        with pytest.raises(InvalidImageError, match=r"\.$"):
            store.model_image(image.sha256)
        with pytest.raises(InvalidImageError, match=r"\.$"):
            store.thumbnail(image.sha256)


def test_a_day_of_hostile_hosts_takes_no_good_image_with_it(home: Path, engine: sa.Engine, host: ImageHost) -> None:
    limits = {"max_bytes": MEGABYTE, "read_timeout_seconds": 3.0, "total_timeout_seconds": 5.0}
    policy = AddressPolicy([f"127.0.0.1:{host.port}"], resolving_to("127.0.0.1"))
    fetcher = ImageFetcher(policy, **(QUICK | limits))
    answers: list[Answer] = [
        *(content(body[: len(body) * 2 // 3]) for body in SMALL.values()),
        *(content(body) for body in itertools.islice(STRIPS.values(), 6)),
        content(b""),
        content(jpeg_in_scans(1000)),
        chunked(bytes(2 * MEGABYTE), 100_000),
        dripping(b"HTTP/1.1 200 OK\r\n\r\n", b"a" * 10_000, every_seconds=0),
        dripping(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"),
        silent,
        redirect(f"http://cdn.example:{host.port}/b.jpg"),
        redirect("http://10.0.0.1/"),
    ]
    bad = [host.add(f"/bad/{number}.jpg", answer) for number, answer in enumerate(answers)]
    bodies = [jpeg((0, number, 0)) for number in range(20)]
    good = [host.add(f"/good/{number}.jpg", with_etag(body)) for number, body in enumerate(bodies)]
    urls = [url for pair in itertools.zip_longest(bad, good) for url in pair if url]
    results = dict(ImageStore(str(home), engine, fetcher).fetch_all(urls))
    fetcher.close()
    assert set(results) == set(urls)
    for url in bad:
        result = results[url]
        assert isinstance(result, ImageError), url
        assert is_clear(result), result
    kept = {path.name for path in home.rglob("*") if path.is_file()}
    hashes = {hashlib.sha256(body).hexdigest() for body in bodies}
    assert {result.sha256 for result in results.values() if isinstance(result, StoredImage)} == hashes
    assert kept == {Path(name).name for sha256 in hashes for name in (sha256, model_jpeg_path(sha256))}
