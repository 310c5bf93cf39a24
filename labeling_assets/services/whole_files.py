"""Writes files that readers see in full or not at all, also after kill -9: locally or in an object store."""

from __future__ import annotations

import uuid
from pathlib import Path

from upath import UPath

from labeling_assets.services.day_tables import is_local


def write_whole(path: Path | UPath, content: bytes) -> None:
    """Write a file, and the folders above it; a file that is there is replaced.

    Raises:
        OSError: It cannot be written; what was there stays.
    """
    if isinstance(path, UPath) and not is_local(path):
        path.write_bytes(content)  # an object store shows an object when all of it has arrived
        return
    target = Path(path.path) if isinstance(path, UPath) else path
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{uuid.uuid4().hex}.part")
    try:
        part.write_bytes(content)
        part.rename(target)
    except BaseException:  # a cancelled write leaves no part behind either; the error goes on
        part.unlink(missing_ok=True)
        raise
