"""Drift of the label distribution: chance is not accused, a real shift is found, the same tables answer the same."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labeling_assets.products.label_drift import (
    DRIFT_FIELDS,
    MIN_DAY_IMAGES,
    jensen_shannon_distance,
    measure_drift,
    too_little_to_compare,
)

LAST = dt.date(2026, 3, 31)
VALUES = [f"value {number}" for number in range(25)]
USUAL = 1 / np.arange(1, 26)
USUAL = USUAL / USUAL.sum()
Draw = Callable[[np.random.Generator], list[str]]


def some_values(random: np.random.Generator, shares: np.ndarray = USUAL) -> list[str]:
    """One to three values of a catalogue with few frequent and many rare ones."""
    return [str(value) for value in random.choice(VALUES, random.integers(1, 4), replace=False, p=shares)]


def table(random: np.random.Generator, days: int, per_day: int, draw: Draw = some_values, **fields: Draw) -> pa.Table:
    rows = days * per_day
    return pa.table(
        {
            "image_sha256": [str(random.integers(2**62)) for _ in range(rows)],
            "date": [LAST - dt.timedelta(days=number // per_day) for number in range(rows)],
            **{name: [fields.get(name, draw)(random) for _ in range(rows)] for name in DRIFT_FIELDS},
        }
    )


@pytest.mark.parametrize("per_day", [20, 50, 200])
def test_days_that_differ_by_chance_alone_are_not_accused(per_day: int) -> None:
    random = np.random.default_rng(per_day)
    history = table(random, 10, 50)
    days = [table(random, 1, per_day) for _ in range(12)]
    accused = [str(drift) for day in days for drift in measure_drift(day, history) if drift.is_drift]
    assert len(accused) <= 1, accused  # of 60 comparisons


@pytest.mark.parametrize("per_day", [30, 50, 200])
def test_a_model_that_answers_otherwise_is_found(per_day: int) -> None:
    random = np.random.default_rng(per_day)
    history = table(random, 10, 50)

    def hooked(random: np.random.Generator) -> list[str]:
        return ["Birthday"] if random.random() < 0.6 else some_values(random)

    drifts = {drift.field: drift for drift in measure_drift(table(random, 1, per_day, occasion=hooked), history)}
    assert [name for name, drift in drifts.items() if drift.is_drift] == ["occasion"]
    name, before, now = drifts["occasion"].grown
    assert (name, before) == ("birthday", 0)
    assert now > 0.4
    assert "birthday" in str(drifts["occasion"])


def test_a_field_that_falls_silent_is_found() -> None:
    random = np.random.default_rng(1)
    history = table(random, 10, 50)
    day = table(random, 1, 50, product_type=lambda random: [] if random.random() < 0.7 else some_values(random))
    drifts = {drift.field: drift for drift in measure_drift(day, history)}
    assert drifts["product_type"].is_drift
    assert drifts["product_type"].grown[0] == "(none)"


def test_a_small_shift_is_no_drift_however_certain_it_is() -> None:
    random = np.random.default_rng(1)

    def either(share: float) -> Draw:
        return lambda random: ["Typography"] if random.random() < share else ["Vintage"]

    history = table(random, 10, 300, design_style=either(0.5))
    day = table(random, 1, 1500, design_style=either(0.42))
    assert not any(drift.is_drift for drift in measure_drift(day, history))


def test_one_picture_on_many_products_counts_once() -> None:
    random = np.random.default_rng(1)
    history, day = table(random, 10, 50), table(random, 1, 50)
    best_seller = day.slice(0, 1).take(pa.array([0] * 500))
    assert measure_drift(pa.concat_tables([day, best_seller]), history) == measure_drift(day, history)


def test_the_same_tables_give_the_same_answer_and_case_does_not_count() -> None:
    random = np.random.default_rng(1)
    history, day = table(random, 10, 50), table(random, 1, 50)
    louder = day.set_column(
        day.column_names.index("occasion"),
        "occasion",
        pa.array([[value.upper() for value in values] for values in day["occasion"].to_pylist()]),
    )
    assert measure_drift(day, history) == measure_drift(louder, history)


@pytest.mark.parametrize(
    ("day_rows", "days", "per_day", "reason"),
    [
        (MIN_DAY_IMAGES - 1, 10, 50, "distinct images; 20 are needed"),
        (50, 0, 0, "Not enough history"),
        (50, 6, 50, "on 6 earlier days"),
        (50, 10, 5, "50 distinct images"),
        (MIN_DAY_IMAGES, 10, 50, ""),
    ],
)
def test_too_few_rows_are_not_compared(day_rows: int, days: int, per_day: int, reason: str) -> None:
    random = np.random.default_rng(1)
    day, history = table(random, 1, day_rows), table(random, days, per_day)
    found = too_little_to_compare(day, history)
    assert reason in found
    assert bool(found) == bool(reason)


SHARES = st.lists(st.floats(0, 1), min_size=4, max_size=4).filter(lambda values: sum(values) > 0.1)


@given(SHARES, SHARES)
def test_the_distance_is_symmetric_and_between_0_and_1(first: list[float], second: list[float]) -> None:
    p, q = (np.array(values) / sum(values) for values in (first, second))
    distance = float(jensen_shannon_distance(p, q))
    assert 0 <= distance <= 1
    assert distance == pytest.approx(float(jensen_shannon_distance(q, p)), abs=1e-6)
    assert float(jensen_shannon_distance(p, p)) == pytest.approx(0, abs=1e-6)


def test_shares_with_nothing_in_common_have_distance_1() -> None:
    assert float(jensen_shannon_distance(np.array([1.0, 0.0]), np.array([0.0, 1.0]))) == pytest.approx(1)
