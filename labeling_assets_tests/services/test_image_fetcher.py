from __future__ import annotations

import datetime as dt
import email.utils
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpcore
import pytest
from faulty_image_host import (
    QUICK,
    Handler,
    ImageHost,
    chunked,
    content,
    dripping,
    image_host,
    in_turn,
    jpeg,
    redirect,
    resolving_to,
    silent,
    status,
    with_etag,
    with_last_modified,
)
from hypothesis import given
from hypothesis import strategies as st

from labeling_assets.errors import (
    ImageAddressRefusedError,
    ImageError,
    ImageNotFoundError,
    ImageTooLargeError,
    ImageUnavailableError,
    InvalidImageError,
)
from labeling_assets.services.images import fetcher as fetcher_module
from labeling_assets.services.images.addresses import AddressPolicy, system_resolver
from labeling_assets.services.images.fetcher import FetchedBody, ImageFetcher, NotModified, Validators

BODY = jpeg()
HEAD = b"HTTP/1.1 200 OK\r\n"


@pytest.fixture
def host() -> Iterator[ImageHost]:
    with image_host() as host:
        yield host


class Fetchers:
    """Makes fetchers that may reach the host, and closes them."""

    def __init__(self, host: ImageHost) -> None:
        self._host = host
        self._made: list[ImageFetcher] = []

    def __call__(self, *, names: Sequence[str] = (), resolve=system_resolver, **options) -> ImageFetcher:
        allowed = [f"{name}:{self._host.port}" for name in ("127.0.0.1", *names)]
        made = ImageFetcher(AddressPolicy(allowed, resolve), **(QUICK | options))
        self._made.append(made)
        return made

    def close(self) -> None:
        for made in self._made:
            made.close()


@pytest.fixture
def fetchers(host: ImageHost) -> Iterator[Fetchers]:
    made = Fetchers(host)
    yield made
    made.close()


@pytest.fixture
def fetcher(fetchers: Fetchers) -> ImageFetcher:
    return fetchers()


def test_a_body_arrives_with_its_validators(host: ImageHost, fetcher: ImageFetcher) -> None:
    url = host.add("/a.jpg", content(BODY, ETag='"1"', Last_Modified="yesterday"))
    assert fetcher.fetch(url) == FetchedBody(BODY, Validators('"1"', "yesterday"))


def test_the_host_learns_who_asks_and_for_what(host: ImageHost, fetcher: ImageFetcher) -> None:
    fetcher.fetch(host.add("/a.jpg", content(BODY)) + "?w=1#top")
    path, headers = host.requests[0]
    assert path == "/a.jpg?w=1"
    assert headers["Host"] == f"127.0.0.1:{host.port}"
    assert headers["User-Agent"].startswith("labeling-assets/")
    assert headers["Accept-Encoding"] == "identity"
    assert "avif" not in headers["Accept"]


def test_a_path_with_spaces_and_vietnamese_letters_is_fetched(host: ImageHost, fetcher: ImageFetcher) -> None:
    host.add("/C%E1%BB%91c%20s%E1%BB%A9.jpg", content(BODY))
    assert fetcher.fetch(host.url("/Cốc sứ.jpg")) == FetchedBody(BODY, Validators())


@pytest.mark.parametrize("answer", [chunked(BODY), lambda handler: handler.raw(HEAD + b"\r\n" + BODY)])
def test_a_body_of_untold_length_is_complete(answer, host: ImageHost, fetcher: ImageFetcher) -> None:
    assert fetcher.fetch(host.add("/a.jpg", answer)) == FetchedBody(BODY, Validators())


def test_one_connection_serves_many_requests(host: ImageHost, fetcher: ImageFetcher) -> None:
    connections = set()

    def answer(handler: Handler) -> None:
        connections.add(handler.client_address)
        handler.reply(200, BODY)

    url = host.add("/a.jpg", answer)
    for _ in range(5):
        fetcher.fetch(url)
    assert len(connections) == 1


def test_many_threads_share_a_fetcher(host: ImageHost, fetcher: ImageFetcher) -> None:
    bodies = {host.add(f"/{n}.jpg", content(b"%d" % n * 5000)): b"%d" % n * 5000 for n in range(60)}
    with ThreadPoolExecutor(12) as pool:
        fetched = pool.map(fetcher.fetch, bodies)
    assert [answer.body for answer in fetched if isinstance(answer, FetchedBody)] == list(bodies.values())


# Conditional requests


