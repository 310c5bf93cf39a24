"""Which days are requested: changed ones once, with pauses, and those that the night mends."""

from __future__ import annotations

import datetime as dt
import itertools
import json
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labeling_assets.products import detection as subject
from labeling_assets.products.detection import (
    EMPTY_DAY,
    MAX_RANGE_DAYS,
    MAX_REQUESTS,
    MAX_SINGLE_DAYS,
    PAUSES,
    DayRange,
    Detection,
    days_for_the_night,
    detect,
    group_days,
    is_changed,
)

STORES = ("milvus_collection", "data_label")
DAY = dt.date(2026, 3, 14)
NOW = dt.datetime(2026, 4, 1, 12, tzinfo=dt.UTC)
SECOND = dt.timedelta(seconds=1)
MINUTE = dt.timedelta(minutes=1)

FINGERPRINTS = st.sampled_from([EMPTY_DAY, "1:5", "2:-7", "2:8"])
WINDOW = [DAY + dt.timedelta(days=number) for number in range(80)]
WINDOW_DAYS = st.sampled_from(WINDOW)
SOURCES = st.fixed_dictionaries(dict.fromkeys(WINDOW, FINGERPRINTS)) | st.just(dict.fromkeys(WINDOW, "1:5"))
SYNCED = st.dictionaries(WINDOW_DAYS, st.dictionaries(st.sampled_from(STORES), FINGERPRINTS, min_size=1))
SOME_DAYS = st.sets(WINDOW_DAYS, max_size=40)


def in_step(fingerprint: str) -> dict[str, str]:
    return dict.fromkeys(STORES, fingerprint)


def look(
    fingerprint: str = "1:5",
    synced: dict[str, str] | None = None,
    *,
    cursor: str | None = None,
    now: dt.datetime = NOW,
    is_in_flight: bool = False,
) -> Detection:
    """One look at a single day."""
    return detect(
        {DAY: fingerprint}, {DAY: synced} if synced else {}, STORES, {DAY} if is_in_flight else (), cursor, now
    )


def requested(detection: Detection) -> list[dt.date]:
    return [day for days, _ in detection.requests for day in days.days]


@pytest.mark.parametrize(
    ("fingerprint", "synced", "changed"),
    [
        (EMPTY_DAY, {}, False),  # never processed, and nothing to process
        (EMPTY_DAY, in_step(EMPTY_DAY), False),
        (EMPTY_DAY, {"data_label": "1:5"}, True),
        (EMPTY_DAY, {"data_label": EMPTY_DAY}, True),  # the other store may still hold rows
        ("1:5", {}, True),
        ("1:5", {"data_label": "1:5"}, True),
        ("1:5", in_step("1:5"), False),
        ("1:5", in_step("1:5") | {"data_label": "1:4"}, True),
        ("1:5", in_step("1:5") | {"a_former_store": "9:9"}, False),
    ],
)
def test_a_day_is_changed_when_a_store_does_not_hold_its_state(
    fingerprint: str, synced: dict[str, str], changed: bool
) -> None:
    assert is_changed(fingerprint, synced, STORES) is changed
    assert bool(look(fingerprint, synced).requests) is changed


def test_a_changed_day_is_requested_once_while_its_run_is_on_its_way() -> None:
    first = look()
    ((days, key),) = first.requests
    assert days == DayRange(DAY, DAY)
    assert key.startswith("2026-03-14/1:5/1/")
    second = look(cursor=first.cursor, is_in_flight=True, now=NOW + MINUTE)
    third = look(synced=in_step("1:5"), cursor=second.cursor, now=NOW + 2 * MINUTE)
    assert not second.requests
    assert not third.requests


def test_a_day_that_changes_while_its_run_is_on_its_way_is_requested_when_the_run_has_ended() -> None:
    first = look()
    during = look("2:8", cursor=first.cursor, is_in_flight=True, now=NOW + SECOND)
    assert not during.requests
    assert during.observed == {DAY: "2:8"}
    after = look("2:8", in_step("1:5"), cursor=during.cursor, now=NOW + 2 * SECOND)
    assert requested(after) == [DAY]


def test_a_state_is_requested_again_with_growing_pauses_and_then_left_to_the_night() -> None:
    now, detection = NOW, look()
    keys = {detection.requests[0][1]}
    for pause in PAUSES:
        detection = look(cursor=detection.cursor, is_in_flight=True, now=now + MINUTE)  # the run ends after this look
        now += MINUTE
        early = look(cursor=detection.cursor, now=now + pause - SECOND)
        assert not early.requests
        assert not early.given_up
        now += pause
        detection = look(cursor=early.cursor, now=now)
        assert requested(detection) == [DAY]
        keys.add(detection.requests[0][1])
    assert len(keys) == 1 + len(PAUSES)
    for days in (1, 100):
        detection = look(cursor=detection.cursor, now=now + dt.timedelta(days=days))
        assert not detection.requests
        assert detection.given_up == [DAY]
    assert requested(look("2:8", cursor=detection.cursor, now=now)) == [DAY]


