"""How many requests at once an endpoint is given, without an endpoint."""

from __future__ import annotations

import heapq

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labeling_assets.services.vision.concurrency import MAX_FOUND_SLOTS, MIN_GAIN, AdaptiveConcurrency

REFUSAL, REPLY = "refusal", "reply"
EVENTS = st.lists(st.sampled_from([REFUSAL, REPLY]), max_size=200)


def tell(concurrency: AdaptiveConcurrency, event: str, at_seconds: float = 0.0) -> None:
    if event == REPLY:
        concurrency.on_reply(concurrency.permits, at_seconds)
    else:
        concurrency.on_refusal()


@given(slots=st.integers(0, 64), events=EVENTS)
def test_whatever_happens_at_least_one_and_at_most_the_slots_are_in_use(slots: int, events: list[str]) -> None:
    concurrency = AdaptiveConcurrency(slots)
    assert concurrency.maximum == (slots or MAX_FOUND_SLOTS)
    for number, event in enumerate(events):
        tell(concurrency, event, number / 10)
        assert 1 <= concurrency.permits <= concurrency.maximum


@given(slots=st.integers(1, 64), events=EVENTS)
def test_refusals_take_a_share_and_replies_add_slowly(slots: int, events: list[str]) -> None:
    concurrency = AdaptiveConcurrency(slots)
    for event in events:
        before = concurrency.permits
        tell(concurrency, event)
        if event == REFUSAL:
            assert 0.8 * before - 1 <= concurrency.permits <= before
        else:
            assert before <= concurrency.permits <= before + 1


@given(slots=st.integers(1, 64))
def test_a_server_that_refuses_all_ends_at_one_and_one_that_answers_all_gets_every_slot(slots: int) -> None:
    concurrency = AdaptiveConcurrency(slots)
    assert concurrency.permits == slots, "the slots that are set are used from the first"
    for _ in range(60):
        concurrency.on_refusal()
    assert concurrency.permits == 1
    for _ in range(slots**2):
        tell(concurrency, REPLY)
    assert concurrency.permits == slots


def test_one_refusal_in_twenty_costs_no_slot_of_four() -> None:
    concurrency = AdaptiveConcurrency(4)
    for number in range(200):
        tell(concurrency, REFUSAL if number % 20 == 0 else REPLY)
        assert concurrency.permits == 4


def serve(
    concurrency: AdaptiveConcurrency, slots: int, requests: int, latency: float = 1.0, began: float = 0.0
) -> float:
    """A server of so many slots and a queue, by the clock of a simulation; returns the time of the last reply."""
    slot_free_at = [began] * slots
    under_way: list[float] = []
    now = began
    for _ in range(requests):
        while len(under_way) < concurrency.permits:
            start = max(now, heapq.heappop(slot_free_at))
            heapq.heappush(slot_free_at, start + latency)
            heapq.heappush(under_way, start + latency)
        in_flight = len(under_way)
        now = heapq.heappop(under_way)
        concurrency.on_reply(in_flight, now)
    return now


@given(slots=st.integers(1, MAX_FOUND_SLOTS), latency=st.floats(0.01, 60))
def test_the_slots_of_a_server_are_found_to_within_a_factor_of_two(slots: int, latency: float) -> None:
    concurrency = AdaptiveConcurrency(0)
    assert concurrency.permits == 1, "a search begins with one"
    serve(concurrency, slots, requests=200, latency=latency)
    assert slots / MIN_GAIN <= concurrency.permits < 2 * slots


def test_a_server_that_grew_is_questioned_again() -> None:
    concurrency = AdaptiveConcurrency(0)
    ended = serve(concurrency, slots=2, requests=150)
    assert concurrency.permits == 2
    serve(concurrency, slots=8, requests=600, began=ended)
    assert concurrency.permits == 8


def test_permits_that_are_not_used_are_no_reason_to_try_more() -> None:
    concurrency = AdaptiveConcurrency(0)
    serve(concurrency, slots=16, requests=12)
    found = concurrency.permits
    for number in range(1000):
        concurrency.on_reply(1, 1000.0 + number)
    assert concurrency.permits == found == 2


@pytest.mark.parametrize("slots", [0, 8])
def test_a_search_and_a_setting_both_yield_to_refusals(slots: int) -> None:
    concurrency = AdaptiveConcurrency(slots)
    serve(concurrency, slots=8, requests=150)
    before = concurrency.permits
    for _ in range(10):
        concurrency.on_refusal()
    assert concurrency.permits < before / 2