@pytest.mark.parametrize("answer", [with_etag(BODY), with_last_modified(BODY)])
def test_content_at_hand_is_not_sent_again(answer, host: ImageHost, fetcher: ImageFetcher) -> None:
    url = host.add("/a.jpg", answer)
    first = fetcher.fetch(url)
    assert isinstance(first, FetchedBody)
    assert isinstance(fetcher.fetch(url, first.validators), NotModified)
    host.add("/a.jpg", with_etag(jpeg("red")))
    assert isinstance(fetcher.fetch(url, first.validators), FetchedBody)


def test_not_modified_without_being_asked_is_no_answer(host: ImageHost, fetcher: ImageFetcher) -> None:
    with pytest.raises(ImageUnavailableError, match="answered 304"):
        fetcher.fetch(host.add("/a.jpg", status(304)))


def test_an_older_file_behind_a_changed_redirect_is_noticed(host: ImageHost, fetcher: ImageFetcher) -> None:
    host.add("/new.jpg", content(BODY, Last_Modified="Wed, 21 Oct 2025 07:28:00 GMT"))
    url = host.add("/a.jpg", redirect("/new.jpg"))
    first = fetcher.fetch(url)
    assert isinstance(first, FetchedBody)
    older = jpeg("red")

    def not_modified_since(handler: Handler) -> None:
        handler.reply(304 if handler.headers["If-Modified-Since"] else 200, older)

    host.add("/old.jpg", not_modified_since)
    host.add("/a.jpg", redirect("/old.jpg"))
    assert fetcher.fetch(url, first.validators) == FetchedBody(older, Validators())
    assert fetcher.fetch(url, Validators(None, "Wed, 21 Oct 2025 07:28:00 GMT")) == FetchedBody(older, Validators())


# Statuses and retries


@pytest.mark.parametrize("code", [204, 206, 300, 400, 401, 403, 404, 410, 418, 451])
def test_a_final_status_is_not_asked_again(code: int, host: ImageHost, fetcher: ImageFetcher) -> None:
    with pytest.raises(ImageNotFoundError, match=f"answered {code}") as refusal:
        fetcher.fetch(host.add("/a.jpg", status(code)))
    assert host.count("/a.jpg") == 1
    assert "s3cret" not in str(refusal.value)


@pytest.mark.parametrize("code", [408, 425, 429, 500, 502, 503, 504, 520])
def test_a_transient_status_is_asked_again_until_it_delivers(code: int, host: ImageHost, fetcher: ImageFetcher) -> None:
    retries: list[int] = []
    url = host.add("/a.jpg", in_turn(status(code), status(code), content(BODY)))
    assert fetcher.fetch(url, on_retry=lambda: retries.append(1)) == FetchedBody(BODY, Validators())
    assert len(retries) == 2


def test_after_four_attempts_the_image_is_unavailable(host: ImageHost, fetcher: ImageFetcher) -> None:
    url = host.add("/a.jpg", status(503))
    with pytest.raises(ImageUnavailableError, match=r"/a\.jpg\?…: the host answered 503 \(attempts: 4\)") as refusal:
        fetcher.fetch(url + "?signature=s3cret")
    assert host.count("/a.jpg") == 4
    assert refusal.value.can_retry
    assert "s3cret" not in str(refusal.value)


def test_a_refused_connection_is_unavailable() -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{reserved.getsockname()[1]}"
        fetcher = ImageFetcher(AddressPolicy([address]), **QUICK)
        with pytest.raises(ImageUnavailableError, match=r"connection failed .*attempts: 4"):
            fetcher.fetch(f"http://{address}/a.jpg")
        fetcher.close()


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"HTTP/1.1 200 O",
        b"nonsense with a s3cret\r\n\r\n",
        b"\x00\xff" * 100,
        HEAD + b"Content-Length: 99999\r\n\r\n" + BODY,
        HEAD + b"Content-Length: -1\r\n\r\n",
        HEAD + b"Content-Length: " + b"9" * 30 + b"\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n400\r\nabc",
        HEAD + b"X: " + b"a" * 200_000,
    ],
)
def test_a_host_that_breaks_off_or_breaks_http_is_asked_again(
    broken: bytes, host: ImageHost, fetcher: ImageFetcher
) -> None:
    url = host.add("/a.jpg", lambda handler: handler.raw(broken))
    with pytest.raises(ImageUnavailableError) as refusal:
        fetcher.fetch(url)
    assert host.count("/a.jpg") == 4
    assert "s3cret" not in str(refusal.value)
    host.add("/a.jpg", in_turn(lambda handler: handler.raw(broken), content(BODY)))
    assert fetcher.fetch(url) == FetchedBody(BODY, Validators())


