"""Days in ranges."""

from __future__ import annotations

import datetime as dt
import itertools

from hypothesis import given
from hypothesis import strategies as st

from labeling_assets.products.day_ranges import ONE_DAY, day_ranges

DAYS = st.lists(st.dates(dt.date(2026, 1, 1), dt.date(2026, 3, 1)))


@given(days=DAYS, max_days=st.none() | st.integers(1, 40))
def test_ranges_cover_exactly_the_days_in_order(days: list[dt.date], max_days: int | None) -> None:
    ranges = day_ranges(days, max_days)
    assert [day for each in ranges for day in each.days] == sorted(set(days))
    assert all(max_days is None or len(each.days) <= max_days for each in ranges)


@given(days=DAYS)
def test_days_that_follow_each_other_are_never_parted_without_need(days: list[dt.date]) -> None:
    ranges = day_ranges(days)
    assert all(before.last + ONE_DAY < after.first for before, after in itertools.pairwise(ranges))
