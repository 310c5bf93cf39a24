"""Backup and restore of a whole platform, whose stores the caller names.

A backup is taken while nothing runs, so that its parts fit together. A restore goes into an empty platform. It can be
interrupted at any point and run again: the database with our tables bears a mark from before the first write on, and
each database is loaded in one transaction with its own mark. Dagster's history comes last, so that a platform restored
by half shows no runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from labeling_assets.errors import ConfigurationError
from labeling_assets.services.backup.collection import dump_collection, load_collection, refuse_other_vectors
from labeling_assets.services.backup.databases import (
    Database,
    dump_database,
    load_database,
    mark,
    restored_mark,
    restoring_mark,
    set_mark,
    tables_with_rows,
)
from labeling_assets.services.backup.files import dump_files, load_files, stored_files
from labeling_assets.services.backup.folder import Manifest, Report, new_backup
from labeling_assets.services.milvus import MilvusStore
from labeling_assets.services.postgres import advisory_lock, database_errors

RESTORE_LOCK = "labeling.restore"


@dataclass(frozen=True)
class Platform:
    """The stores of a platform.

    Attributes:
        products: Database with our tables.
        dagster: Database of Dagster's storage.
        vector_store: The Milvus collection.
        collection: Its configured name.
        storage_root: Root of Parquet files and images.
    """

    products: Database
    dagster: Database
    vector_store: MilvusStore
    collection: str
    storage_root: str

    @property
    def databases(self) -> tuple[Database, Database]:
        """Both databases, Dagster's last."""
        return self.products, self.dagster


def back_up(platform: Platform, folder: Path, ensure_idle: Callable[[], None], report: Report) -> Manifest:
    """Write everything that the platform keeps to a folder.

    Args:
        platform: The stores.
        folder: A folder that does not exist or is empty, or one that an interrupted backup left.
        ensure_idle: Called before and after everything is read; raises where something ran or runs.
        report: Told how the work goes on.

    Raises:
        ConfigurationError: The folder holds something else, or a store refuses us.
        ServiceUnavailableError: A store does not answer.
    """
    with new_backup(folder) as backup:
        ensure_idle()
        databases = {database.name: dump_database(database, backup, report) for database in platform.databases}
        collection = dump_collection(platform.vector_store, platform.collection, backup, report)
        dump_files(platform.storage_root, backup, report)
        ensure_idle()
        return backup.finish(databases, collection)


def restore(platform: Platform, folder: Path, manifest: Manifest, report: Report) -> bool:
    """Load a backup, whose files were verified, into an empty platform, or go on where it was interrupted.

    Returns:
        Whether anything was to do; False where this backup was restored already.

    Raises:
        ConfigurationError: The platform is not empty, or of an older release than the backup.
        EmbedderMismatchError: The vectors are of another embedder than the settings say.
        ServiceUnavailableError: A store does not answer; restoring again goes on.
    """
    is_newest = {database.name: _is_newest(database, manifest) for database in platform.databases}
    refuse_other_vectors(platform.vector_store.identity, manifest.collection)
    with advisory_lock(platform.products.engine, RESTORE_LOCK):
        marks = {database.name: mark(database) for database in platform.databases}
        missing = [each for each in platform.databases if marks[each.name] != restored_mark(manifest.backup_id)]
        if missing:
            _refuse_contents(platform, manifest, marks, missing)
        if platform.products in missing:
            set_mark(platform.products, restoring_mark(manifest.backup_id))
            load_files(manifest, folder, platform.storage_root, report)
            load_collection(platform.vector_store, manifest.collection, folder, report)
        for database in missing:
            load_database(database, manifest.databases[database.name], folder, manifest.backup_id, report)
        for database in platform.databases:
            if not is_newest[database.name]:
                database.upgrade()
    return bool(missing)


def _is_newest(database: Database, manifest: Manifest) -> bool:
    if database.name not in manifest.databases:
        raise ConfigurationError(f"The backup lacks the database {database.name}.", "Use another backup.")
    return database.is_newest(manifest.databases[database.name].revision)


def _refuse_contents(platform: Platform, manifest: Manifest, marks: Mapping[str, str], missing: list[Database]) -> None:
    """A restore mixes with nothing: what is there must be empty, or be left by a restore of the same backup."""
    held = []
    for database in missing:
        with database_errors(f"The database {database.name} cannot be read"), database.engine.connect() as connection:
            held += [f"table {name} of database {database.name}" for name in tables_with_rows(database, connection)]
    ours = {restoring_mark(manifest.backup_id), restored_mark(manifest.backup_id)}
    if marks[platform.products.name] not in ours:
        if platform.vector_store.exists() and (rows := platform.vector_store.state().rows):
            held.append(f"collection {platform.collection} with {rows} products")
        if stored_files(platform.storage_root):
            held.append(f"files in {platform.storage_root}")
    if held:
        raise ConfigurationError(
            f"The platform to restore into is not empty: {', '.join(held)}.",
            "Stop `labeling dev`, and restore into a fresh LABELING_HOME, or into empty databases, an empty storage "
            "and a LABELING_MILVUS_COLLECTION that does not exist.",
        )