def test_attempts_are_counted_anew_when_the_stores_were_in_step_in_between() -> None:
    cursor = None
    for number in range(10):
        detection = look(cursor=cursor, now=NOW + number * MINUTE)
        assert requested(detection) == [DAY]
        cursor = look(synced=in_step("1:5"), cursor=detection.cursor, now=NOW + number * MINUTE).cursor


def test_a_clock_that_was_set_back_delays_nothing() -> None:
    assert look(cursor=look().cursor, now=NOW - dt.timedelta(days=365)).requests


def test_a_state_that_comes_back_has_another_key() -> None:
    """Dagster drops a request whose key it knows: an emptied day would never run a second time."""
    keys, cursor = [], None
    for number, fingerprint in enumerate(["1:5", EMPTY_DAY, "2:8", EMPTY_DAY, "1:5"]):
        detection = look(fingerprint, {"data_label": "x"}, cursor=cursor, now=NOW + number * MINUTE)
        keys += [key for _, key in detection.requests]
        cursor = detection.cursor
    assert len(set(keys)) == 5
    lost_cursor = look(synced={"data_label": "x"}, now=NOW + dt.timedelta(hours=1))
    assert lost_cursor.requests[0][1] not in keys


def test_each_new_state_is_observed_once() -> None:
    first = look(synced=in_step("1:5"))
    assert first.observed == {DAY: "1:5"}
    second = look(synced=in_step("1:5"), cursor=first.cursor)
    assert second.observed == {}
    third = look(EMPTY_DAY, in_step("1:5"), cursor=second.cursor)
    assert third.observed == {DAY: EMPTY_DAY}
    assert look(EMPTY_DAY).observed == {}


