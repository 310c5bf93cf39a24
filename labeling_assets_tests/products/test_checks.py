"""Every check passes on what is right and fails on what is wrong, with the evidence and what to do."""

from __future__ import annotations

import datetime as dt
from typing import Any

import dagster as dg
import numpy as np
import pyarrow as pa
import pytest

from labeling_assets.defs.products import checks
from labeling_assets.errors import ImageNotFoundError
from labeling_assets.products.records import LABEL_LISTS
from labeling_assets.products.vectors import IMAGE_VECTOR

DAY = dt.date(2026, 3, 14)
GOOD_LABEL: dict[str, Any] = {name: ["Dad"] for name in LABEL_LISTS} | {
    "trademark_level": "No TM",
    "main_subject": "a heart",
    "text": "Best Dad Ever",
}


def ids_and_days(*rows: tuple[str, dt.date]) -> pa.Table:
    return pa.table({"id_sanpham": [row[0] for row in rows], "date": [row[1] for row in rows]})


def vectors(*lengths: float) -> pa.Table:
    values = np.zeros((len(lengths), 4), dtype=np.float32)
    values[:, 0] = lengths
    column = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), 4)
    return pa.table({"id_sanpham": [str(number) for number in range(len(lengths))], IMAGE_VECTOR: column})


def labels(**values: object) -> pa.Table:
    return pa.Table.from_pylist([{"id_sanpham": "a"} | GOOD_LABEL | values])


def error(count: int) -> dict[str, ImageNotFoundError]:
    return {str(number): ImageNotFoundError("gone") for number in range(count)}


PASSING = {
    "rows_lie_in_the_day": checks.rows_lie_in_the_day(ids_and_days(("a", DAY)), DAY),
    "ids_are_unique": checks.ids_are_unique(ids_and_days(("a", DAY), ("b", DAY))),
    "most_images_are_usable": checks.quarantined_share_is_low("most_images_are_usable", error(2), 10),
    "labels_match_schema": checks.labels_match_schema(labels()),
    "vectors_are_unit_length": checks.vectors_are_unit_length(vectors(1.0, 1.0), [IMAGE_VECTOR]),
    "milvus_holds_every_labeled_product": checks.holds_every_product(
        "milvus_holds_every_labeled_product", ["a"], {"a", "b"}
    ),
}
FAILING = {
    "rows_lie_in_the_day": checks.rows_lie_in_the_day(ids_and_days(("a", DAY + dt.timedelta(days=1))), DAY),
    "ids_are_unique": checks.ids_are_unique(ids_and_days(("a", DAY), ("a", DAY))),
    "most_images_are_usable": checks.quarantined_share_is_low("most_images_are_usable", error(3), 10),
    "labels_match_schema": checks.labels_match_schema(labels(trademark_level="Maybe")),
    "vectors_are_unit_length": checks.vectors_are_unit_length(vectors(1.0, 0.0), [IMAGE_VECTOR]),
    "milvus_holds_every_labeled_product": checks.holds_every_product(
        "milvus_holds_every_labeled_product", ["a", "b"], {"a"}
    ),
}


@pytest.mark.parametrize("name", PASSING)
def test_a_check_passes_on_what_is_right(name: str) -> None:
    result = PASSING[name]
    assert (result.check_name, result.passed) == (name, True)


@pytest.mark.parametrize("name", FAILING)
def test_a_check_fails_on_what_is_wrong_and_says_what_to_do(name: str) -> None:
    result = FAILING[name]
    assert (result.check_name, result.passed) == (name, False)
    assert int(result.metadata["offending_rows"].value or 0) > 0
    assert result.metadata["what_to_do"].value not in ("", "Nothing.")


def test_every_check_has_a_description() -> None:
    assert set(PASSING) <= set(checks.DESCRIPTIONS)


def test_a_high_share_of_quarantined_rows_is_a_warning_not_an_error() -> None:
    assert FAILING["most_images_are_usable"].severity is dg.AssetCheckSeverity.WARN


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.5])
def test_a_vector_that_is_not_finite_or_not_of_length_one_is_found(value: float) -> None:
    assert not checks.vectors_are_unit_length(vectors(value), [IMAGE_VECTOR]).passed


def test_the_sample_of_ids_is_capped() -> None:
    result = checks.holds_every_product("milvus_holds_every_labeled_product", [str(n) for n in range(500)], set())
    assert result.metadata["offending_rows"].value == 500
    assert len(result.metadata["sample_ids"].value) == checks.SAMPLE_IDS  # type: ignore[arg-type]