@pytest.fixture(scope="module")
def noisy() -> Iterator[tuple[ImageHost, ImageFetcher]]:
    with image_host() as host:
        fetcher = ImageFetcher(AddressPolicy([f"127.0.0.1:{host.port}"]), **(QUICK | {"backoff_seconds": 0.0}))
        yield host, fetcher
        fetcher.close()


@given(
    noise=st.binary(max_size=200),
    start=st.sampled_from([b"", HEAD, HEAD + b"Content-Length: 3\r\n\r\n", b"HTTP/1.1 302 Found\r\n"]),
)
def test_whatever_a_host_sends_only_an_image_error_comes_out(
    noisy: tuple[ImageHost, ImageFetcher], noise: bytes, start: bytes
) -> None:
    host, fetcher = noisy
    try:
        answer = fetcher.fetch(host.add("/a.jpg", lambda handler: handler.raw(start + noise)))
    except ImageError:
        return
    assert isinstance(answer, FetchedBody)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(None, 0), ("", 0), ("7", 7), ("-7", 0), ("soon", 0), ("9" * 400, 999_999_999), ("Mon, 99 Foo 2025", 0), ("²", 0)],
)
def test_retry_after_is_read(value: str | None, seconds: float) -> None:
    assert fetcher_module._retry_after_seconds(value) == seconds


def test_retry_after_may_be_a_date() -> None:
    soon = email.utils.format_datetime(dt.datetime.now(dt.UTC) + dt.timedelta(seconds=100), usegmt=True)
    assert 90 < fetcher_module._retry_after_seconds(soon) <= 100


