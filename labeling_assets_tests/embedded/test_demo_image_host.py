"""The demo's image host over real sockets."""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import io
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate, parsedate_to_datetime
from pathlib import Path

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from labeling_assets.embedded.demo.catalogue import build_catalogue
from labeling_assets.embedded.demo.catalogue_folder import replace_image, write_catalogue
from labeling_assets.embedded.demo.contents import Catalogue
from labeling_assets.embedded.demo.image_host import ImageHost


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return build_catalogue(days=1, products_per_day=2, last_day=dt.date(2025, 11, 20))


@pytest.fixture(scope="module")
def folder(catalogue: Catalogue, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo of the host")
    write_catalogue(catalogue, folder)
    return folder


@pytest.fixture(scope="module")
def _running(folder: Path) -> Iterator[ImageHost]:
    with ImageHost(folder) as host:
        yield host


@pytest.fixture
def host(_running: ImageHost) -> ImageHost:
    _running.reset()
    return _running


@pytest.fixture
def client(host: ImageHost) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=host.url, trust_env=False) as client:
        yield client


def _path(catalogue: Catalogue, trap: str) -> str:
    product_id = catalogue.trap(trap).product_ids[0]
    return next(row.image for row in catalogue.rows if row.product_id == product_id and row.image)


def _png(colour: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), colour).save(buffer, "PNG")
    return buffer.getvalue()


def test_an_image_comes_with_strong_etag_length_and_type(
    catalogue: Catalogue, folder: Path, client: httpx.Client
) -> None:
    path = _path(catalogue, "same image")
    reply = client.get(path)
    content = (folder / path).read_bytes()
    assert (reply.status_code, reply.content) == (200, content)
    assert reply.headers["ETag"] == f'"{hashlib.sha256(content).hexdigest()}"'
    assert reply.headers["Content-Length"] == str(len(content))
    assert reply.headers["Content-Type"] in ("image/jpeg", "image/png", "image/webp")
    assert reply.http_version == "HTTP/1.1"
    assert parsedate_to_datetime(reply.headers["Last-Modified"])


@pytest.mark.parametrize("validator", ["ETag", "weak ETag", "list of ETags", "*", "Last-Modified", "later date"])
def test_what_the_client_has_is_not_sent_again(
    validator: str, catalogue: Catalogue, host: ImageHost, client: httpx.Client
) -> None:
    path = _path(catalogue, "same image")
    first = client.get(path)
    etag, changed = first.headers["ETag"], first.headers["Last-Modified"]
    headers = {
        "ETag": {"If-None-Match": etag},
        "weak ETag": {"If-None-Match": f"W/{etag}"},
        "list of ETags": {"If-None-Match": f'"other", {etag}'},
        "*": {"If-None-Match": "*"},
        "Last-Modified": {"If-Modified-Since": changed},
        "later date": {"If-Modified-Since": formatdate(parsedate_to_datetime(changed).timestamp() + 60, usegmt=True)},
    }[validator]
    reply = client.get(path, headers=headers)
    assert (reply.status_code, reply.content) == (304, b"")
    assert reply.headers["ETag"] == etag
    stats = host.stats()
    assert (stats["requests"], stats["bodies"], stats["not_modified"]) == (2, 1, 1)
    assert stats["bytes"] == len(first.content)


@pytest.mark.parametrize(
    "headers",
    [
        {"If-None-Match": '"other"'},
        {"If-None-Match": '"other"', "If-Modified-Since": formatdate(4e9, usegmt=True)},
        {"If-Modified-Since": formatdate(0, usegmt=True)},
        {"If-Modified-Since": "yesterday"},
        {"If-Modified-Since": ""},
    ],
)
def test_what_the_client_has_not_is_sent(headers: dict[str, str], catalogue: Catalogue, client: httpx.Client) -> None:
    assert client.get(_path(catalogue, "same image"), headers=headers).status_code == 200


def test_head_tells_the_same_without_a_body(catalogue: Catalogue, host: ImageHost, client: httpx.Client) -> None:
    path = _path(catalogue, "same image")
    head, get = client.head(path), client.get(path)
    assert head.content == b""
    for name in ("ETag", "Content-Length", "Content-Type", "Last-Modified"):
        assert head.headers[name] == get.headers[name]
    assert host.stats()["bodies"] == 1


