"""Runs whose process is gone are ended, and pool slots of ended runs are free, whatever was killed in between."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator

import dagster as dg
import pytest

from labeling_assets import abandoned_runs as subject
from labeling_assets.instance import POOLS


@dg.op
def work() -> None:
    """Nothing."""


@dg.job
def nothing() -> None:
    work()


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        for pool in POOLS:
            instance.event_log_storage.set_concurrency_slots(pool, 1)
        yield instance


def started(instance: dg.DagsterInstance, tags: dict[str, str]) -> str:
    """A run that has begun and holds a slot."""
    run = instance.create_run_for_job(nothing, tags=tags, status=dg.DagsterRunStatus.STARTED)
    instance.event_log_storage.claim_concurrency_slot("gpu", run.run_id, "work")
    return run.run_id


def process_that_is_gone() -> dict[str, str]:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    return {subject.HOST_TAG: socket.gethostname(), subject.PROCESS_TAG: f"{gone.pid}@1"}


def test_a_run_whose_process_is_gone_is_ended_and_its_slot_freed(instance: dg.DagsterInstance) -> None:
    run_id = started(instance, process_that_is_gone())
    assert subject.end_abandoned_runs(instance) == [run_id]
    run = instance.get_run_by_id(run_id)
    assert run is not None
    assert run.status is dg.DagsterRunStatus.FAILURE
    assert instance.event_log_storage.get_concurrency_run_ids() == set()


def test_a_run_whose_process_lives_is_left_alone(instance: dg.DagsterInstance) -> None:
    run_id = started(instance, subject.process_tags())
    assert subject.end_abandoned_runs(instance) == []
    assert instance.event_log_storage.get_concurrency_run_ids() == {run_id}


def test_a_run_that_a_daemon_launched_is_known_by_the_process_that_works_on_it(instance: dg.DagsterInstance) -> None:
    run = instance.create_run_for_job(nothing, status=dg.DagsterRunStatus.STARTED)
    subject.mark_process(instance, run)
    assert subject.end_abandoned_runs(instance, is_boot=True) == []
    instance.add_run_tags(run.run_id, process_that_is_gone())
    assert subject.end_abandoned_runs(instance) == [run.run_id]


def test_the_slot_of_a_run_that_ended_without_freeing_it_is_freed(instance: dg.DagsterInstance) -> None:
    run_id = started(instance, process_that_is_gone())
    run = instance.get_run_by_id(run_id)
    assert run is not None
    instance.report_run_failed(run)
    subject.end_abandoned_runs(instance)
    assert instance.event_log_storage.get_concurrency_run_ids() == set()


def test_a_run_of_the_daemon_is_ended_only_when_the_daemon_starts(instance: dg.DagsterInstance) -> None:
    run_id = started(instance, {})
    assert subject.end_abandoned_runs(instance) == []
    assert subject.end_abandoned_runs(instance, is_boot=True) == [run_id]
