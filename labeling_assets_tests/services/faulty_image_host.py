"""An image host on loopback that answers as it is told: well, slowly, wrongly, or differently each time."""

from __future__ import annotations

import hashlib
import http.server
import io
import ssl
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.message import Message
from typing import Any

from PIL import Image

from labeling_assets.services.images.addresses import Resolver

Answer = Callable[["Handler"], None]

# Settings of a fetcher that does not make a test wait.
QUICK: dict[str, Any] = {
    "backoff_seconds": 0.005,
    "read_timeout_seconds": 5.0,
    "total_timeout_seconds": 20.0,
    "ssl_context": ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),  # the default one takes a tenth of a second to load
}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 10
    server: Server

    def do_GET(self) -> None:
        host = self.server.image_host
        with host.lock:
            host.requests.append((self.path, self.headers))
            host.in_flight += 1
            host.most_in_flight = max(host.most_in_flight, host.in_flight)
        try:
            host.routes.get(self.path.partition("?")[0], status(404))(self)
        except ConnectionError:  # the client has had enough
            self.close_connection = True
        finally:
            with host.lock:
                host.in_flight -= 1

    def reply(self, code: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def raw(self, content: bytes) -> None:
        """Send bytes that need not be HTTP, and close."""
        self.close_connection = True
        self.wfile.write(content)

    def log_message(self, *arguments: object) -> None:
        pass


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = False
    image_host: ImageHost

    def handle_error(self, request: object, client_address: object) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class ImageHost:
    """What the host answers (`routes`), and what it was asked (`requests`)."""

    def __init__(self, port: int, scheme: str) -> None:
        self.port = port
        self.scheme = scheme
        self.routes: dict[str, Answer] = {}
        self.requests: list[tuple[str, Message]] = []
        self.in_flight = 0
        self.most_in_flight = 0
        self.lock = threading.Lock()
        self.stopping = threading.Event()

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"{self.scheme}://{host}:{self.port}{path}"

    def add(self, path: str, answer: Answer) -> str:
        self.routes[path] = answer
        return self.url(path)

    def count(self, path: str) -> int:
        return sum(asked.partition("?")[0] == path for asked, _ in self.requests)


@contextmanager
def image_host(tls: ssl.SSLContext | None = None) -> Iterator[ImageHost]:
    server = Server(("127.0.0.1", 0), Handler)
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    host = server.image_host = ImageHost(server.server_address[1], "https" if tls else "http")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield host
    finally:
        host.stopping.set()
        server.shutdown()
        thread.join()
        server.server_close()


def status(code: int, **headers: str) -> Answer:
    return lambda handler: handler.reply(code, b"no image here: s3cret body", **headers)


def content(body: bytes, **headers: str) -> Answer:
    return lambda handler: handler.reply(200, body, **headers)


def with_etag(body: bytes) -> Answer:
    """Content that is sent only to those who do not have it."""
    etag = f'"{hashlib.md5(body, usedforsecurity=False).hexdigest()}"'

    def answer(handler: Handler) -> None:
        if handler.headers["If-None-Match"] == etag:
            handler.reply(304, ETag=etag)
        else:
            handler.reply(200, body, ETag=etag)

    return answer


def with_last_modified(body: bytes, date: str = "Wed, 21 Oct 2025 07:28:00 GMT") -> Answer:
    def answer(handler: Handler) -> None:
        if handler.headers["If-Modified-Since"] == date:
            handler.reply(304, Last_Modified=date)
        else:
            handler.reply(200, body, Last_Modified=date)

    return answer


def redirect(target: str, code: int = 302) -> Answer:
    return status(code, Location=target)


def in_turn(*answers: Answer) -> Answer:
    """One answer after the other; the last one for ever."""
    rest = list(answers)
    lock = threading.Lock()

    def answer(handler: Handler) -> None:
        with lock:
            now = rest.pop(0) if len(rest) > 1 else rest[0]
        now(handler)

    return answer


def chunked(body: bytes, chunk_bytes: int = 1000) -> Answer:
    def answer(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for start in range(0, len(body), chunk_bytes):
            part = body[start : start + chunk_bytes]
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
        handler.wfile.write(b"0\r\n\r\n")

    return answer


def dripping(start: bytes, drop: bytes = b"a", every_seconds: float = 0.02) -> Answer:
    """Bytes that never end and never stop: each read of the client succeeds."""

    def answer(handler: Handler) -> None:
        handler.raw(start)
        while not handler.server.image_host.stopping.wait(every_seconds):
            handler.raw(drop)

    return answer


def silent(handler: Handler) -> None:
    """No answer at all, until the host is stopped."""
    handler.close_connection = True
    handler.server.image_host.stopping.wait(10)


def jpeg(colour: str | tuple[int, int, int] = "navy", size: tuple[int, int] = (64, 48)) -> bytes:
    return encoded(Image.new("RGB", size, colour), "JPEG")


def encoded(image: Image.Image, image_format: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, image_format, **options)
    return file.getvalue()


def resolving_to(*addresses: str) -> Resolver:
    """A name server that gives every name these addresses."""

    def resolve(name: str, port: int) -> tuple[str, ...]:
        return addresses

    return resolve