def test_a_missing_image_is_404_each_time(catalogue: Catalogue, client: httpx.Client) -> None:
    path = _path(catalogue, "404")
    assert [client.get(path).status_code for _ in range(2)] == [404, 404]


def test_a_busy_image_is_503_once_and_again_after_a_reset(catalogue: Catalogue, client: httpx.Client) -> None:
    path = _path(catalogue, "503 at first try")
    replies = [client.get(path) for _ in range(3)]
    assert [reply.status_code for reply in replies] == [503, 200, 200]
    assert replies[0].headers["Retry-After"] == "0"
    assert client.post("/reset").status_code == 204
    assert client.get(path).status_code == 503


def test_a_redirect_leads_to_a_good_image(catalogue: Catalogue, client: httpx.Client) -> None:
    reply = client.get(_path(catalogue, "redirect"))
    assert reply.status_code == 302
    followed = client.get(reply.headers["Location"])
    Image.open(io.BytesIO(followed.content)).load()


def test_a_web_page_can_pretend_to_be_a_jpeg(catalogue: Catalogue, client: httpx.Client) -> None:
    honest, lying = (client.get(_path(catalogue, trap)) for trap in ("HTML page", "HTML page as JPEG"))
    assert honest.headers["Content-Type"] == "text/html"
    assert lying.headers["Content-Type"] == "image/jpeg"
    assert lying.content.startswith(b"<!doctype html>")


def test_the_truncated_jpeg_arrives_with_a_matching_length(catalogue: Catalogue, client: httpx.Client) -> None:
    reply = client.get(_path(catalogue, "truncated JPEG"))
    assert reply.headers["Content-Length"] == str(len(reply.content))
    with pytest.raises(OSError, match="truncated"):
        Image.open(io.BytesIO(reply.content)).load()


@pytest.mark.parametrize("trap", ["same image", "404", "503 at first try", "redirect", "truncated JPEG"])
def test_a_replaced_image_is_served_at_once_whatever_was_there(
    trap: str, catalogue: Catalogue, folder: Path, client: httpx.Client
) -> None:
    path = _path(catalogue, trap)
    before = client.get(path)
    replace_image(folder, path, _png("teal"))
    teal = client.get(path, headers={"If-None-Match": before.headers.get("ETag", '"none"')})
    assert (teal.status_code, teal.content, teal.headers["Content-Type"]) == (200, _png("teal"), "image/png")
    replace_image(folder, str(client.base_url.join(path)), _png("navy"))
    navy = client.get(path, headers={"If-None-Match": teal.headers["ETag"]})
    assert (navy.status_code, navy.content) == (200, _png("navy"))
    write_catalogue(catalogue, folder)
    assert client.get(path).headers.get("ETag") == client.get(path).headers.get("ETag") != navy.headers["ETag"]


def test_a_new_catalogue_is_served_without_a_restart(home: Path, catalogue: Catalogue) -> None:
    folder = home / "demo"
    other = build_catalogue(seed=8, days=1, products_per_day=1, last_day=dt.date(2025, 11, 20), has_traps=False)
    path = next(iter(other.images))
    with ImageHost(folder) as host, httpx.Client(base_url=host.url, trust_env=False) as client:
        unready = client.get(path)
        assert (unready.status_code, unready.headers["Retry-After"]) == (503, "1")
        write_catalogue(other, folder)
        assert client.get(path).status_code == 200
        (folder / path).unlink()
        assert client.get(path).status_code == 503


@pytest.mark.parametrize(
    "target",
    [
        "/images/../host.json",
        "/images/%2e%2e/host.json",
        "/images/..%2fhost.json",
        "//etc/passwd",
        "/images//etc/passwd",
        "/images/%00",
        "/host.json",
        "/replaced/images",
        "/",
        "/images/",
        "/images/.lock",
    ],
)
def test_nothing_but_the_images_of_the_index_is_served(target: str, host: ImageHost) -> None:
    assert _raw_status(host, f"GET {target} HTTP/1.1") == 404


