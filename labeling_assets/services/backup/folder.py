"""The folder of a backup, and the manifest that makes it a whole one.

    manifest.json               what the backup holds, with size and sha256 of every file; written last
    manifest.json.unfinished    stands in its place, and is locked, while the backup is written
    postgres/<database>/        a file for each table
    milvus/products.parquet     the collection
    storage/                    the storage root, file by file

A folder without manifest is not a backup. What an interrupted backup left is replaced when it is run again. What
belongs here: files and their checksums. What is in them is known to the other modules.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import fcntl
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import IO, Annotated, Protocol

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from labeling_assets.errors import ConfigurationError

MANIFEST = "manifest.json"
UNFINISHED = "manifest.json.unfinished"
PARTS = ("postgres", "milvus", "storage")
FORMAT_VERSION = 1
"""Change it with any change of the folder that an older release would misread."""
SHOWN_FILES = 3


class Report(Protocol):
    """Told how the work goes on."""

    def __call__(self, text: str, *, is_done: bool = False) -> None:
        """Take note.

        Args:
            text: One short line.
            is_done: Whether a part is finished, and the line tells its result.
        """


def _inside(path: str) -> str:
    """A manifest that was tampered with reaches no file outside its folder, and none outside the storage root."""
    if not path or PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
        msg = f"{path!r} leads out of the backup"
        raise ValueError(msg)
    return path


RelativePath = Annotated[str, AfterValidator(_inside)]


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True)


class FileEntry(_Entry):
    """A file of the backup; the path is relative to its folder."""

    path: RelativePath
    size_bytes: int
    sha256: str


class TableEntry(_Entry):
    """A table: the columns in the order of its file, and its sequences with `last_value` and `is_called`."""

    schema_name: str | None
    name: str
    columns: tuple[str, ...]
    rows: int
    sequences: dict[str, tuple[int, bool]]
    path: RelativePath


class DatabaseEntry(_Entry):
    """A database: its tables in an order in which foreign keys hold, and their Alembic revision."""

    server_version: str
    revision: str
    tables: tuple[TableEntry, ...]

    @property
    def rows(self) -> int:
        """Rows of all tables."""
        return sum(table.rows for table in self.tables)


class CollectionEntry(_Entry):
    """The Milvus collection; `embedder` is `EmbedderIdentity.key`. Indexes and server are told for information."""

    name: str
    embedder: str
    dimension: int
    schema_version: str
    indexes: dict[str, str]
    server: str
    rows: int
    path: RelativePath


class Manifest(_Entry):
    """What a backup holds."""

    format_version: int
    backup_id: str
    created_at: dt.datetime
    platform_version: str
    dagster_version: str
    databases: dict[str, DatabaseEntry]
    collection: CollectionEntry
    files: tuple[FileEntry, ...]

    @property
    def size_bytes(self) -> int:
        """Size of all files but the manifest."""
        return sum(file.size_bytes for file in self.files)

    def files_of(self, part: str) -> list[FileEntry]:
        """The files below a folder of the backup."""
        return [file for file in self.files if PurePosixPath(file.path).parts[0] == part]


class NewBackup:
    """A backup that is being written; made by `new_backup`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files: list[FileEntry] = []

    @contextlib.contextmanager
    def create(self, path: str) -> Iterator[IO[bytes]]:
        """Write a file; it is on disk and known to the manifest when the context ends.

        Args:
            path: Path relative to the folder.
        """
        target = self.folder / _inside(path)
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with target.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        self._files.append(FileEntry(path=path, size_bytes=target.stat().st_size, sha256=_sha256(target)))

    def finish(self, databases: Mapping[str, DatabaseEntry], collection: CollectionEntry) -> Manifest:
        """Write the manifest, after everything else is on disk; from now on the folder is a backup."""
        manifest = Manifest(
            format_version=FORMAT_VERSION,
            backup_id=uuid.uuid4().hex,
            created_at=dt.datetime.now(dt.UTC),
            platform_version=version("labeling-assets"),
            dagster_version=version("dagster"),
            databases=dict(databases),
            collection=collection,
            files=tuple(self._files),
        )
        for folder, _, _ in os.walk(self.folder):
            _sync_folder(Path(folder))
        with (self.folder / UNFINISHED).open("wb") as file:
            file.write(manifest.model_dump_json(indent=1).encode())
            file.flush()
            os.fsync(file.fileno())
        (self.folder / UNFINISHED).rename(self.folder / MANIFEST)
        _sync_folder(self.folder)
        return manifest


