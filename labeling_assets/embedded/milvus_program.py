"""`milvus-lite`, proof against restarts: `python -m labeling_assets.embedded.milvus_program server …`.

Three faults of milvus-lite 3.2.2 lose data, the collection or the connection; each is mended around the call at fault:

- `MilvusLite.get_collection` opens a collection without a lock. Two first requests at once open it twice, and rows
  written to the one that loses are gone (after a kill -9 under six clients: 100 to 200 of 500 acknowledged rows in 8 of
  10 rounds; with the lock none).
- `Segment.build_or_load_index` writes an index file in place. A kill -9 meanwhile leaves a part of it, and the
  collection never loads again. The file follows from the segment's rows, so one that cannot be read is made anew.
- Its server tolerates two keepalive pings of an idle client (gRPC's default) where pymilvus sends one in ten seconds,
  and ends such a connection with "Too many pings", which fails the request that comes at that moment. All clients of a
  process share the connection. Here the server answers every ping.
"""

from __future__ import annotations

import logging
import sys
import threading
from pathlib import Path
from typing import Any

import grpc
from milvus_lite.cmdline import main
from milvus_lite.db import MilvusLite
from milvus_lite.storage.segment import Segment

logger = logging.getLogger(__name__)
_opening = threading.RLock()
_open_collection = MilvusLite.get_collection
_build_or_load_index = Segment.build_or_load_index
_grpc_server = grpc.server


def get_collection(self: MilvusLite, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - passed on as they are
    """One opening at a time."""
    with _opening:
        return _open_collection(self, *args, **kwargs)


def build_or_load_index(self: Segment, spec: Any, index_dir: str) -> None:  # noqa: ANN401 - milvus-lite has no types
    """Build an index anew whose file cannot be read."""
    path = Path(self.index_file_path(index_dir, spec.index_type, spec.field_name))
    was_there = path.exists()
    try:
        _build_or_load_index(self, spec, index_dir)
    except (EOFError, OSError, RuntimeError, ValueError):
        if not was_there:
            raise
        logger.warning("%s cannot be read and is made anew.", path)
        path.unlink()
        _build_or_load_index(self, spec, index_dir)


def server_that_takes_pings(*args: Any, options: list[tuple[str, int]], **kwargs: Any) -> grpc.Server:  # noqa: ANN401 - passed on
    """A gRPC server that never counts keepalive pings against a client."""
    return _grpc_server(*args, options=[*options, ("grpc.http2.max_ping_strikes", 0)], **kwargs)


if __name__ == "__main__":
    MilvusLite.get_collection = get_collection
    grpc.server = server_that_takes_pings
    Segment.build_or_load_index = build_or_load_index
    sys.exit(main())
