"""Days that follow each other, as one range."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass

ONE_DAY = dt.timedelta(days=1)


@dataclass(frozen=True)
class DayRange:
    """Contiguous days that one run processes, both ends included."""

    first: dt.date
    last: dt.date

    @property
    def days(self) -> list[dt.date]:
        """Its days, in order."""
        return [self.first + number * ONE_DAY for number in range((self.last - self.first).days + 1)]

    def __str__(self) -> str:
        return str(self.first) if self.first == self.last else f"{self.first}..{self.last}"


def day_ranges(days: Iterable[dt.date], max_days: int | None = None) -> list[DayRange]:
    """The fewest ranges that cover exactly these days, in order of time; none is longer than `max_days`."""
    ranges: list[DayRange] = []
    for day in sorted(set(days)):
        before = ranges[-1] if ranges else None
        if before and before.last + ONE_DAY == day and (max_days is None or len(before.days) < max_days):
            ranges[-1] = DayRange(before.first, day)
        else:
            ranges.append(DayRange(day, day))
    return ranges
