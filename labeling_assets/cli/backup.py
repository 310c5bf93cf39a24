"""`labeling backup` and `labeling restore`: everything that the platform keeps, in one folder."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.filesize import decimal
from rich.markup import escape
from rich.status import Status

from labeling_assets.cli.output import output
from labeling_assets.errors import ConfigurationError, LabelingError
from labeling_assets.settings import Settings

if TYPE_CHECKING:
    import dagster as dg

    from labeling_assets.services.backup import Platform

FOLDER = click.Path(file_okay=False, path_type=Path, resolve_path=True)
SHOWN_RUNS = 5


class Progress:
    """A line for each part that is finished, and a moving one for the part in work."""

    def __init__(self, console: Console, status: Status) -> None:
        self._console = console
        self._status = status

    def __call__(self, text: str, *, is_done: bool = False) -> None:
        """Show how the work goes on; see `services.backup.folder.Report`."""
        if is_done:
            self._console.print(f"[green]✓[/] {escape(text)}")
        else:
            self._status.update(escape(text))


@click.command()
@click.argument("folder", type=FOLDER)
def backup(folder: Path) -> None:
    """Write everything that the platform keeps to FOLDER, which is new or empty.

    That is: our tables and data_label, Dagster's history, the Milvus collection with its vectors, and the storage with
    its Parquet files and images. The source table is not ours and is not part of it.

    Nothing may run meanwhile; where something does, the backup is refused, or not finished, and exits with 1. FOLDER is
    a backup once it holds manifest.json. What an interrupted backup left there is replaced by running it again.
    """
    from labeling_assets import instance as dagster_instance
    from labeling_assets.abandoned_runs import end_abandoned_runs
    from labeling_assets.services.backup import back_up

    started = time.monotonic()
    settings = Settings.load()
    _refuse_folder(settings, folder)
    settings = dagster_instance.prepare(settings)
    console = output()
    with dagster_instance.pooled_instance() as instance, _platform(settings, instance) as platform:
        end_abandoned_runs(instance)
        newest_run = _newest_run(instance)
        with console.status("Backing up …") as status:
            manifest = back_up(platform, folder, lambda: _ensure_idle(instance, newest_run), Progress(console, status))
    seconds = time.monotonic() - started
    console.print(
        f"Backup: {escape(str(folder))}, {decimal(manifest.size_bytes)} in {seconds:.1f} s. "
        f"{settings.source_table} is not part of it.",
        soft_wrap=True,
    )


@click.command()
@click.argument("folder", type=FOLDER)
def restore(folder: Path) -> None:
    """Load the backup in FOLDER into an empty platform: a fresh LABELING_HOME, or empty services.

    First every file is compared with its checksum; nothing is written where one differs. A restore that was interrupted
    goes on when it is run again. Exit code 2 where the folder is no whole backup or the platform is not empty.
    """
    from labeling_assets.services.backup import read_manifest, verify_files
    from labeling_assets.services.backup import restore as restore_platform

    started = time.monotonic()
    manifest = read_manifest(folder)
    console = output()
    console.print(
        f"Backup of {manifest.created_at:%Y-%m-%d %H:%M} UTC, release {manifest.platform_version}, "
        f"{decimal(manifest.size_bytes)}"
    )
    with console.status("Restoring …") as status:
        progress = Progress(console, status)
        verify_files(folder, manifest, progress)
        progress("Starting the services …")
        from labeling_assets import instance as dagster_instance  # heavy, and not needed for a damaged backup

        settings = dagster_instance.prepare(Settings.load())
        with dagster_instance.dagster_instance() as instance, _platform(settings, instance) as platform:
            is_done_now = restore_platform(platform, folder, manifest, progress)
    if not is_done_now:
        console.print("This backup was restored here before; nothing is left to do.")
        return
    seconds = time.monotonic() - started
    console.print(
        f"Restored in {seconds:.1f} s: the platform goes on where it was. {settings.source_table} was not part of it.",
        soft_wrap=True,
    )


def _refuse_folder(settings: Settings, folder: Path) -> None:
    """A backup inside what it saves would be lost with it, or save itself."""
    places = {"LABELING_HOME": settings.home, "LABELING_STORAGE": Path(settings.storage_root)}
    for name, place in places.items():
        if folder.is_relative_to(place.resolve()):
            raise ConfigurationError(f"{folder} lies inside {name}.", "Name a folder outside, best on another disk.")


@contextmanager
def _platform(settings: Settings, instance: dg.DagsterInstance) -> Iterator[Platform]:
    """The stores of the settings."""
    from labeling_assets.services.backup import Platform, dagster_database, product_database
    from labeling_assets.services.connect import Services
    from labeling_assets.services.postgres import create_engine

    if settings.dagster_postgres_url is None:
        raise ConfigurationError("LABELING_DAGSTER_POSTGRES_URL is not known.", "Run `labeling up`.")
    services = Services(settings)
    engine = create_engine(settings.dagster_postgres_url.get_secret_value())
    try:
        yield Platform(
            products=product_database(services.product_database.engine),
            dagster=dagster_database(engine, _dagster_tables(), instance.upgrade),
            vector_store=services.vector_store,
            collection=settings.milvus_collection,
            storage_root=settings.storage_root,
        )
    finally:
        engine.dispose()


def _dagster_tables() -> set[str]:
    """Dagster's tables; its database may hold others."""
    from dagster._core.storage.event_log import SqlEventLogStorageMetadata
    from dagster._core.storage.runs import RunStorageSqlMetadata
    from dagster._core.storage.schedules import ScheduleStorageSqlMetadata

    return {
        *RunStorageSqlMetadata.tables,
        *SqlEventLogStorageMetadata.tables,
        *ScheduleStorageSqlMetadata.tables,
    }


def _newest_run(instance: dg.DagsterInstance) -> int:
    """A number that grows with every run."""
    return max((record.storage_id for record in instance.get_run_records(limit=1)), default=0)


def _ensure_idle(instance: dg.DagsterInstance, newest_run: int) -> None:
    """Make sure that no run is on, and that none began since `newest_run`.

    Raises:
        LabelingError: One is on or began; the message names some.
    """
    import dagster as dg

    status = dg.DagsterRunStatus
    unfinished: list[Any] = [status.QUEUED, status.NOT_STARTED, status.STARTING, status.STARTED, status.CANCELING]
    runs = instance.get_runs(dg.RunsFilter(statuses=unfinished))
    if runs:
        shown = [f"{run.run_id[:8]} ({run.status.value.lower()}, {_days(run.tags)})" for run in runs[:SHOWN_RUNS]]
        more = ", …" if len(runs) > SHOWN_RUNS else ""
        raise LabelingError(
            f"A backup is taken while nothing runs, and {len(runs)} runs are not finished: {', '.join(shown)}{more}.",
            "Wait for them, or end or delete them in the UI; then run the backup again.",
        )
    if _newest_run(instance) != newest_run:
        raise LabelingError(
            "A run began while the backup was taken, so that its parts may not fit together; it is not finished.",
            "Stop `labeling dev` or its sensors and schedules, and run the backup again.",
        )


def _days(tags: Mapping[str, str]) -> str:
    """The day or days of a run."""
    first = tags.get("dagster/partition") or tags.get("dagster/asset_partition_range_start") or "no day"
    last = tags.get("dagster/asset_partition_range_end")
    return f"{first} to {last}" if last and last != first else first
