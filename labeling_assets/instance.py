"""The Dagster instance of a home: its folder and its environment.

`prepare` makes everything ready that a run or the UI needs. What is executed is in `runs.py`, what becomes of runs
whose process died in `abandoned_runs.py`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
from dagster._core.storage.noop_compute_log_manager import NoOpComputeLogManager
from dagster_postgres.utils import DagsterPostgresException

from labeling_assets.embedded import stack
from labeling_assets.errors import ConfigurationError, ServiceUnavailableError
from labeling_assets.services.postgres import advisory_lock, create_engine, migrate
from labeling_assets.settings import PREFIX, Settings

PROJECT_FOLDER = Path(__file__).parents[1]
POOLS = ("product_database", "image_host", "vision_model", "gpu", "milvus")
"""Pools of the assets, made with a limit of one step at a time; a limit set in the UI stays."""
STATEMENT_TIMEOUT_MS, POOL_RECYCLE_SECONDS, MAX_OVERFLOW = 60_000, 3_600, 20


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
