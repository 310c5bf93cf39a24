"""Runs whose process is gone: they are told apart by a tag, reported as failed, and give back the pool slots they hold.

Dagster itself never ends a run whose host or code server was killed.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg
from dagster._core.definitions.executor_definition import IN_PROC_CONFIG
from dagster._core.execution.context.system import PlanOrchestrationContext
from dagster._core.execution.plan.plan import ExecutionPlan
from dagster._core.execution.retries import RetryMode
from dagster._core.execution.step_dependency_config import StepDependencyConfig
from dagster._core.executor.in_process import InProcessExecutor

from labeling_assets.embedded.lock import ProcessId

PROCESS_TAG = "dagster/labeling_process"
"""Run, host, and process that executes the run. The UI shows tags of this prefix only where all tags are asked for."""
CREATED = dg.DagsterRunStatus.NOT_STARTED
MARK_LIMIT_SECONDS = 60.0
"""A run that began so long ago and names no process has none: the first thing that a process does is to name itself."""
RUNNING = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]


def process_tags(run_id: str) -> dict[str, str]:
    """The tag that tells which process of which host executes a run."""
    process = ProcessId.current()
    return {PROCESS_TAG: f"{run_id}/{socket.gethostname()}/{process.pid}@{process.started}"}


def mark_process(instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
    """Tag a run with this process, which executes it, where that is not done yet."""
    tags = process_tags(run.run_id)
    if not tags.items() <= run.tags.items():
        instance.add_run_tags(run.run_id, tags)


def has_process(run: dg.DagsterRun) -> bool:
    """Whether a process has taken the run up; a run that is started again has the tags of the run before."""
    return run.tags.get(PROCESS_TAG, "").startswith(f"{run.run_id}/")


class MarkingExecutor(InProcessExecutor):
    """Dagster's in-process executor, which first tags the run with its process."""

    def execute(
        self, plan_context: PlanOrchestrationContext, execution_plan: ExecutionPlan
    ) -> Iterator[dg.DagsterEvent]:
        """Execute all steps in this process."""
        mark_process(plan_context.instance, plan_context.dagster_run)
        yield from super().execute(plan_context, execution_plan)


@dg.executor(name="in_process", config_schema=IN_PROC_CONFIG)
def marking_executor(init_context: dg.InitExecutorContext) -> MarkingExecutor:
    """Executes all steps of a run in one process, by which the run is known."""
    config: Mapping[str, Any] = init_context.executor_config
    return MarkingExecutor(
        retries=RetryMode.from_config(config["retries"]) or RetryMode.ENABLED,
        step_dependency_config=StepDependencyConfig.from_config(config.get("step_dependency_config")),
        marker_to_close=config.get("marker_to_close"),
    )


def end_abandoned_runs(instance: dg.DagsterInstance, *, is_boot: bool = False) -> list[str]:
    """Report runs whose process is gone as failed and free the pool slots they hold.

    Args:
        instance: The Dagster instance.
        is_boot: Whether no daemon of the instance is up yet, so that runs that it had launched are abandoned too, where
            no process has taken them up.

    Returns:
        Ids of the runs ended.
    """
    ended = []
    for record in instance.get_run_records(dg.RunsFilter(statuses=[CREATED, *RUNNING])):
        run = record.dagster_run
        if _is_abandoned(record, is_boot=is_boot):
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


def _is_abandoned(record: dg.RunRecord, *, is_boot: bool) -> bool:
    run = record.dagster_run
    if not has_process(run):
        has_begun = record.start_time is not None and time.time() - record.start_time > MARK_LIMIT_SECONDS
        return has_begun or (is_boot and run.status is not CREATED)
    _, host, process = run.tags[PROCESS_TAG].split("/")
    if host != socket.gethostname():
        return False
    pid, _, started = process.partition("@")
    return not ProcessId(int(pid), started).is_alive()
