"""Materializes days through Dagster from outside the UI, and tells what happened.

Runs of `products_job` are in this process, so the models load once. A failed day does not stop the others. What a
killed run had finished is kept and not paid for again.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import functools
import itertools
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import dagster as dg

from labeling_assets import instance as dagster_instance
from labeling_assets.abandoned_runs import end_abandoned_runs, process_tags
from labeling_assets.definitions import build_defs
from labeling_assets.defs.products.run_requests import JOB_NAME, range_tags
from labeling_assets.defs.products.stage import SPENDER_TAG
from labeling_assets.errors import BudgetSpentError, ConfigurationError
from labeling_assets.products.day_ranges import day_ranges
from labeling_assets.services.connect import Services
from labeling_assets.services.day_state import DayFailures
from labeling_assets.services.pipeline import finish_requests
from labeling_assets.settings import Settings

WATCH_SECONDS = 0.5
FINISH_SECONDS = 10.0
"""Time that labels under way get when a run is stopped, so that they are kept; a second Ctrl+C does not wait."""
TICKS_BETWEEN_SWEEPS = 10
STAGES = (
    "raw_products",
    "deduped_products",
    "product_images",
    "qwen_labels",
    "clip_vectors",
    "milvus_collection",
    "data_label",
)


@dataclass
class DayResult:
    """What one run did: the metadata of each stage that materialized or paid for something, and why one failed."""

    day: str
    run_id: str
    is_success: bool
    seconds: float
    stages: dict[str, dict[str, Any]]
    failure: str = ""
    is_budget_spent: bool = False

    def value(self, stage: str, key: str) -> int:
        """A count from a stage's metadata; 0 for a stage that did not run."""
        return int(self.stages.get(stage, {}).get(key, 0))


def known_days(settings: Settings, first: dt.date, last: dt.date) -> list[str]:
    """The partitions from `first` to `last`, both included.

    Raises:
        ConfigurationError: The range is empty, or a day is before the first partition or not yet over.
    """
    known = all_days()
    if first > last:
        raise ConfigurationError(f"{first} is after {last}.", "Give --start and --end in the order of time.")
    for day in (first, last):
        if not known or str(day) < known[0]:
            raise ConfigurationError(f"{day} is before the first day {settings.first_day}.", "Set LABELING_FIRST_DAY.")
        if str(day) > known[-1]:
            raise ConfigurationError(
                f"{day} is not over in {settings.timezone}; the last whole day is {known[-1]}.",
                "Choose an earlier --end.",
            )
    return [day for day in known if str(first) <= day <= str(last)]


def all_days() -> list[str]:
    """Every partition: the days from LABELING_FIRST_DAY on that are over."""
    from labeling_assets.defs.products.partitions import product_days

    return list(product_days.get_partition_keys())


def run_days(
    days: Iterable[str],
    *,
    limit: int | None = None,
    budget: float | None = None,
    in_one_run: bool = False,
    on_stage: Callable[[str, str], None] | None = None,
    on_day: Callable[[DayResult], None] = lambda _: None,
) -> list[DayResult]:
    """Materialize days; the instance must be prepared (`instance.prepare`).

    Args:
        days: Partition keys, in order.
        limit: At most so many source rows a day; a limited day removes nothing from the stores.
        budget: What the labels of all days together may cost; when it is spent, no further day is begun.
        in_one_run: Whether days that follow each other share a run, stage by stage; otherwise each has its own.
        on_stage: Called with the days and the stage when a stage begins, from another thread.
        on_day: Called when a day has ended.
    """
    job = build_defs().resolve_job_def(JOB_NAME)
    results: list[DayResult] = []
    config, tags = _run_config(limit, budget), {SPENDER_TAG: str(uuid.uuid4())} if budget is not None else {}
    with dagster_instance.pooled_instance() as instance:
        end_abandoned_runs(instance)
        for stretch in day_ranges(map(dt.date.fromisoformat, days), None if in_one_run else 1):
            run_id, keys = str(uuid.uuid4()), [str(day) for day in stretch.days]
            name = keys[0] if len(keys) == 1 else f"{keys[0]} to {keys[-1]}"
            with _watched(instance, run_id, functools.partial(on_stage, name) if on_stage else None):
                run = functools.partial(_run, job, instance, run_id, keys, config, tags)
                for result in _interruptible(instance, run_id, run):
                    results.append(result)
                    on_day(result)
            if any(result.is_budget_spent for result in results):
                break
    return results


def _run_config(limit: int | None, budget: float | None) -> dict[str, Any]:
    values = {"raw_products": ("limit", limit), "qwen_labels": ("budget", budget)}
    ops = {op: {"config": {name: value}} for op, (name, value) in values.items() if value is not None}
    return {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}, "ops": ops}


