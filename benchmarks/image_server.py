"""An image host that costs as little as can be, so that two cores are left to those who are measured.

It runs as a process of its own, holds every picture in memory and waits before each answer without a thread. Image
`/<number>.jpg` has other bytes for each number. `POST /reset` forgets who has asked and returns how many answers of
each status were given since the last one.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import cast

from benchmarks.pictures import START_OF_IMAGE, comment, draw_jpeg

EDGES_PX = (1000, 1200, 1600)
PICTURES = 60
PROJECT = Path(__file__).parents[1]
REQUEST = re.compile(rb"(GET|HEAD|POST) (\S+) HTTP/1\.[01]\r\n")
HEAD_END = b"\r\n\r\n"


class Shelf:
    """The pictures, and who has asked for them.

    Args:
        busy_every: Every so many-th picture is refused with 503 when it is asked for first; 0: none.
    """

    def __init__(self, busy_every: int) -> None:
        self._busy_every = busy_every
        self._jpegs = [draw_jpeg(seed, EDGES_PX[seed % len(EDGES_PX)]) for seed in range(PICTURES)]
        self._asked: set[int] = set()
        self._statuses: Counter[int] = Counter()

    def answer(self, number: int) -> tuple[int, list[bytes]]:
        """Status and body of an image."""
        is_busy = self._busy_every and number % self._busy_every == 0 and number not in self._asked
        self._asked.add(number)
        status = 503 if is_busy else 200
        self._statuses[status] += 1
        if is_busy:
            return status, [b"busy\n"]
        jpeg = self._jpegs[number % PICTURES]
        return status, [START_OF_IMAGE, comment(number), jpeg[len(START_OF_IMAGE) :]]

    def reset(self) -> dict[int, int]:
        """Begin anew; returns how many answers of each status were given."""
        statuses = dict(self._statuses)
        self._asked.clear()
        self._statuses.clear()
        return statuses


class Connection(asyncio.Protocol):
    """One connection, kept open between requests."""

    def __init__(self, shelf: Shelf, latency_seconds: float) -> None:
        self._shelf = shelf
        self._latency_seconds = latency_seconds
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep what answers go to."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Answer every request whose head has come; bodies are not sent to this server."""
        self._received += data
        while HEAD_END in self._received:
            head, _, self._received = self._received.partition(HEAD_END)
            match = REQUEST.match(head + HEAD_END)
            if match is None:
                self._transport.close()
                return
            self._answer(match[1], match[2].decode("latin-1"))

    def _answer(self, method: bytes, path: str) -> None:
        loop = asyncio.get_running_loop()
        if method == b"POST":
            self._send(method, 200, "application/json", [json.dumps(self._shelf.reset()).encode()])
        elif number := re.fullmatch(r"/(\d+)\.jpg", path):
            status, body = self._shelf.answer(int(number[1]))
            content_type = "image/jpeg" if status == 200 else "text/plain"
            loop.call_later(self._latency_seconds, self._send, method, status, content_type, body)
        else:
            self._send(method, 404, "text/plain", [b"not found\n"])

    def _send(self, method: bytes, status: int, content_type: str, body: list[bytes]) -> None:
        if self._transport.is_closing():
            return
        size = sum(map(len, body))
        head = f"HTTP/1.1 {status} .\r\nContent-Type: {content_type}\r\nContent-Length: {size}\r\n\r\n"
        self._transport.writelines([head.encode(), *(body if method != b"HEAD" else [])])


async def serve(busy_every: int, latency_ms: float) -> None:
    """Serve on a free port of 127.0.0.1, which is printed, until the process is ended."""
    shelf = Shelf(busy_every)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(shelf, latency_ms / 1000), "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


@contextlib.contextmanager
def image_server(*, latency_ms: float, busy_every: int = 0) -> Iterator[str]:
    """The address of an image host that runs as long as the block."""
    command = [sys.executable, "-m", "benchmarks.image_server"]
    options = ["--latency-ms", str(latency_ms), "--busy-every", str(busy_every)]
    with subprocess.Popen([*command, *options], cwd=PROJECT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            port = process.stdout.readline().strip()
            assert port, "the image server does not start"
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def main() -> None:
    """Run as a process."""
    parser = argparse.ArgumentParser(description="An image host for benchmarks.")
    parser.add_argument("--latency-ms", type=float, default=0)
    parser.add_argument("--busy-every", type=int, default=0)
    options = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(options.busy_every, options.latency_ms))


if __name__ == "__main__":
    main()
