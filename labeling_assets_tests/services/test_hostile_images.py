"""Whatever comes instead of an image ends as an image or as an error of ours, in bounded memory and time."""

from __future__ import annotations

import hashlib
import ipaddress
import itertools
import json
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
from hostile_bodies import SMALL, STRIPS, jpeg_in_scans, samples
from hypothesis import example, given, settings
from hypothesis import strategies as st
from test_image_addresses import PRIVATE_NETWORKS, PUBLIC_IPV4

from labeling_assets.errors import (
    ImageAddressRefusedError,
    ImageError,
    ImageNotFoundError,
    ImageTooLargeError,
    ImageTooSmallError,
    ImageUnavailableError,
    InvalidImageError,
)
from labeling_assets.products.images import StoredImage
from labeling_assets.services.images.addresses import AddressPolicy
from labeling_assets.services.images.decoding import MAX_JPEG_SCANS, decode
from labeling_assets.services.images.fetcher import FetchedBody, ImageFetcher
from labeling_assets.services.images.files import model_jpeg_path
from labeling_assets.services.images.store import ImageStore

BODY = jpeg()
IMPATIENT = QUICK | {"connect_timeout_seconds": 0.2, "read_timeout_seconds": 0.2, "total_timeout_seconds": 0.4}
MEGABYTE = 1_000_000
LARGE = samples(900, 700)


def is_clear(error: ImageError) -> bool:
    """Whether the error says something, in sentences."""
    return len(str(error)) > 20 and str(error).endswith(".")


def outcome(body: bytes) -> bytes | None:
    """The small JPEG of a body, or None where it is refused in a sentence of ours."""
    try:
        return decode(body)[1]
    except ImageError as error:
        return None if is_clear(error) else str(error).encode()


# Damaged images


@pytest.mark.parametrize("name", SMALL)
def test_an_image_cut_off_at_any_byte_is_refused_or_nothing_of_it_is_lost(name: str) -> None:
    body = SMALL[name]
    whole = outcome(body)
    assert whole is not None
    assert {outcome(body[:kept]) for kept in range(len(body))} <= {None, whole}
    assert outcome(body[: len(body) // 2]) is None


@settings(max_examples=60)
@given(st.sampled_from(sorted(LARGE)), st.floats(0, 1, exclude_max=True))
def test_a_large_image_cut_off_anywhere_is_refused_or_nothing_of_it_is_lost(name: str, kept: float) -> None:
    body = LARGE[name]
    small = outcome(body[: int(kept * len(body))])
    assert small is None or small == outcome(body)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("name", SMALL)
def test_any_flipped_bit_of_a_header_gives_an_image_or_an_image_error(name: str) -> None:
    for place, bit in itertools.product(range(40), range(8)):
        damaged = bytearray(SMALL[name])
        damaged[place] ^= 1 << bit
        outcome(bytes(damaged))


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@settings(max_examples=300)
@given(st.sampled_from(sorted(SMALL)), st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=20))
def test_flipped_bits_anywhere_give_an_image_or_an_image_error(name: str, places: list[float]) -> None:
    damaged = bytearray(SMALL[name])
    for place in places:
        bit = int(place * len(damaged) * 8)
        damaged[bit // 8] ^= 1 << bit % 8
    outcome(bytes(damaged))


@settings(max_examples=100)
@given(st.sampled_from(sorted(SMALL)), st.sampled_from(sorted(SMALL)), st.floats(0, 1))
def test_the_start_of_one_image_before_the_end_of_another_gives_an_image_or_an_image_error(
    start: str, end: str, kept: float
) -> None:
    outcome(SMALL[start][: int(kept * len(SMALL[start]))] + SMALL[end][int(kept * len(SMALL[end])) :])


def test_an_empty_body_is_called_empty() -> None:
    with pytest.raises(InvalidImageError, match="empty"):
        decode(b"")


@pytest.mark.parametrize("name", STRIPS)
def test_a_strip_is_refused_by_its_header(name: str) -> None:
    with pytest.raises((ImageTooSmallError, ImageTooLargeError), match=name.partition(" ")[2]):
        decode(STRIPS[name])


def test_a_jpeg_is_decoded_in_a_bounded_number_of_passes() -> None:
    assert outcome(jpeg_in_scans(MAX_JPEG_SCANS)) is not None
    with pytest.raises(InvalidImageError, match="more than 100 scans"):
        decode(jpeg_in_scans(MAX_JPEG_SCANS + 1))


DECODE_ALL = """
import json, re, resource, sys
from pathlib import Path
import hostile_bodies
from labeling_assets.errors import RowError
from labeling_assets.services.images.decoding import decode
def memory_kb(name):
    return int(re.search(name + r":\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
bodies = {name: body for group in sys.argv[2:] for name, body in getattr(hostile_bodies, group)().items()}
decode(hostile_bodies.samples(900, 700)["jpeg"])
Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
before_kb, address_space = memory_kb("VmHWM"), memory_kb("VmSize") * 1024
resource.setrlimit(resource.RLIMIT_AS, (address_space + int(sys.argv[1]),) * 2)
outcomes = {}
for name, body in bodies.items():
    try:
        decode(body)
        outcomes[name] = "decoded"
    except RowError as error:
        outcomes[name] = str(error)
print(json.dumps([outcomes, (memory_kb("VmHWM") - before_kb) * 1024]))
"""


def decoded_in_a_process(limit_bytes: int, *groups: str) -> tuple[dict[str, str], int]:
    """What became of each body, and the memory that decoding took, in a process that may not take more than a limit."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", DECODE_ALL, str(limit_bytes), *groups],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
        timeout=150,
    )
    assert done.returncode == 0, done.stderr
    outcomes, peak_bytes = json.loads(done.stdout)
    return outcomes, peak_bytes


linux_only = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, and limits the address space")


@linux_only
def test_bodies_that_promise_much_take_little_memory() -> None:
    outcomes, peak_bytes = decoded_in_a_process(300 * MEGABYTE, "deceptive", "strips")
    assert peak_bytes < 100 * MEGABYTE
    assert all(text == "decoded" or text.endswith(".") for text in outcomes.values()), outcomes


@linux_only
def test_the_largest_images_that_are_decoded_take_bounded_memory() -> None:
    outcomes, peak_bytes = decoded_in_a_process(2000 * MEGABYTE, "largest")
    assert set(outcomes.values()) == {"decoded"}
    assert peak_bytes < 1000 * MEGABYTE


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


# Hostile hosts


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


# A whole day of them


def test_a_day_of_hostile_hosts_takes_no_good_image_with_it(home: Path, engine: sa.Engine, host: ImageHost) -> None:
    limits = {"max_bytes": MEGABYTE, "read_timeout_seconds": 1.0, "total_timeout_seconds": 3.0}
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
