"""The pipeline of labels and vectors: every key comes out once, batches are full, memory is bounded, errors end it."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labeling_assets.services.pipeline import (
    DONE_BATCHES,
    Later,
    Pipeline,
    Ready,
    finish_requests,
    raise_if_stopped,
    sleep,
)

WAIT_SECONDS = 30
"""Long enough for any machine; no test waits so long unless it fails."""


def numbers(count: int) -> list[str]:
    return [str(number) for number in range(count)]


def read(key: str) -> Ready[int] | str:
    return Ready(int(key))


def squared(items: Sequence[tuple[str, int]]) -> list[str]:
    return [f"{key}²={item * item}" for key, item in items]


def run(pipeline: Pipeline[int, str], keys: Sequence[str]) -> list[str]:
    outcomes: list[str] = []
    pipeline.submit(keys)
    take_all(pipeline, outcomes)
    return outcomes


def take_all(pipeline: Pipeline[int, str], outcomes: list[str]) -> None:
    try:
        while pipeline.outstanding:
            outcomes += pipeline.next_outcomes()
    finally:
        pipeline.stop()


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("pipeline-")]


@given(
    count=st.integers(0, 60),
    workers=st.integers(1, 4),
    batch=st.integers(1, 17),
    readers=st.integers(1, 6),
    needs_no_work=st.sets(st.integers(0, 59)),
    is_late=st.sets(st.integers(0, 59), max_size=1),
)
@settings(max_examples=60)
def test_every_key_comes_out_once(
    count: int, workers: int, batch: int, readers: int, needs_no_work: set[int], is_late: set[int]
) -> None:
    late = {str(number) for number in is_late}

    def prepare(key: str) -> Ready[int] | Later | str:
        if key in late:
            late.remove(key)
            return Later()
        return f"{key} is known" if int(key) in needs_no_work else read(key)

    batches: list[int] = []

    def work(items: Sequence[tuple[str, int]]) -> list[str]:
        batches.append(len(items))
        return squared(items)

    outcomes = run(Pipeline(workers, prepare, work, batch=batch, readers=readers), numbers(count))
    expected = {f"{n} is known" if n in needs_no_work else f"{n}²={n * n}" for n in range(count)}
    assert len(outcomes) == count
    assert set(outcomes) == expected
    assert max(batches, default=0) <= batch
    assert not threads()


def test_batches_are_full_and_in_order_but_for_the_last() -> None:
    batches: list[list[int]] = []

    def work(items: Sequence[tuple[str, int]]) -> list[str]:
        batches.append([item for _, item in items])
        return squared(items)

    run(Pipeline(1, read, work, batch=16), numbers(40))
    assert batches == [list(range(16)), list(range(16, 32)), list(range(32, 40))]


def test_a_key_that_is_put_off_does_not_hold_up_a_partial_batch() -> None:
    has_worked = threading.Event()

    def prepare(key: str) -> Ready[int] | Later | str:
        return read(key) if key != "1" or has_worked.is_set() else Later()

    def work(items: Sequence[tuple[str, int]]) -> list[str]:
        has_worked.set()
        return squared(items)

    assert set(run(Pipeline(1, prepare, work, batch=8), numbers(3))) == {"0²=0", "1²=1", "2²=4"}


def test_the_next_batch_is_prepared_while_one_is_worked_on() -> None:
    next_is_prepared = threading.Event()

    def prepare(key: str) -> Ready[int] | str:
        if key == "7":
            next_is_prepared.set()
        return read(key)

    def work(items: Sequence[tuple[str, int]]) -> list[str]:
        assert next_is_prepared.wait(WAIT_SECONDS)
        return squared(items)

    assert len(run(Pipeline(1, prepare, work, batch=4), numbers(8))) == 8


def test_workers_work_at_the_same_time() -> None:
    together = threading.Barrier(3)

    def work(items: Sequence[tuple[str, int]]) -> list[str]:
        together.wait(WAIT_SECONDS)
        return squared(items)

    assert len(run(Pipeline(3, read, work, batch=2), numbers(12))) == 12


@pytest.mark.parametrize(("workers", "batch"), [(1, 1), (1, 4), (3, 2)])
def test_a_caller_that_takes_nothing_halts_everything(workers: int, batch: int) -> None:
    lock, is_full, prepared, taken, ahead = threading.Lock(), threading.Event(), [0], [0], [0]
    most = workers * batch * (DONE_BATCHES + 3)  # done, finished just now, being worked on, ready

    def prepare(key: str) -> Ready[int] | str:
        with lock:
            prepared[0] += 1
            ahead[0] = max(ahead[0], prepared[0] - taken[0])
        if prepared[0] > workers * batch * DONE_BATCHES:
            is_full.set()
        return read(key)

    pipeline = Pipeline(workers, prepare, squared, batch=batch)
    pipeline.submit(numbers(200))
    assert is_full.wait(WAIT_SECONDS)
    while pipeline.outstanding:
        outcomes = pipeline.next_outcomes()
        with lock:
            taken[0] += len(outcomes)
    pipeline.stop()
    assert taken == [200]
    assert ahead[0] <= most + workers * batch * DONE_BATCHES, "what the caller has just taken is not yet counted"


@pytest.mark.parametrize("step", ["prepare", "work"])
def test_an_error_ends_it_after_everything_finished_is_taken(step: str) -> None:
    def fail_on(key: str, at: str) -> None:
        if (key, step) == ("20", at):
            raise KeyError(key)

    def prepare(key: str) -> Ready[int] | str:
        fail_on(key, "prepare")
        return read(key)

    worked: list[str] = []

    def work(items: Sequence[tuple[str, int]]) -> list[str]:
        for key, _ in items:
            fail_on(key, "work")
        worked.extend(outcomes := squared(items))
        return outcomes

    pipeline = Pipeline(2, prepare, work, batch=4)
    pipeline.submit(numbers(400))
    taken: list[str] = []
    with pytest.raises(KeyError, match="20"):
        take_all(pipeline, taken)
    assert sorted(taken) == sorted(worked)
    assert len(taken) < 400
    assert not threads()


def test_the_end_of_the_program_lets_what_is_under_way_finish() -> None:
    has_begun, may_end, finished = threading.Event(), threading.Event(), []

    def work(items: Sequence[tuple[str, int]]) -> list[str]:
        has_begun.set()
        assert may_end.wait(WAIT_SECONDS)
        finished.extend(items)
        return squared(items)

    pipeline = Pipeline(1, read, work, batch=2)
    pipeline.submit(numbers(50))
    assert has_begun.wait(WAIT_SECONDS)
    ending = threading.Thread(target=finish_requests, args=(WAIT_SECONDS,))
    ending.start()
    may_end.set()
    ending.join()
    assert len(finished) <= 4, "no new work is begun"
    assert pipeline.next_outcomes()[:2] == ["0²=0", "1²=1"]
    assert not threads()


def test_keys_may_be_submitted_while_others_are_worked_on() -> None:
    pipeline = Pipeline(2, read, squared, batch=3)
    taken: list[str] = []
    for start in range(0, 30, 10):
        pipeline.submit(numbers(30)[start : start + 10])
        taken += pipeline.next_outcomes()
    while pipeline.outstanding:
        taken += pipeline.next_outcomes()
    pipeline.stop()
    assert sorted(taken) == sorted(squared([(key, int(key)) for key in numbers(30)]))


@pytest.mark.parametrize("has_failed", [False, True])
def test_work_that_sleeps_ends_when_the_pipeline_stops_and_is_no_outcome(has_failed: bool) -> None:
    is_asleep, ended = threading.Event(), []

    def work(items: Sequence[tuple[str, int]]) -> list[str]:
        if items[0][0] == "1":
            assert is_asleep.wait(WAIT_SECONDS)
            raise KeyError("1") if has_failed else SystemExit
        is_asleep.set()
        sleep(10 * WAIT_SECONDS)
        ended.append(items)
        return squared(items)

    pipeline = Pipeline(2, read, work)
    pipeline.submit(numbers(2))
    with pytest.raises(KeyError if has_failed else SystemExit):
        take_all(pipeline, [])
    pipeline.stop()
    assert pipeline.is_stopped
    assert not ended
    assert not threads()


def test_a_thread_of_no_pipeline_is_never_stopped() -> None:
    finish_requests(0)
    raise_if_stopped()
    sleep(0.001)