@given(target=st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=60))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_path_whatever_breaks_the_host_or_leaves_the_folder(target: str, host: ImageHost) -> None:
    assert _raw_status(host, f"GET /images/../{target} HTTP/1.1") == 404


@pytest.mark.parametrize("request_line", ["PUT /images/a.jpg HTTP/1.1", "POST /images/a.jpg HTTP/1.1", "garbage"])
def test_other_requests_are_refused(request_line: str, host: ImageHost) -> None:
    assert _raw_status(host, request_line) in (400, 405, 501)


def test_one_connection_serves_many_requests(catalogue: Catalogue, host: ImageHost) -> None:
    path = _path(catalogue, "same image")
    with contextlib.closing(socket.create_connection(("127.0.0.1", host.port), 10)) as connection:
        stream = connection.makefile("rb")
        for _ in range(3):
            connection.sendall(f"HEAD /{path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert stream.readline().startswith(b"HTTP/1.1 200")
            while stream.readline().strip():
                pass
        stream.close()


def test_counters_are_exact_under_load(catalogue: Catalogue, host: ImageHost) -> None:
    path = _path(catalogue, "same image")
    with httpx.Client(base_url=host.url, trust_env=False) as client, ThreadPoolExecutor(16) as pool:
        sizes = [len(reply.content) for reply in pool.map(lambda _: client.get(path), range(100))]
        stats = client.get("/stats").json()
    assert (stats["requests"], stats["bodies"], stats["bytes"]) == (100, 100, sum(sizes))
    assert stats["requests_by_path"] == {path: 100}
    assert client.is_closed


def test_probes_are_no_traffic(host: ImageHost, client: httpx.Client) -> None:
    client.get("/")
    client.get("/stats")
    assert host.stats()["requests"] == 0


def test_a_host_with_open_connections_and_long_latency_stops_at_once(catalogue: Catalogue, folder: Path) -> None:
    host = ImageHost(folder, latency_ms=600_000).start()
    idle = socket.create_connection(("127.0.0.1", host.port), 30)
    waiting = socket.create_connection(("127.0.0.1", host.port), 30)
    waiting.sendall(f"GET /{_path(catalogue, 'same image')} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    while not host.stats()["requests"]:
        threading.Event().wait(0.005)
    host.close()
    assert idle.recv(1) == b""
    idle.close()
    waiting.close()


def test_closing_a_host_that_never_started_frees_its_port(folder: Path) -> None:
    host = ImageHost(folder)
    host.close()
    with ImageHost(folder, port=host.port) as again:
        assert again.port == host.port


@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGINT])
def test_the_program_serves_until_a_signal(signal_number: signal.Signals, folder: Path, catalogue: Catalogue) -> None:
    with _program(folder, 0) as program:
        assert program.stderr
        url = program.stderr.readline().split()[-1]
        with httpx.Client(base_url=url, trust_env=False) as client:
            assert client.get(_path(catalogue, "same image")).status_code == 200
            program.send_signal(signal_number)
            assert program.wait() == 0


def test_a_taken_port_ends_the_program_with_one_clear_line(host: ImageHost, folder: Path) -> None:
    with _program(folder, host.port) as program:
        _, errors = program.communicate()
    assert program.returncode == 1
    assert errors.count("\n") == 1
    assert f"cannot listen on 127.0.0.1:{host.port}" in errors


def _program(folder: Path, port: int) -> subprocess.Popen[str]:
    module = "labeling_assets.embedded.demo.image_host"
    arguments = [sys.executable, "-m", module, "--folder", str(folder), "--host", "127.0.0.1", "--port", str(port)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _raw_status(host: ImageHost, request_line: str) -> int:
    """Status of a request that no client library tidies up."""
    with contextlib.closing(socket.create_connection(("127.0.0.1", host.port), 10)) as connection:
        connection.sendall(f"{request_line}\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".encode())
        reply = b"".join(iter(lambda: connection.recv(65536), b""))
    first_line = reply.split(b"\r\n", 1)[0]
    if first_line.startswith(b"HTTP/"):
        return int(first_line.split()[1])
    return 400 if b"Error code: 400" in reply else 0