@contextlib.contextmanager
def new_backup(folder: Path) -> Iterator[NewBackup]:
    """Begin a backup in a folder that is new, empty, or was left by an interrupted backup, which is replaced.

    Raises:
        ConfigurationError: The folder holds a backup or other files, or another backup is being written to it.
    """
    _refuse_other_contents(folder)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (folder / UNFINISHED).open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigurationError(
                f"Another backup is being written to {folder}.", "Wait for it, or choose another folder."
            ) from None
        _refuse_other_contents(folder)  # the other one may have been finished a moment ago
        for part in PARTS:
            if (folder / part).exists():
                shutil.rmtree(folder / part)
        yield NewBackup(folder)


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a backup.

    Raises:
        ConfigurationError: The folder is no whole backup, or one of a newer release.
    """
    try:
        content = json.loads((folder / MANIFEST).read_bytes())
    except FileNotFoundError:
        if (folder / UNFINISHED).exists():
            raise ConfigurationError(
                f"The backup in {folder} was interrupted and is not whole.",
                "Take another one; `labeling backup` with the same folder replaces this one.",
            ) from None
        raise ConfigurationError(
            f"{folder} holds no backup: {MANIFEST} is missing.", "Name the right folder."
        ) from None
    except (OSError, ValueError) as error:
        raise _unreadable(folder) from error
    try:
        if int(content["format_version"]) > FORMAT_VERSION:
            raise ConfigurationError(
                f"The backup in {folder} was made by a newer release, {content.get('platform_version')}.",
                "Install that release, or a later one.",
            )
        return Manifest.model_validate(content)
    except (ValidationError, TypeError, KeyError, ValueError) as error:
        raise _unreadable(folder) from error


def verify_files(folder: Path, manifest: Manifest, report: Report) -> None:
    """Compare every file of a backup with its checksum.

    Raises:
        ConfigurationError: A file is missing or differs; the message names the first ones.
    """
    damaged = []
    for number, entry in enumerate(manifest.files, 1):
        path = folder / entry.path
        if not path.is_file() or path.stat().st_size != entry.size_bytes or _sha256(path) != entry.sha256:
            damaged.append(entry.path)
        report(f"Checksums: {number} of {len(manifest.files)} files")
    if damaged:
        shown = ", ".join(damaged[:SHOWN_FILES]) + (", …" if len(damaged) > SHOWN_FILES else "")
        raise ConfigurationError(
            f"{len(damaged)} of {len(manifest.files)} files of the backup in {folder} are missing or damaged: {shown}.",
            "Nothing was restored. Use another backup, or another copy of this one.",
        )
    report(f"Checksums: {len(manifest.files)} files are whole", is_done=True)


def _refuse_other_contents(folder: Path) -> None:
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if MANIFEST in names:
        raise ConfigurationError(f"{folder} holds a backup already.", "Give each backup a folder of its own.")
    if names and UNFINISHED not in names:
        raise ConfigurationError(f"{folder} is not empty.", "Name a folder that does not exist, or an empty one.")


def _unreadable(folder: Path) -> ConfigurationError:
    return ConfigurationError(f"{folder / MANIFEST} cannot be read or is damaged.", "Use another backup.")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a power cut."""
    folder_fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(folder_fd)
    finally:
        os.close(folder_fd)
