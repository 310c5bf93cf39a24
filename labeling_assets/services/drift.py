"""What can be wrong between source, files, Milvus and `data_label`, and what a healing did about it.

The words only: how drift is found and repaired is in `healing.py`.
"""

from __future__ import annotations

import datetime as dt
import enum
from collections.abc import Iterable
from dataclasses import dataclass, field


class Kind(enum.StrEnum):
    """What is wrong."""

    SOURCE_CHANGED = "source_changed"
    FILE_MISSING = "file_missing"
    FILE_UNREADABLE = "file_unreadable"
    FILE_PARTIAL = "file_partial"
    FILE_OUTDATED = "file_outdated"
    MILVUS_MISSING = "milvus_missing"
    MILVUS_DIFFERENT = "milvus_different"
    MILVUS_SURPLUS = "milvus_surplus"
    MILVUS_DATELESS = "milvus_dateless"
    DATA_LABEL_MISSING = "data_label_missing"
    DATA_LABEL_DIFFERENT = "data_label_different"
    DATA_LABEL_SURPLUS = "data_label_surplus"


RUN, REMOVE = "run the day again", "remove the rows"
FROM_VECTORS, FROM_LABELS = "repair from clip_vectors", "repair from qwen_labels"
MEANINGS_AND_REMEDIES = {
    Kind.SOURCE_CHANGED: ("The source has changed since the day ran.", RUN),
    Kind.FILE_MISSING: ("The source has rows of the day, but a file of it is missing.", RUN),
    Kind.FILE_UNREADABLE: ("A file of the day cannot be read.", RUN),
    Kind.FILE_PARTIAL: ("A file of the day holds only a part, of a run with --limit.", RUN),
    Kind.FILE_OUTDATED: ("A file of the day shows another state of the source, or is of another embedder.", RUN),
    Kind.MILVUS_MISSING: ("Products of the file are not in Milvus.", FROM_VECTORS),
    Kind.MILVUS_DIFFERENT: ("Products are in Milvus with another content, or for an older day.", FROM_VECTORS),
    Kind.MILVUS_SURPLUS: ("Milvus holds products for the day that its file does not have.", FROM_VECTORS),
    Kind.MILVUS_DATELESS: ("Milvus holds products whose date is none.", REMOVE),
    Kind.DATA_LABEL_MISSING: ("Products of the file are not in data_label.", FROM_LABELS),
    Kind.DATA_LABEL_DIFFERENT: ("Products are in data_label with another content, or for an older day.", FROM_LABELS),
    Kind.DATA_LABEL_SURPLUS: ("data_label holds products for the day that its file does not have.", FROM_LABELS),
}
HIDING = {Kind.FILE_MISSING, Kind.FILE_UNREADABLE}
"""The file may be the one that still has a product which left another day, so nothing is removed meanwhile."""
SAMPLE_IDS = 20


@dataclass(frozen=True)
class Drift:
    """One kind of disagreement on one day.

    Attributes:
        day: The business day; None for rows of no day.
        kind: What is wrong.
        count: Products concerned; 1 for a kind that concerns the day as a whole.
        sample_ids: The first twenty of them.
        details: More about it, for people.
    """

    day: dt.date | None
    kind: Kind
    count: int = 1
    sample_ids: tuple[str, ...] = ()
    details: str = ""

    @classmethod
    def of_products(cls, day: dt.date | None, kind: Kind, ids: Iterable[str], details: str = "") -> list[Drift]:
        """The drift of these products; none where there are no products."""
        ordered = sorted(ids)
        return [cls(day, kind, len(ordered), tuple(ordered[:SAMPLE_IDS]), details)] if ordered else []

    @property
    def must_run(self) -> bool:
        """Whether the day has to run again, because no file tells what the stores should hold."""
        return self.remedy == RUN

    @property
    def meaning(self) -> str:
        """What is wrong, as a sentence."""
        return MEANINGS_AND_REMEDIES[self.kind][0]

    @property
    def remedy(self) -> str:
        """What mends it."""
        return MEANINGS_AND_REMEDIES[self.kind][1]


@dataclass(frozen=True)
class Healing:
    """What a healing did.

    Attributes:
        days_examined: Number of days.
        found: What was wrong before.
        left: What is wrong after it: days that must run again, and what has to wait for them.
    """

    days_examined: int = 0
    found: list[Drift] = field(default_factory=list)
    left: list[Drift] = field(default_factory=list)

    @property
    def days_to_run(self) -> list[dt.date]:
        """Days that must run again: first those whose files others wait for, then the oldest."""
        waiting = sorted((drift.kind not in HIDING, drift.day) for drift in self.left if drift.must_run and drift.day)
        return [day for _, day in waiting]

    def counts(self) -> dict[str, int]:
        """Products, or days, found and repaired by kind; every kind every time."""
        found = {kind: sum(drift.count for drift in self.found if drift.kind is kind) for kind in Kind}
        left = {kind: sum(drift.count for drift in self.left if drift.kind is kind) for kind in Kind}
        return {f"{kind}_found": found[kind] for kind in Kind} | {
            f"{kind}_repaired": max(found[kind] - left[kind], 0) for kind in Kind
        }
