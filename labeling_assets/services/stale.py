"""Stale labels: which labels of the files were made by another model, prompt or schema than is in use now.

What stale means is in `products/label_versions.py`. The files are what counts, since search shows what they hold; the
ledger may know better labels already. Making labels anew is in `relabel_stale.py`.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from upath import UPath

from labeling_assets.products.label_versions import LabelVersion
from labeling_assets.services.checked_files import LABELS, BrokenFileError, day_of, read_columns
from labeling_assets.services.day_tables import stored_names

COLUMNS = ("label_model", "label_digest", "prompt_version", "schema_version")
"""Of the file, in the order of the fields of `LabelVersion`."""


@dataclass(frozen=True)
class DayLabels:
    """Who made the labels of a day.

    Attributes:
        day: Business day.
        counts: Labels by who made them.
        problem: Why the file cannot be read; empty where it can.
    """

    day: dt.date
    counts: Mapping[LabelVersion, int] = field(default_factory=dict)
    problem: str = ""

    @property
    def total(self) -> int:
        """All labels of the day."""
        return sum(self.counts.values())

    def stale(self, current: LabelVersion) -> int:
        """Labels that another version than the current one made."""
        return sum(count for version, count in self.counts.items() if not current.has_made(version))


def labeled_days(root: UPath, first: dt.date | None = None, last: dt.date | None = None) -> list[dt.date]:
    """The days with a file of labels, oldest first; where given, only those from `first` to `last`, both included.

    Raises:
        ServiceUnavailableError: The storage cannot be read.
    """
    days = [day for name in stored_names(root, LABELS) if (day := day_of(name))]
    return [day for day in days if (first is None or day >= first) and (last is None or day <= last)]


def read_day_labels(root: UPath, days: Sequence[dt.date]) -> list[DayLabels]:
    """Who made the labels of each day. A file that is broken is told as such.

    Raises:
        ServiceUnavailableError: The storage cannot be read.
    """
    return [_read(root, day) for day in days]


def _read(root: UPath, day: dt.date) -> DayLabels:
    try:
        table = read_columns(root, LABELS, day, COLUMNS)
    except BrokenFileError as error:
        return DayLabels(day, problem=f"{LABELS} cannot be read: {error}")
    groups = table.group_by(list(COLUMNS)).aggregate([([], "count_all")]).to_pylist()
    counts = {LabelVersion(*(group[name] for name in COLUMNS)): group["count_all"] for group in groups}
    return DayLabels(day, dict(sorted(counts.items())))
