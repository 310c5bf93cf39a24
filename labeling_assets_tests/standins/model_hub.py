"""A server that speaks the part of the Hugging Face Hub's protocol by which a pinned revision is downloaded."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"
MODEL_ID = "owner/model"


class ModelHub(ThreadingHTTPServer):
    """Serves the files of one model.

    Args:
        files: Content of each file by its path.

    Attributes:
        requests: Method, path and Range header of each request.
        stalls_after_bytes: A body stops after so many bytes until the server ends; None: it does not.
        breaks_after_bytes: The first body that is longer ends so early, with the connection; None: it does not.
        has_stalled: Set once a body has stopped.
    """

    daemon_threads = True

    def __init__(self, files: Mapping[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files = files
        self.requests: list[tuple[str, str, str | None]] = []
        self.stalls_after_bytes: int | None = None
        self.breaks_after_bytes: int | None = None
        self.has_stalled = threading.Event()
        self.may_go_on = threading.Event()

    @property
    def url(self) -> str:
        """Value of HF_ENDPOINT."""
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: ModelHub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(has_body=False)

    def do_GET(self) -> None:
        self._answer(has_body=True)

    def log_message(self, *_: object) -> None:
        """Requests are remembered, not printed."""

    def _answer(self, *, has_body: bool) -> None:
        path, range_header = self.path.partition("?")[0], self.headers.get("Range")
        self.server.requests.append((self.command, path, range_header))
        if path == f"/api/models/{MODEL_ID}/tree/{COMMIT}":
            self._send(200, json.dumps(self._tree()).encode(), {"Content-Type": "application/json"}, has_body=has_body)
            return
        file = self.server.files.get(path.removeprefix(f"/{MODEL_ID}/resolve/{COMMIT}/"))
        if file is None:
            error = {"X-Error-Code": "EntryNotFound" if path.startswith(f"/{MODEL_ID}/") else "RepoNotFound"}
            self._send(404, b"{}", error, has_body=has_body)
            return
        start = int(range_header.removeprefix("bytes=").partition("-")[0]) if range_header else 0
        headers = {"ETag": f'"{hashlib.sha256(file).hexdigest()}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        if range_header:
            headers["Content-Range"] = f"bytes {start}-{len(file) - 1}/{len(file)}"
        self._send(206 if range_header else 200, file[start:], headers, has_body=has_body)

    def _tree(self) -> list[dict[str, object]]:
        return [
            {"type": "file", "path": path, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}  # noqa: S324 - git's
            for path, content in self.server.files.items()
        ]

    def _send(self, status: int, body: bytes, headers: Mapping[str, str], *, has_body: bool) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if not has_body:
            return
        stop, end = self.server.stalls_after_bytes, self.server.breaks_after_bytes
        if end is not None and len(body) > end:
            self.server.breaks_after_bytes = None
            self.wfile.write(body[:end])
            self.close_connection = True
            return
        if stop is not None and len(body) > stop:
            self.wfile.write(body[:stop])
            self.wfile.flush()
            self.server.has_stalled.set()
            self.server.may_go_on.wait()
            self.close_connection = True
            return
        self.wfile.write(body)


@contextmanager
def model_hub(files: Mapping[str, bytes]) -> Iterator[ModelHub]:
    """A running server."""
    server = ModelHub(files)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.may_go_on.set()
        server.shutdown()
        server.server_close()
        thread.join()