@pytest.mark.parametrize(
    "cursor",
    [
        "1774353600.0",
        "not json",
        "[]",
        "{}",
        '{"2026-03-14": null}',
        '{"no day": {"fingerprint": "1:5"}}',
        '{"2026-03-14": {"fingerprint": "1:5", "attempts": -1}}',
        '{"2026-03-14": {"fingerprint": "1:5", "attempts": 99, "active_at": "2026-03-14T00:00:00"}}',
        "\x00",
    ],
)
def test_a_cursor_that_cannot_be_read_is_begun_anew(cursor: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        detection = look(cursor=cursor)
    assert requested(detection) == [DAY]
    assert ("begun anew" in caplog.text) is (cursor != "{}")


@given(cursor=st.text())
def test_no_text_is_a_fatal_cursor(cursor: str) -> None:
    assert requested(look(cursor=cursor)) == [DAY]


@given(source=SOURCES, synced=SYNCED, in_flight=SOME_DAYS)
def test_every_changed_day_is_requested_once_and_no_other(
    source: dict[dt.date, str], synced: dict[dt.date, dict[str, str]], in_flight: set[dt.date]
) -> None:
    expected = {day for day in WINDOW if day not in in_flight and is_changed(source[day], synced.get(day, {}), STORES)}
    seen: list[dt.date] = []
    cursor, now = None, NOW
    while True:  # as many looks as the bound on the requests of one look makes necessary
        detection = detect(source, synced, STORES, in_flight | set(seen), cursor, now)
        if not detection.requests:
            break
        assert len(detection.requests) <= MAX_REQUESTS
        seen += requested(detection)
        cursor, now = detection.cursor, now + SECOND
    assert len(seen) == len(set(seen))
    assert set(seen) == expected


@given(looks=st.lists(st.tuples(SOURCES, SYNCED, SOME_DAYS, st.integers(0, 120)), max_size=12))
def test_a_state_out_of_step_is_requested_no_more_often_than_allowed(
    looks: list[tuple[dict[dt.date, str], dict[dt.date, dict[str, str]], set[dt.date], int]],
) -> None:
    cursor, now, streaks, keys = None, NOW, dict[dt.date, tuple[str, int]](), list[str]()
    for source, synced, in_flight, minutes in looks:
        now += SECOND + minutes * MINUTE
        detection = detect(source, synced, STORES, in_flight, cursor, now)
        cursor = detection.cursor
        assert set(map(dt.date.fromisoformat, json.loads(cursor))) <= source.keys()
        asked = set(requested(detection))
        assert not asked & in_flight
        keys += [key for _, key in detection.requests]
        for day in WINDOW:
            state, count = streaks.get(day, ("", 0))
            is_same = state == source[day]
            if day not in in_flight and not is_changed(source[day], synced.get(day, {}), STORES):
                is_same = False
            streaks[day] = (source[day], (count if is_same else 0) + (day in asked))
            assert streaks[day][1] <= 1 + len(PAUSES)
    assert len(keys) == len(set(keys))


def test_days_outside_the_window_are_forgotten() -> None:
    first = detect(dict.fromkeys(WINDOW, "1:5"), {}, STORES, (), None, NOW)
    second = detect(dict.fromkeys(WINDOW[-3:], "1:5"), {}, STORES, (), first.cursor, NOW)
    assert sorted(json.loads(second.cursor)) == [str(day) for day in WINDOW[-3:]]


def test_more_requests_than_one_look_makes_begin_with_the_newest_days() -> None:
    source = {day: "1:5" if number % 2 else EMPTY_DAY for number, day in enumerate(WINDOW)}
    first = detect(source, {}, STORES, (), None, NOW)
    assert requested(first) == WINDOW[1::2][-MAX_REQUESTS:]
    second = detect(source, {}, STORES, requested(first), first.cursor, NOW)
    assert requested(second) == WINDOW[1::2][:-MAX_REQUESTS]


@pytest.mark.parametrize(
    ("numbers", "groups"),
    [
        ([], []),
        ([3], [(3, 3)]),
        ([1, 2, 3], [(1, 1), (2, 2), (3, 3)]),
        ([4, 1, 3, 2], [(1, 4)]),
        ([1, 2, 4, 5, 6, 7], [(1, 1), (2, 2), (4, 7)]),
        (range(31), [(0, 30)]),
        (range(33), [(0, 30), (31, 31), (32, 32)]),
        (range(35), [(0, 30), (31, 34)]),
    ],
)
def test_contiguous_days_become_a_range(numbers: list[int], groups: list[tuple[int, int]]) -> None:
    found = group_days(DAY + dt.timedelta(days=number) for number in numbers)
    assert [((each.first - DAY).days, (each.last - DAY).days) for each in found] == groups


@given(days=st.sets(WINDOW_DAYS))
def test_groups_cover_each_day_once_and_are_bounded(days: set[dt.date]) -> None:
    groups = group_days(days)
    covered = list(itertools.chain.from_iterable(group.days for group in groups))
    assert covered == sorted(days)
    assert all(len(group.days) == 1 or MAX_SINGLE_DAYS < len(group.days) <= MAX_RANGE_DAYS for group in groups)
    ranges = {len(group.days) for group in groups}
    assert days != set(WINDOW) or max(ranges) == MAX_RANGE_DAYS


def test_the_night_takes_missing_changed_and_failed_days_oldest_first() -> None:
    missing, changed, failed, fine, empty = WINDOW[:5]
    source = dict.fromkeys(WINDOW[:4], "1:5") | {empty: EMPTY_DAY}
    synced = {changed: in_step("1:4"), failed: in_step("1:5"), fine: in_step("1:5")}
    assert days_for_the_night(source, synced, STORES, {failed}, (), (), 9) == [missing, changed, failed]
    assert days_for_the_night(source, synced, STORES, {failed}, (), (), 2) == [missing, changed]
    assert days_for_the_night(source, synced, STORES, {failed}, (), {missing}, 2) == [changed, failed]


def test_a_failed_day_without_rows_is_run_again_so_that_it_no_longer_shows_as_failed() -> None:
    assert days_for_the_night({DAY: EMPTY_DAY}, {}, STORES, {DAY}, (), (), 9) == [DAY]


def test_days_that_only_wait_for_retries_get_what_is_left_of_the_budget() -> None:
    source = dict.fromkeys(WINDOW[:10], "1:5")
    synced = {day: in_step("1:5") for day in WINDOW[:9]}
    chosen = days_for_the_night(source, synced, STORES, (), WINDOW[:9], (), 3)
    assert chosen == [WINDOW[0], WINDOW[1], WINDOW[9]]


@given(
    source=SOURCES,
    synced=SYNCED,
    failed=SOME_DAYS,
    retryable=SOME_DAYS,
    in_flight=SOME_DAYS,
    max_days=st.integers(1, 90),
)
def test_the_night_keeps_to_its_budget_and_leaves_no_day_out_that_fits(
    source: dict[dt.date, str],
    synced: dict[dt.date, dict[str, str]],
    failed: set[dt.date],
    retryable: set[dt.date],
    in_flight: set[dt.date],
    max_days: int,
) -> None:
    chosen = days_for_the_night(source, synced, STORES, failed, retryable | {dt.date(2000, 1, 1)}, in_flight, max_days)
    wrong = {day for day in WINDOW if is_changed(source[day], synced.get(day, {}), STORES)} | failed
    eligible = (wrong | retryable) - in_flight
    assert chosen == sorted(set(chosen))
    assert set(chosen) <= eligible
    assert len(chosen) == min(max_days, len(eligible))
    assert set(chosen) <= wrong or wrong - in_flight <= set(chosen)


def test_the_number_of_rows_stands_in_the_fingerprint() -> None:
    assert [subject.row_count(each) for each in (EMPTY_DAY, "12:-345")] == [0, 12]
