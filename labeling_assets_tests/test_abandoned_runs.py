"""Runs whose process is gone are ended, and pool slots of ended runs are free, whatever was killed in between."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
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


@dg.job(executor_def=subject.marking_executor)
def marked() -> None:
    work()


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        for pool in POOLS:
            instance.event_log_storage.set_concurrency_slots(pool, 1)
        yield instance


def started(instance: dg.DagsterInstance) -> str:
    """A run that has begun and holds a slot."""
    run = instance.create_run_for_job(nothing, status=dg.DagsterRunStatus.STARTED)
    instance.event_log_storage.claim_concurrency_slot("gpu", run.run_id, "work")
    return run.run_id


def lose_process(instance: dg.DagsterInstance, run_id: str) -> None:
    """Let the run be of a process that is gone."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    instance.add_run_tags(run_id, {subject.PROCESS_TAG: f"{run_id}/{socket.gethostname()}/{gone.pid}@1"})


def test_a_run_whose_process_is_gone_is_ended_and_its_slot_freed(instance: dg.DagsterInstance) -> None:
    run_id = started(instance)
    lose_process(instance, run_id)
    assert subject.end_abandoned_runs(instance) == [run_id]
    run = instance.get_run_by_id(run_id)
    assert run is not None
    assert run.status is dg.DagsterRunStatus.FAILURE
    assert instance.event_log_storage.get_concurrency_run_ids() == set()


def test_a_run_whose_process_lives_is_left_alone(instance: dg.DagsterInstance) -> None:
    run_id = started(instance)
    instance.add_run_tags(run_id, subject.process_tags(run_id))
    assert subject.end_abandoned_runs(instance) == []
    assert instance.event_log_storage.get_concurrency_run_ids() == {run_id}


def test_a_run_that_a_daemon_launched_is_known_by_the_process_that_works_on_it(instance: dg.DagsterInstance) -> None:
    run = instance.create_run_for_job(nothing, status=dg.DagsterRunStatus.STARTED)
    subject.mark_process(instance, run)
    assert subject.end_abandoned_runs(instance, is_boot=True) == []
    lose_process(instance, run.run_id)
    assert subject.end_abandoned_runs(instance) == [run.run_id]


def test_the_slot_of_a_run_that_ended_without_freeing_it_is_freed(instance: dg.DagsterInstance) -> None:
    run_id = started(instance)
    lose_process(instance, run_id)
    run = instance.get_run_by_id(run_id)
    assert run is not None
    instance.report_run_failed(run)
    subject.end_abandoned_runs(instance)
    assert instance.event_log_storage.get_concurrency_run_ids() == set()


def test_a_run_of_the_daemon_is_ended_only_when_the_daemon_starts(instance: dg.DagsterInstance) -> None:
    run_id = started(instance)
    assert subject.end_abandoned_runs(instance) == []
    assert subject.end_abandoned_runs(instance, is_boot=True) == [run_id]


def test_a_run_that_is_started_again_is_not_ended_for_the_process_of_the_run_before(
    instance: dg.DagsterInstance,
) -> None:
    before = started(instance)
    lose_process(instance, before)
    assert subject.end_abandoned_runs(instance) == [before]
    ended = instance.get_run_by_id(before)
    assert ended is not None
    # As Dagster starts it again: with all tags.
    again = instance.create_run_for_job(nothing, tags=ended.tags, status=dg.DagsterRunStatus.STARTING)
    assert subject.end_abandoned_runs(instance) == []
    subject.mark_process(instance, again)
    assert subject.end_abandoned_runs(instance, is_boot=True) == []


@pytest.mark.parametrize(("seconds", "is_ended"), [(30, False), (90, True)])
def test_a_run_that_began_and_names_no_process_is_ended_after_a_while(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, seconds: float, is_ended: bool
) -> None:
    run_id = started(instance)
    run = instance.get_run_by_id(run_id)
    assert run is not None
    instance.report_dagster_event(dg.DagsterEvent(dg.DagsterEventType.RUN_START.value, run.job_name), run_id)
    moment = time.time() + seconds
    monkeypatch.setattr(subject.time, "time", lambda: moment)
    assert subject.end_abandoned_runs(instance) == ([run_id] if is_ended else [])


def test_a_run_names_its_process_before_its_first_step(instance: dg.DagsterInstance) -> None:
    result = dg.execute_job(dg.reconstructable(marked), instance)
    run = instance.get_run_by_id(result.run_id)
    assert run is not None
    assert subject.has_process(run)
