"""A real HTTP server that receives alerts, and answers as it is told to."""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SECRET_PATH = "/services/T0000/B0000/very-secret-path"


class WebhookReceiver:
    """Keeps the messages that it accepted.

    Attributes:
        messages: Bodies accepted, oldest first.
        requests: Requests received, those refused included.
        answers: Status and headers of the next answers; 200 when there are none left.
        refuses: Whether a body is refused with 400 whatever `answers` says.
    """

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.requests = 0
        self.answers: deque[tuple[int, Mapping[str, str]]] = deque()
        self.refuses: Callable[[dict[str, Any]], bool] = lambda _: False
        receiver, lock = self, threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                assert self.headers["Content-Type"] == "application/json"
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    receiver.requests += 1
                    status, headers = receiver.answers.popleft() if receiver.answers else (200, {})
                    status = 400 if receiver.refuses(body) else status
                    if status < 300 and self.path == SECRET_PATH:
                        receiver.messages.append(body)
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                answer = f"{status} for {self.path}".encode()  # as many servers do, it repeats the secret
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}{SECRET_PATH}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)

    def __enter__(self) -> WebhookReceiver:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
