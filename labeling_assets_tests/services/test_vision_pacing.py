"""The rate limit: requests and tokens in any minute."""

from __future__ import annotations

import itertools
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labeling_assets.services.vision.pacing import SECONDS_A_MINUTE, Pacing

ARRIVALS = st.lists(st.tuples(st.floats(0, 30), st.integers(1, 5000)), max_size=60)


@given(requests_per_minute=st.integers(1, 600), tokens_per_minute=st.integers(100, 100_000), arrivals=ARRIVALS)
def test_no_minute_has_more_than_the_limits_and_one_request(
    requests_per_minute: int, tokens_per_minute: int, arrivals: list[tuple[float, int]]
) -> None:
    pacing = Pacing(requests_per_minute, tokens_per_minute)
    turns, now = [], 0.0
    for pause, tokens in arrivals:
        now += pause
        seconds = pacing.book(tokens, now)
        assert seconds >= 0
        turns.append((now + seconds, tokens))
    assert [turn for turn, _ in turns] == sorted(turn for turn, _ in turns), "first come, first served"
    for began, _ in turns:
        minute = [tokens for turn, tokens in turns if began <= turn < began + SECONDS_A_MINUTE - 1e-6]
        assert len(minute) <= requests_per_minute + 1
        assert sum(minute[:-1]) <= tokens_per_minute + 1e-3


def test_without_limits_nobody_waits() -> None:
    pacing = Pacing()
    for tokens in (1, 10**9, 1):
        assert pacing.book(tokens, 100.0) == 0
        pacing.correct(tokens, 10**9)
    pacing.wait(10**9)


@pytest.mark.parametrize(("estimated", "actual", "next_turn"), [(1000, 1000, 10), (1000, 3000, 30), (3000, 1000, 10)])
def test_a_wrong_estimate_is_made_good_by_the_next_request(estimated: int, actual: int, next_turn: float) -> None:
    pacing = Pacing(tokens_per_minute=6000)
    pacing.book(estimated, 0.0)
    pacing.correct(estimated, actual)
    assert pacing.book(1, 0.0) == pytest.approx(next_turn)


def test_threads_at_once_get_turns_one_after_the_other() -> None:
    pacing, turns = Pacing(requests_per_minute=60), []
    threads = [threading.Thread(target=lambda: turns.append(pacing.book(1, 0.0))) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(after - before == pytest.approx(1) for before, after in itertools.pairwise(sorted(turns)))
