"""The storage root in a backup: the Parquet files of the days and the images, copied file by file.

The root is a local folder or an object store; the backup is always a local folder. Names that begin with a dot are
drafts that a crash left behind, and stay out.
"""

from __future__ import annotations

import os
import shutil
import uuid
from pathlib import Path, PurePosixPath

from upath import UPath

from labeling_assets.errors import ServiceUnavailableError
from labeling_assets.services.backup.folder import Manifest, NewBackup, Report
from labeling_assets.services.day_tables import is_local
from labeling_assets.services.images.files import open_root

PART = "storage"
COPY_BYTES = 1 << 20


def stored_files(root: str) -> dict[str, int]:
    """Size of every file below the root in bytes, by path relative to it.

    Raises:
        ConfigurationError: The protocol of the root is unknown, or its driver is not installed.
    """
    folder = open_root(root)
    if not folder.exists():
        return {}
    found = folder.fs.find(folder.path, detail=True)
    sizes = {PurePosixPath(path).relative_to(folder.path): int(facts["size"]) for path, facts in found.items()}
    return {str(path): size for path, size in sorted(sizes.items()) if not any(_is_draft(name) for name in path.parts)}


def dump_files(root: str, backup: NewBackup, report: Report) -> int:
    """Copy every file below the root; the number of files."""
    paths = list(stored_files(root))
    for number, path in enumerate(paths, 1):
        with (open_root(root) / path).open("rb") as source, backup.create(f"{PART}/{path}") as target:
            shutil.copyfileobj(source, target, COPY_BYTES)
        report(f"Storage: {number} of {len(paths)} files")
    report(f"Storage: {len(paths)} files", is_done=True)
    return len(paths)


def load_files(manifest: Manifest, folder: Path, root: str, report: Report) -> None:
    """Copy every file of a backup below the root; those that an interrupted restore has copied stay.

    Raises:
        ServiceUnavailableError: The root does not hold what was copied.
    """
    there = stored_files(root)
    wanted = {str(PurePosixPath(file.path).relative_to(PART)): file.size_bytes for file in manifest.files_of(PART)}
    for number, (path, size_bytes) in enumerate(wanted.items(), 1):
        if there.get(path) != size_bytes:
            _copy(folder / PART / path, open_root(root) / path)
        report(f"Storage: {number} of {len(wanted)} files")
    if stored_files(root) != wanted:
        raise ServiceUnavailableError(
            f"{root} does not hold the files of the backup, or others beside them.", "Is somebody writing to it?"
        )
    report(f"Storage: {len(wanted)} files", is_done=True)


def _copy(source: Path, target: UPath) -> None:
    """Copy a file so that readers see none or all of it; an object store shows an object when all of it is there."""
    draft = target
    if is_local(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = target.with_name(f".{uuid.uuid4().hex}.part")
    with source.open("rb") as reader, draft.open("wb") as writer:
        shutil.copyfileobj(reader, writer, COPY_BYTES)
        if draft is not target:
            writer.flush()
            os.fsync(writer.fileno())
    if draft is not target:
        draft.rename(target)


def _is_draft(name: str) -> bool:
    return name.startswith(".")
