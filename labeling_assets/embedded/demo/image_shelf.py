"""What the image host serves, read from the folder of the demo, and a count of what it served."""

from __future__ import annotations

import collections
import hashlib
import json
import os
import threading
from http import HTTPStatus
from pathlib import Path
from typing import Any


class Shelf:
    """What the folder of the demo holds now.

    Args:
        folder: Folder of the demo.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._index: dict[str, dict[str, Any]] = {}
        self._index_stamp: tuple[int, ...] = ()

    def entry(self, path: str) -> dict[str, Any] | None:
        """What `host.json` says of a path; None where it says nothing.

        Raises:
            OSError: There is no index yet.
        """
        file = self._folder / "host.json"
        with self._lock:
            stamp = _stamp(file)
            if stamp != self._index_stamp:
                self._index = json.loads(file.read_text(encoding="utf-8"))["images"]
                self._index_stamp = stamp
            return self._index.get(path)

    def replacement(self, path: str) -> Path | None:
        """The file that was put in place of an indexed path, if any."""
        file = self._folder / "replaced" / path
        return file if file.is_file() else None

    def file(self, name: str) -> Path:
        """The file of an index entry."""
        return self._folder / name

    def read(self, file: Path) -> tuple[bytes, str, float]:
        """Content, strong ETag (its sha256) and time of change.

        Raises:
            OSError: The file cannot be read.
        """
        with file.open("rb") as stream:
            content, changed = stream.read(), os.fstat(stream.fileno()).st_mtime
        return content, f'"{hashlib.sha256(content).hexdigest()}"', changed


class Traffic:
    """Counts what was asked and sent."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.reset()

    def reset(self) -> None:
        """Begin anew, as after a start."""
        with self._lock:
            self._counts = dict.fromkeys(("requests", "bodies", "bytes", "not_modified", "errors"), 0)
            self._by_path: collections.Counter[str] = collections.Counter()

    def ask(self, path: str) -> bool:
        """Count a request; True for the first one of this path."""
        with self._lock:
            self._counts["requests"] += 1
            self._by_path[path] += 1
            return self._by_path[path] == 1

    def answer(self, status: int, body_bytes: int) -> None:
        """Count an answer: a body sent with 200, a 304, or an error."""
        with self._lock:
            self._counts["bytes"] += body_bytes
            self._counts["bodies"] += status == HTTPStatus.OK and body_bytes > 0
            self._counts["not_modified"] += status == HTTPStatus.NOT_MODIFIED
            self._counts["errors"] += status >= HTTPStatus.BAD_REQUEST

    def as_dict(self) -> dict[str, Any]:
        """The counters, and the requests by path."""
        with self._lock:
            return {**self._counts, "requests_by_path": dict(self._by_path)}


def _stamp(file: Path) -> tuple[int, ...]:
    state = file.stat()
    return state.st_mtime_ns, state.st_size, state.st_ino
