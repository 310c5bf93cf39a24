"""The demo's image host: a real HTTP/1.1 server that delivers the catalogue's images, well and badly.

It answers what `host.json` of the folder says and reads that file again when it changes. Conditional requests get 304.
Run it as a program, or within a process:

    python -m labeling_assets.embedded.demo.image_host --folder FOLDER --host 127.0.0.1 --port 8081

    with ImageHost(folder) as host:
        httpx.get(f"{host.url}/images/…")

`GET /stats` tells what was asked and sent since the start, and `POST /reset` begins anew, first answers included.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import signal
import socket
import sys
import threading
from email.utils import formatdate, parsedate_to_datetime
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer
from types import TracebackType
from typing import Any, ClassVar, Self
from urllib.parse import quote, unquote, urlsplit

from labeling_assets.embedded.demo.image_shelf import Shelf, Traffic

logger = logging.getLogger(__name__)
_RETRY_AFTER_SECONDS = 0
_IDLE_SECONDS = 60.0
_MAGIC = ((b"\xff\xd8\xff", "image/jpeg"), (b"\x89PNG", "image/png"), (b"RIFF", "image/webp"), (b"GIF8", "image/gif"))


class ImageHost:
    """The image host within a process; a context manager.

    Args:
        folder: Folder of the demo, see `catalogue_folder`.
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one.
        latency_ms: Wait before each answer.
    """

    def __init__(self, folder: Path, host: str = "127.0.0.1", port: int = 0, latency_ms: float = 0.0) -> None:
        self._server = _Server((host, port), Shelf(folder), latency_ms / 1000)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def port(self) -> int:
        """The port in use."""
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        """Address without a slash at the end."""
        return f"http://{self._server.server_address[0]!s}:{self.port}"

    def stats(self) -> dict[str, Any]:
        """What `GET /stats` tells."""
        return self._server.traffic.as_dict()

    def reset(self) -> None:
        """What `POST /reset` does."""
        self._server.traffic.reset()

    def start(self) -> Self:
        """Begin to answer."""
        self._thread.start()
        return self

    def close(self) -> None:
        """Stop at once; open connections are cut."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.cut_connections()
        self._server.server_close()

    def __enter__(self) -> Self:
        """Begin to answer."""
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        self.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    block_on_close = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], shelf: Shelf, latency_seconds: float) -> None:
        super().__init__(address, _Handler)
        self.shelf = shelf
        self.latency_seconds = latency_seconds
        self.traffic = Traffic()
        self.is_closing = threading.Event()
        self._connections: set[socket.socket] = set()

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a connection."""
        connection, address = super().get_request()
        self._connections.add(connection)
        return connection, address

    def shutdown_request(self, request: Any) -> None:  # noqa: ANN401 - type of the standard library
        """End a connection."""
        self._connections.discard(request)
        super().shutdown_request(request)

    def cut_connections(self) -> None:
        """Wake the threads that wait for a client, so that they end."""
        self.is_closing.set()
        for connection in list(self._connections):
            with contextlib.suppress(OSError):  # the client was faster
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - types of the standard library
        """Log what went wrong with a connection; a client that went away is no error."""
        if isinstance(sys.exception(), ConnectionError):
            logger.debug("%s went away.", client_address)
        else:
            logger.exception("Cannot answer %s on %s.", client_address, request)

    def server_bind(self) -> None:
        """Bind without the look-up of the host's name, which can take seconds."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    server_version = "DemoImageHost"
    timeout: ClassVar[float] = _IDLE_SECONDS
    disable_nagle_algorithm = True
    wbufsize = -1

    def do_GET(self) -> None:
        if self.path == "/stats":
            body = json.dumps(self.server.traffic.as_dict()).encode()
            self._answer(HTTPStatus.OK, body, {"Content-Type": "application/json", "Cache-Control": "no-store"})
        else:
            self._image()

    def do_HEAD(self) -> None:
        self._image()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path == "/reset":
            self.server.traffic.reset()
            self._answer(HTTPStatus.NO_CONTENT)
        else:
            self._answer(HTTPStatus.METHOD_NOT_ALLOWED)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - name of the standard library
        logger.debug(format, *args)

    def _image(self) -> None:
        path = unquote(urlsplit(self.path).path).lstrip("/")
        if not path.startswith("images/"):  # probes of the supervisor are no traffic
            self._answer(HTTPStatus.NOT_FOUND)
            return
        is_first = self.server.traffic.ask(path)
        self.server.is_closing.wait(self.server.latency_seconds)
        try:
            status, body, headers = self._look_up(path, is_first=is_first)
        except OSError as error:  # the catalogue is being written, or a file of it was taken away
            logger.warning("Cannot read %s: %s", path, error)
            status, body, headers = HTTPStatus.SERVICE_UNAVAILABLE, b"", {"Retry-After": "1"}
        self.server.traffic.answer(status, 0 if self.command == "HEAD" else len(body))
        self._answer(status, body, headers)

    def _look_up(self, path: str, *, is_first: bool) -> tuple[int, bytes, dict[str, str]]:
        """Status, body and headers for a path. Only paths of the index are ever opened."""
        shelf = self.server.shelf
        entry = shelf.entry(path)
        if entry is None:
            return HTTPStatus.NOT_FOUND, b"not found\n", {"Content-Type": "text/plain"}
        if replacement := shelf.replacement(path):
            return self._conditional(replacement, None)
        if is_first and entry["first_status"]:
            return entry["first_status"], b"busy\n", {"Retry-After": str(_RETRY_AFTER_SECONDS)}
        if entry["location"]:
            return entry["status"], b"", {"Location": "/" + quote(entry["location"])}
        if not entry["file"]:
            return entry["status"], b"not found\n", {"Content-Type": entry["content_type"]}
        return self._conditional(shelf.file(entry["file"]), entry["content_type"])

    def _conditional(self, file: Path, content_type: str | None) -> tuple[int, bytes, dict[str, str]]:
        """The file, or 304 where the client has it."""
        content, etag, changed = self.server.shelf.read(file)
        headers = {"ETag": etag, "Last-Modified": formatdate(changed, usegmt=True), "Cache-Control": "no-cache"}
        if self._client_has(etag, changed):
            return HTTPStatus.NOT_MODIFIED, b"", headers
        return HTTPStatus.OK, content, headers | {"Content-Type": content_type or _content_type(content)}

    def _client_has(self, etag: str, changed: float) -> bool:
        """Evaluate If-None-Match, or else If-Modified-Since (RFC 9110, 13.1.2 and 13.1.3)."""
        if (known := self.headers.get("If-None-Match")) is not None:
            return known.strip() == "*" or etag in {tag.strip().removeprefix("W/") for tag in known.split(",")}
        try:
            since = parsedate_to_datetime(self.headers.get("If-Modified-Since") or "")
        except ValueError:
            return False
        return int(changed) <= since.timestamp()

    def _answer(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if status not in (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _content_type(content: bytes) -> str:
    return next((kind for magic, kind in _MAGIC if content.startswith(magic)), "application/octet-stream")


def main(arguments: list[str] | None = None) -> None:
    """Serve until SIGTERM or SIGINT; exits with 1 where the address cannot be used."""
    parser = argparse.ArgumentParser(prog="image_host", description="Serve the images of the demo catalogue.")
    parser.add_argument("--folder", type=Path, required=True, help="folder of the demo, such as <home>/demo")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--latency-ms", type=float, default=0.0, help="wait before each answer")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    signals = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)  # before any thread starts, so that sigwait alone gets them
    try:
        host = ImageHost(options.folder, options.host, options.port, options.latency_ms)
    except OSError as error:
        sys.exit(f"The demo's image host cannot listen on {options.host}:{options.port}: {error}")
    with host:
        logger.info("Serving %s at %s", options.folder, host.url)
        signal.sigwait(signals)


if __name__ == "__main__":
    main()
