"""The Dagster instance of a home: its folder, its environment, and runs that a crash left behind.

`prepare` makes everything ready that a run or the UI needs. What is executed is in `runs.py`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
from dagster._core.storage.noop_compute_log_manager import NoOpComputeLogManager
from dagster_postgres.utils import DagsterPostgresException

from labeling_assets.embedded import stack
from labeling_assets.embedded.lock import ProcessId
from labeling_assets.errors import ConfigurationError, ServiceUnavailableError
from labeling_assets.services.postgres import advisory_lock, create_engine, migrate
from labeling_assets.settings import PREFIX, Settings

PROJECT_FOLDER = Path(__file__).parents[1]
POOLS = ("product_database", "image_host", "vision_model", "gpu", "milvus")
"""Pools of the assets, made with a limit of one step at a time; a limit set in the UI stays."""
STATEMENT_TIMEOUT_MS, POOL_RECYCLE_SECONDS, MAX_OVERFLOW = 60_000, 3_600, 20
HOST_TAG = "labeling/host"
PROCESS_TAG = "labeling/process"
CREATED = dg.DagsterRunStatus.NOT_STARTED
RUNNING = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]


def prepare(settings: Settings) -> Settings:
    """Start or attach the services, migrate, and set the environment in which Dagster runs.

    Returns:
        The settings with all addresses filled in.

    Raises:
        ConfigurationError: A setting is wrong or a service refuses us.
        ServiceUnavailableError: A service does not answer.
    """
    settings = stack.start(settings)
    if settings.postgres_url is None:
        raise ConfigurationError("LABELING_POSTGRES_URL is not known.", "Run `labeling up`.")
    write_dagster_home(settings)
    os.environ.update(environment(settings))
    engine = create_engine(settings.postgres_url.get_secret_value())
    try:
        migrate(engine)
        # Dagster makes tables and pools when first used, and two runs that do so at once fail.
        with advisory_lock(engine, "dagster.storage"), dagster_instance() as instance:
            storage = instance.event_log_storage
            for pool in set(POOLS) - {known.name for known in storage.get_pool_limits()}:
                storage.set_concurrency_slots(pool, 1)
    finally:
        engine.dispose()
    return settings


@contextlib.contextmanager
def dagster_instance() -> Iterator[dg.DagsterInstance]:
    """The Dagster instance of DAGSTER_HOME.

    Raises:
        ServiceUnavailableError: Its database does not answer.
    """
    try:
        instance = dg.DagsterInstance.get()
    except DagsterPostgresException as error:
        raise ServiceUnavailableError(
            "The database of Dagster's storage does not answer.", "Check LABELING_DAGSTER_POSTGRES_URL."
        ) from error
    with instance:
        yield instance


@contextlib.contextmanager
def pooled_instance() -> Iterator[dg.DagsterInstance]:
    """The Dagster instance for runs in this process: its connections stay open, and it captures no output.

    To capture what a run prints, Dagster would redirect the output of the whole process through four child processes.
    Dagster's PostgreSQL storage logs in anew for each of the hundreds of statements of a run, unless it is told that it
    serves a webserver. A connection that a restart of PostgreSQL broke is found before it is used.
    """
    with dagster_instance() as instance:
        instance._compute_log_manager = NoOpComputeLogManager()  # noqa: SLF001 - Dagster has no setting for one process
        instance.optimize_for_webserver(STATEMENT_TIMEOUT_MS, POOL_RECYCLE_SECONDS, MAX_OVERFLOW)
        for storage in (instance.run_storage, instance.event_log_storage, instance.schedule_storage):
            engine = getattr(storage, "_engine", None)
            if engine is not None:
                engine.pool._pre_ping = True  # noqa: SLF001 - Dagster has no setting for it
        yield instance


def environment(settings: Settings) -> dict[str, str]:
    """Variables that a child process needs to see the same services; holds secrets, so it is never printed."""
    return stack.connection_environment(settings) | {
        f"{PREFIX}HOME": str(settings.home),
        f"{PREFIX}ALLOW_PRIVATE_IMAGE_HOSTS": ",".join(settings.allow_private_image_hosts),
        "DAGSTER_HOME": str(dagster_home(settings)),
        "DAGSTER_DISABLE_TELEMETRY": "1",
    }


def dagster_home(settings: Settings) -> Path:
    """Folder that DAGSTER_HOME names."""
    return settings.home / "dagster"


def write_dagster_home(settings: Settings) -> None:
    """Copy `dagster.yaml` to where Dagster reads it."""
    folder = dagster_home(settings)
    folder.mkdir(parents=True, exist_ok=True)
    source = PROJECT_FOLDER / "dagster.yaml"
    if not source.exists():
        raise ConfigurationError(f"{source} is missing.", "Install the project from a clone: `make install`.")
    temporary = folder / f".dagster.yaml.{os.getpid()}"
    shutil.copyfile(source, temporary)
    temporary.replace(folder / "dagster.yaml")


def process_tags() -> dict[str, str]:
    """Tags that tell which process of which host executes a run."""
    process = ProcessId.current()
    return {
        HOST_TAG: socket.gethostname(),
        PROCESS_TAG: f"{process.pid}@{process.started}",
        "dagster/max_retries": "0",  # the daemon cannot launch again what it did not launch
    }


def end_abandoned_runs(instance: dg.DagsterInstance, *, is_boot: bool = False) -> list[str]:
    """Report runs whose process is gone as failed and free the pool slots they hold.

    Args:
        instance: The Dagster instance.
        is_boot: Whether no daemon of the instance is up yet, so that runs that it had launched are abandoned too.

    Returns:
        Ids of the runs ended.
    """
    ended = []
    for run in instance.get_runs(dg.RunsFilter(statuses=[CREATED, *RUNNING])):
        if _is_abandoned(run, is_boot=is_boot):
            instance.report_run_failed(
                run, "The process of this run is gone. What it finished is kept; run the day again."
            )
            ended.append(run.run_id)
    # Also those of runs that ended earlier: whoever reported them may have been killed before it came here.
    storage = instance.event_log_storage
    for run_id in storage.get_concurrency_run_ids():
        run_record = instance.get_run_by_id(run_id)
        if run_record is None or run_record.is_finished:
            storage.free_concurrency_slots_for_run(run_id)
    return ended


def _is_abandoned(run: dg.DagsterRun, *, is_boot: bool) -> bool:
    if PROCESS_TAG not in run.tags:
        return is_boot and run.status is not CREATED
    if run.tags[HOST_TAG] != socket.gethostname():
        return False
    pid, _, started = run.tags[PROCESS_TAG].partition("@")
    return not ProcessId(int(pid), started).is_alive()