def test_retry_after_is_waited_for_up_to_a_limit(fetcher: ImageFetcher, host: ImageHost) -> None:
    waits = []

    class Recorded(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waits.append(timeout)
            return False

    url = host.add("/a.jpg", in_turn(status(429, Retry_After="3"), status(503, Retry_After="15"), content(BODY)))
    fetcher.fetch(url, cancelled=Recorded())
    assert waits == [3.0, 15.0]
    waits.clear()
    with pytest.raises(ImageUnavailableError, match="attempts: 1"):  # 20 seconds would be after the deadline
        fetcher.fetch(host.add("/b.jpg", status(429, Retry_After="86400")), cancelled=Recorded())
    assert waits == []


# Limits


@pytest.mark.parametrize("answer", [content(b"a" * 5001), chunked(b"a" * 5001)])
def test_a_body_over_the_limit_is_refused(answer, host: ImageHost, fetchers: Fetchers) -> None:
    with pytest.raises(ImageTooLargeError, match="larger than 5000 bytes"):
        fetchers(max_bytes=5000).fetch(host.add("/a.jpg", answer))
    assert host.count("/a.jpg") == 1


def test_a_body_of_exactly_the_limit_is_taken(host: ImageHost, fetchers: Fetchers) -> None:
    body = b"a" * 5000
    assert fetchers(max_bytes=5000).fetch(host.add("/a.jpg", chunked(body))) == FetchedBody(body, Validators())


def test_an_endless_body_is_refused(host: ImageHost, fetchers: Fetchers) -> None:
    endless = dripping(HEAD + b"\r\n", b"a" * 10_000, every_seconds=0)
    with pytest.raises(ImageTooLargeError):
        fetchers(max_bytes=1_000_000).fetch(host.add("/a.jpg", endless))


@pytest.mark.parametrize(
    "answer",
    [
        dripping(b"HTTP/1.1 200 OK\r\nX: "),
        dripping(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        dripping(HEAD + b"Content-Length: 100000\r\n\r\n"),
        dripping(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\na\r\n"),
        silent,
    ],
    ids=["headers", "interim responses", "body", "chunks", "silence"],
)
def test_a_host_that_drips_for_ever_meets_the_deadline(answer, host: ImageHost, fetchers: Fetchers) -> None:
    fetcher = fetchers(total_timeout_seconds=0.5)
    with pytest.raises(ImageUnavailableError, match=r"did not answer in time \(attempts: 1\)"):
        fetcher.fetch(host.add("/a.jpg", answer))


def test_silence_is_given_up_before_the_deadline_and_asked_again(host: ImageHost, fetchers: Fetchers) -> None:
    fetcher = fetchers(read_timeout_seconds=0.2)
    assert fetcher.fetch(host.add("/a.jpg", in_turn(silent, content(BODY)))) == FetchedBody(BODY, Validators())


def test_a_name_server_that_does_not_answer_meets_the_time_out(host: ImageHost, fetchers: Fetchers) -> None:
    answered = threading.Event()

    def resolve(name: str, port: int) -> Sequence[str]:
        answered.wait(10)
        return ["127.0.0.1"]

    fetcher = fetchers(resolve=resolve, connect_timeout_seconds=0.1)
    with pytest.raises(ImageUnavailableError, match="did not answer in time"):
        fetcher.fetch(host.url("/a.jpg"))
    answered.set()


def test_cancelling_ends_a_fetch_that_drips(host: ImageHost, fetcher: ImageFetcher) -> None:
    asked, cancelled = threading.Event(), threading.Event()
    drip = dripping(HEAD + b"Content-Length: 100000\r\n\r\n")

    def answer(handler: Handler) -> None:
        asked.set()
        drip(handler)

    with ThreadPoolExecutor(1) as pool:
        fetch = pool.submit(fetcher.fetch, host.add("/a.jpg", answer), cancelled=cancelled)
        asked.wait(10)
        cancelled.set()
        with pytest.raises(ImageUnavailableError):
            fetch.result()


def test_a_compressed_body_is_refused(host: ImageHost, fetcher: ImageFetcher) -> None:
    with pytest.raises(InvalidImageError, match="compressed"):
        fetcher.fetch(host.add("/a.jpg", content(BODY, Content_Encoding="gzip")))


# Redirects


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_redirects_are_followed(code: int, host: ImageHost, fetcher: ImageFetcher) -> None:
    host.add("/pictures/b.jpg", content(BODY, ETag='"1"'))
    for location in ("/pictures/b.jpg", "pictures/b.jpg", f"//127.0.0.1:{host.port}/pictures/b.jpg#x"):
        url = host.add("/a.jpg", redirect(location, code))
        assert fetcher.fetch(url) == FetchedBody(BODY, Validators('"1"'))


def test_a_redirect_in_vietnamese_letters_is_followed(host: ImageHost, fetcher: ImageFetcher) -> None:
    host.add("/C%E1%BB%91c.jpg", content(BODY))
    answer = "HTTP/1.1 302 Found\r\nLocation: /Cốc.jpg\r\nContent-Length: 0\r\n\r\n".encode()
    url = host.add("/a.jpg", lambda handler: handler.raw(answer))
    assert fetcher.fetch(url) == FetchedBody(BODY, Validators())


def test_five_redirects_are_followed_and_six_are_not(host: ImageHost, fetcher: ImageFetcher) -> None:
    host.add("/0", content(BODY))
    for left in range(1, 7):
        host.add(f"/{left}", redirect(f"/{left - 1}"))
    assert isinstance(fetcher.fetch(host.url("/5")), FetchedBody)
    with pytest.raises(ImageAddressRefusedError, match="more than 5 times"):
        fetcher.fetch(host.url("/6"))


def test_a_redirect_in_a_circle_ends(host: ImageHost, fetcher: ImageFetcher) -> None:
    with pytest.raises(ImageAddressRefusedError, match="more than 5 times"):
        fetcher.fetch(host.add("/a.jpg", redirect("/a.jpg")))


@pytest.mark.parametrize(
    "target",
    [
        "http://localhost:{port}/b.jpg",
        "http://127.0.0.2:{port}/b.jpg",
        "http://[::1]:{port}/b.jpg",
        "http://2130706433:{port}/b.jpg",
        "http://169.254.169.254/latest/meta-data",
        "http://10.0.0.1/b.jpg",
        "file:///etc/passwd",
        "ftp://127.0.0.1:{port}/b.jpg",
        "http://user:s3cret@127.0.0.1:{port}/b.jpg",
        "http://127.0.0.1:99999/b.jpg",
    ],
)
def test_a_redirect_to_a_private_address_or_another_scheme_is_refused(
    target: str, host: ImageHost, fetcher: ImageFetcher
) -> None:
    host.add("/b.jpg", content(BODY))
    with pytest.raises(ImageAddressRefusedError) as refusal:
        fetcher.fetch(host.add("/a.jpg", redirect(target.format(port=host.port))))
    assert host.count("/b.jpg") == 0
    assert "s3cret" not in str(refusal.value)


def test_a_redirect_without_a_location_is_final(host: ImageHost, fetcher: ImageFetcher) -> None:
    with pytest.raises(ImageNotFoundError, match="without a location"):
        fetcher.fetch(host.add("/a.jpg", status(302)))


# Names and addresses


def test_a_public_name_that_leads_to_a_private_address_is_refused(host: ImageHost, fetchers: Fetchers) -> None:
    host.add("/a.jpg", content(BODY))
    fetcher = fetchers(resolve=resolving_to("127.0.0.1"))
    with pytest.raises(ImageAddressRefusedError, match=r"cdn\.example"):
        fetcher.fetch(host.url("/a.jpg", host="cdn.example"))
    assert host.requests == []


def test_the_checked_address_is_connected_to_and_the_name_is_not_resolved_again(
    host: ImageHost, fetchers: Fetchers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name server says a public address first and a private one ever after."""
    answers = [["93.184.216.34"], ["127.0.0.1"]]
    connected = []

    def resolve(name: str, port: int) -> Sequence[str]:
        return answers.pop(0)

    fetcher = fetchers(resolve=resolve)

    class Routed(httpcore.SyncBackend):
        """Stands for the internet: the public address leads to the test's host."""

        def connect_tcp(self, address, port, *arguments):
            connected.append(address)
            return super().connect_tcp("127.0.0.1", port, *arguments)

    monkeypatch.setattr(fetcher._backend, "_backend", Routed())
    url = host.add("/a.jpg", content(BODY, Connection="close"))
    cdn_url = url.replace("127.0.0.1", "cdn.example")
    assert isinstance(fetcher.fetch(cdn_url), FetchedBody)
    assert host.requests[0][1]["Host"] == f"cdn.example:{host.port}"
    with pytest.raises(ImageAddressRefusedError):
        fetcher.fetch(cdn_url)
    assert connected == ["93.184.216.34"]


def test_the_next_address_is_tried_when_one_does_not_answer(host: ImageHost, fetchers: Fetchers) -> None:
    fetcher = fetchers(names=["cdn.example"], resolve=resolving_to("127.0.0.77", "127.0.0.1"))
    host.add("/a.jpg", content(BODY))
    assert isinstance(fetcher.fetch(host.url("/a.jpg", host="cdn.example")), FetchedBody)


def test_a_host_without_addresses_is_unavailable(host: ImageHost, fetchers: Fetchers) -> None:
    with pytest.raises(ImageUnavailableError):
        fetchers(resolve=resolving_to()).fetch("http://cdn.example/a.jpg")


@pytest.mark.parametrize(("number", "attempts"), [(socket.EAI_NONAME, 1), (socket.EAI_AGAIN, 4)])
def test_only_a_name_server_that_may_answer_later_is_asked_again(
    number: int, attempts: int, host: ImageHost, fetchers: Fetchers
) -> None:
    asked = []

    def resolve(name: str, port: int) -> Sequence[str]:
        asked.append(name)
        raise socket.gaierror(number, "no address")

    with pytest.raises(ImageUnavailableError):
        fetchers(resolve=resolve).fetch("http://cdn.example/a.jpg")
    assert len(asked) == attempts


# TLS


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate of cdn.example, signed by itself, and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    files = tmp_path / "certificate.pem", tmp_path / "key.pem"
    options = "-x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=cdn.example -addext subjectAltName=DNS:cdn.example"
    command = ["openssl", "req", *options.split(), "-out", str(files[0]), "-keyout", str(files[1])]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    return files


def test_tls_checks_the_name_of_the_url_on_the_pinned_address(certificate: tuple[Path, Path]) -> None:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(*certificate)
    names: list[str | None] = []

    def note_name(connection: ssl.SSLSocket, name: str | None, context: ssl.SSLContext) -> None:
        names.append(name)

    server.sni_callback = note_name
    trusting = ssl.create_default_context(cafile=str(certificate[0]))
    with image_host(server) as host:
        host.add("/a.jpg", content(BODY))
        policy = AddressPolicy(
            [f"cdn.example:{host.port}", f"evil.example:{host.port}"], resolve=resolving_to("127.0.0.1")
        )
        fetcher = ImageFetcher(policy, ssl_context=trusting, backoff_seconds=0.005)
        assert isinstance(fetcher.fetch(host.url("/a.jpg", host="cdn.example")), FetchedBody)
        with pytest.raises(ImageUnavailableError):
            fetcher.fetch(host.url("/a.jpg", host="evil.example"))
        fetcher.close()
    assert set(names) == {"cdn.example", "evil.example"}
