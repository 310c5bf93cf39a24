"""Runs whose process is gone: they are told apart by tags, reported as failed, and give back the pool slots they hold.

Dagster itself never ends a run whose host or code server was killed.
"""

from __future__ import annotations

import socket

import dagster as dg

from labeling_assets.embedded.lock import ProcessId

HOST_TAG = "labeling/host"
PROCESS_TAG = "labeling/process"
CREATED = dg.DagsterRunStatus.NOT_STARTED
RUNNING = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]


def process_tags() -> dict[str, str]:
    """Tags that tell which process of which host executes a run."""
    process = ProcessId.current()
    return {HOST_TAG: socket.gethostname(), PROCESS_TAG: f"{process.pid}@{process.started}"}


def mark_process(instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
    """Tag a run with this process, which executes it, where that is not done yet."""
    tags = process_tags()
    if not tags.items() <= run.tags.items():
        instance.add_run_tags(run.run_id, tags)


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