def _interruptible(instance: dg.DagsterInstance, run_id: str, run: Callable[[], list[DayResult]]) -> list[DayResult]:
    """Run in a thread of its own, so that Ctrl+C ends it in seconds, also where it waits for a pool.

    Dagster keeps Ctrl+C from the main thread's runs until a step ends. Stopping in the middle is what kill -9 does too:
    what was finished is kept, and so are the labels under way. The thread cannot be ended, so the caller has to leave
    the process.
    """
    outcome: Future[list[DayResult]] = Future()

    def work() -> None:
        try:
            outcome.set_result(run())
        except BaseException as error:  # noqa: BLE001 - handed on to the caller
            outcome.set_exception(error)

    threading.Thread(target=work, daemon=True, name="run").start()
    try:
        return outcome.result()
    except KeyboardInterrupt:
        if (record := instance.get_run_by_id(run_id)) and not record.is_finished:
            instance.report_run_canceled(record, "Stopped by Ctrl+C. What was finished is kept; run the day again.")
        instance.event_log_storage.free_concurrency_slots_for_run(run_id)
        finish_requests(FINISH_SECONDS)
        raise


@contextlib.contextmanager
def _watched(instance: dg.DagsterInstance, run_id: str, on_stage: Callable[[str], None] | None) -> Iterator[None]:
    """Tell of each stage of a run as it begins, and end runs of killed processes for whose pools it may wait."""
    has_ended = threading.Event()

    def watch() -> None:
        seen: set[str] = set()
        for tick in itertools.count(1):
            if has_ended.wait(WATCH_SECONDS):
                return
            if tick % TICKS_BETWEEN_SWEEPS == 0:
                end_abandoned_runs(instance)
            for step in instance.get_run_step_stats(run_id) if on_stage else ():
                if on_stage and step.step_key not in seen:
                    seen.add(step.step_key)
                    on_stage(step.step_key)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        has_ended.set()
        watcher.join()


def _run(
    job: dg.JobDefinition,
    instance: dg.DagsterInstance,
    run_id: str,
    days: Sequence[str],
    config: Mapping[str, Any],
    tags: Mapping[str, str],
) -> list[DayResult]:
    """Run days that follow each other in one run."""
    started = time.monotonic()
    # The daemon cannot launch again what it did not launch.
    tags = {**tags, **process_tags(run_id), "dagster/max_retries": "0"}
    if len(days) > 1:
        tags |= range_tags(days[0], days[-1])
    result = job.execute_in_process(
        partition_key=days[0] if len(days) == 1 else None,
        instance=instance,
        run_id=run_id,
        run_config=dict(config),
        tags=tags,
        raise_on_error=False,
    )
    stages: dict[str, dict[str, dict[str, Any]]] = {day: {} for day in days}
    for event in result.get_asset_materialization_events():
        made = event.step_materialization_data.materialization
        stages[made.partition or days[0]][made.asset_key.path[-1]] = {
            key: value.value for key, value in made.metadata.items()
        }
    unfinished = [] if result.success else [day for day in days if stages[day].keys() != set(STAGES)]
    causes = dict.fromkeys(unfinished, "" if result.success else _cause(result))
    over_budget = set[str]()
    if unfinished and (len(days) > 1 or SPENDER_TAG in tags):
        failures = DayFailures(Services(Settings.load()).product_database.engine).find(run_id=run_id)
        over_budget = {str(each.day) for each in failures if each.error_class == BudgetSpentError.__name__}
        if len(days) > 1:
            causes |= {str(each.day): f"{each.stage}: {each.message} {each.remedy}" for each in failures}
    _add_costs_of_failed_tries(result, stages)
    seconds = round((time.monotonic() - started) / len(days), 3)
    return [
        DayResult(day, run_id, day not in causes, seconds, stages[day], causes.get(day, ""), day in over_budget)
        for day in days
    ]


def _add_costs_of_failed_tries(
    result: dg.ExecuteInProcessResult, stages: Mapping[str, dict[str, dict[str, Any]]]
) -> None:
    """Add what a stage paid for a day before it failed, see `Stage.paid`; a later try tells its own costs alone."""
    for event in result.get_asset_observation_events():
        observed = event.asset_observation_data.asset_observation
        values = stages[str(observed.partition)].setdefault(observed.asset_key.path[-1], {})
        for key, value in observed.metadata.items():
            values[key] = values.get(key, 0) + value.value


def _cause(result: dg.ExecuteInProcessResult) -> str:
    for event in result.get_step_failure_events():
        data = event.step_failure_data
        if data.user_failure_data and data.user_failure_data.description:
            return f"{event.step_key}: {data.user_failure_data.description}"
        if data.error:
            return f"{event.step_key}: {(data.error.cause or data.error).message.strip()}"
    for event in result.all_events:
        if event.is_run_failure and (error := event.job_failure_data.error):
            return (error.cause or error).message.strip()
    return "The run failed; its page in the UI tells where."
