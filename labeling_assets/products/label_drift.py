"""Compares the labels of a day with those of the days before: has the model begun to answer otherwise?

For each field, the shares of its values on the day are compared with those of the history by the Jensen-Shannon
distance. Fifty products differ from any history by chance alone, so the distance is compared with what chance gives:
the same number of rows drawn from day and history together, many times. No model of the counts is needed, and rows
that name several values, which depend on one another, are drawn as a whole.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

DRIFT_FIELDS = ("product_type", "occasion", "image_recipient", "color_aesthetic", "design_style")
DRIFT_COLUMNS = ("image_sha256", "date", *DRIFT_FIELDS)
"""Columns of `qwen_labels` that a comparison reads."""
HISTORY_DAYS = 28
"""Earlier days that a day is compared with: four of each weekday."""

MIN_DAY_IMAGES = 20
MIN_HISTORY_DAYS = 7
MIN_HISTORY_IMAGES = 100
MAX_DAY_IMAGES, MAX_HISTORY_IMAGES = 2_000, 10_000
"""More add nothing to the answer; they are drawn at random."""

MIN_DISTANCE = 0.15
"""Smaller distances are the ordinary life of a catalogue, however certain they are: in a field of two values, shares of
50 % that become 33 % have this distance."""
STANDARD_DEVIATIONS = 3.5
DRAWS = 200
_MAX_VALUES = 50
_NO_VALUE, _OTHER = "(none)", "(other)"
_SEED = 20_240_229

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class FieldDrift:
    """How far a field's values on the day are from those of the history.

    Attributes:
        field: Label field.
        distance: Jensen-Shannon distance, 0 (the same shares) to 1 (no value in common).
        limit: Distance up to which nothing is said: what chance gives, or what is small anyway.
        grown: Value whose share has grown most, with its share before and now.
        shrunk: Value whose share has shrunk most, likewise.
    """

    field: str
    distance: float
    limit: float
    grown: tuple[str, float, float]
    shrunk: tuple[str, float, float]

    @property
    def is_drift(self) -> bool:
        """Whether the distance is over its limit."""
        return self.distance > self.limit

    def __str__(self) -> str:
        """For people."""
        changes = "; ".join(f"“{name}” {before:.0%} → {now:.0%}" for name, before, now in (self.grown, self.shrunk))
        return f"{self.field}: distance {self.distance:.2f}, limit {self.limit:.2f}; {changes}"


def too_little_to_compare(day: pa.Table, history: pa.Table) -> str:
    """Why day and history cannot be compared, in a sentence; empty where they can.

    Args:
        day: Rows of the day, with `DRIFT_COLUMNS`.
        history: Rows of up to `HISTORY_DAYS` earlier days, likewise.
    """
    day_images, history_images = (len(set(table["image_sha256"].to_pylist())) for table in (day, history))
    history_days = len(set(history["date"].to_pylist()))
    if day_images < MIN_DAY_IMAGES:
        return f"The day has {day_images} distinct images; {MIN_DAY_IMAGES} are needed."
    if history_days < MIN_HISTORY_DAYS or history_images < MIN_HISTORY_IMAGES:
        return (
            f"Not enough history: {history_images} distinct images on {history_days} earlier days; "
            f"{MIN_HISTORY_IMAGES} on {MIN_HISTORY_DAYS} are needed."
        )
    return ""


def measure_drift(day: pa.Table, history: pa.Table) -> list[FieldDrift]:
    """The drift of each of `DRIFT_FIELDS`. The same tables give the same answer.

    An image counts once in the day and once in the history, however many products show it.

    Args:
        day: Rows of the day, with `DRIFT_COLUMNS`; not empty.
        history: Rows of the earlier days, likewise.
    """
    random = np.random.default_rng(_SEED)
    today = _distinct_images(day, MAX_DAY_IMAGES, random)
    before = _distinct_images(history, MAX_HISTORY_IMAGES, random)
    return [_field_drift(name, _lists(today, name), _lists(before, name), random) for name in DRIFT_FIELDS]


def jensen_shannon_distance(p: Floats, q: Floats) -> Floats:
    """Square root of the Jensen-Shannon divergence to base 2, 0 to 1.

    Args:
        p: Shares, shape (…, values), each row adding up to 1.
        q: Shares of the same shape.
    """
    middle = (p + q) / 2
    divergence = (_entropy_terms(middle) - (_entropy_terms(p) + _entropy_terms(q)) / 2).sum(axis=-1)
    distance: Floats = np.sqrt(np.clip(divergence, 0, 1))
    return distance


def _entropy_terms(shares: Floats) -> Floats:
    return -shares * np.log2(np.where(shares > 0, shares, 1))


def _distinct_images(table: pa.Table, limit: int, random: np.random.Generator) -> pa.Table:
    """One row per image, at most `limit` of them, drawn at random."""
    _, positions = np.unique(np.asarray(table["image_sha256"].to_pylist(), dtype=str), return_index=True)
    if len(positions) > limit:
        positions = random.choice(positions, limit, replace=False)
    return table.select(DRIFT_FIELDS).take(np.sort(positions))


def _lists(table: pa.Table, column: str) -> list[list[str]]:
    return [list(map(str, values or ())) for values in table[column].to_pylist()]


def _field_drift(
    field: str, today: Sequence[list[str]], before: Sequence[list[str]], random: np.random.Generator
) -> FieldDrift:
    names, shares = _shares([*today, *before])
    rows = len(today)
    now, then = shares[:rows].mean(axis=0), shares[rows:].mean(axis=0)
    total = shares.sum(axis=0)
    drawn = np.stack([shares[random.choice(len(shares), rows, replace=False)].sum(axis=0) for _ in range(DRAWS)])
    by_chance = jensen_shannon_distance(drawn / rows, (total - drawn) / (len(shares) - rows))
    limit = max(MIN_DISTANCE, float(by_chance.mean() + STANDARD_DEVIATIONS * by_chance.std()))
    change = now - then
    return FieldDrift(
        field=field,
        distance=float(jensen_shannon_distance(now, then)),
        limit=limit,
        grown=_change(names, then, now, int(change.argmax())),
        shrunk=_change(names, then, now, int(change.argmin())),
    )


def _change(names: Sequence[str], then: Floats, now: Floats, position: int) -> tuple[str, float, float]:
    return names[position], float(then[position]), float(now[position])


def _shares(rows: Sequence[list[str]]) -> tuple[list[str], Floats]:
    """The values, and what each row says of each: float64, shape (rows, values); a row adds up to 1.

    Case does not count; a row without values says `(none)`, and values beyond the most frequent are `(other)`.
    """
    folded = [list(dict.fromkeys(" ".join(value.split()).casefold() for value in row)) or [_NO_VALUE] for row in rows]
    frequent = Counter(value for row in folded for value in row).most_common(_MAX_VALUES)
    names = [*(name for name, _ in frequent), _OTHER]
    position = {name: index for index, name in enumerate(names)}
    shares = np.zeros((len(rows), len(names)))
    for row, values in zip(shares, folded, strict=True):
        for value in values:
            row[position.get(value, len(names) - 1)] += 1 / len(values)
    return names, shares
