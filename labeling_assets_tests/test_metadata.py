"""What a person reads on an asset's page."""

from __future__ import annotations

import io
import re

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from labeling_assets import metadata as md
from labeling_assets.products.records import LabeledProduct, RawProduct, arrow_schema

MAX_EVENT_BYTES = 100_000


def small_picture(_: str) -> bytes:
    file = io.BytesIO()
    Image.effect_noise((72, 72), 80).convert("RGB").save(file, "JPEG", quality=70)
    return file.getvalue()


def table(*titles: str | None) -> pa.Table:
    return pa.table({"image_sha256": ["ab"] * len(titles), "title": list(titles)})


@given(st.lists(st.text(max_size=200), min_size=1, max_size=8))
def test_outside_text_cannot_break_out_of_a_preview(titles: list[str]) -> None:
    text = str(md.preview(table(*titles), ["title"]).value)
    lines = text.split("\n")
    assert len(lines) == 2 + min(len(titles), md.PREVIEW_ROWS)
    for line in lines[2:]:
        assert len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) == 2
        assert not re.search(r"(?<!\\)(?:\\\\)*<", line)


def test_a_preview_shows_thumbnails_and_stays_small() -> None:
    value = str(md.preview(table(*["title"] * 9), ["title"], small_picture).value)
    assert value.count("data:image/jpeg;base64,") == md.PREVIEW_ROWS
    assert len(value) < MAX_EVENT_BYTES


def test_a_preview_of_no_rows_says_so() -> None:
    assert md.preview(table(), ["title"]).value == "No rows."


def test_a_chart_shows_the_most_frequent_values_first() -> None:
    lines = str(md.bar_chart(["rare", "often", "often"], "Occasions").value).split("\n")
    assert lines[2].startswith("| often | 2 | ████")
    assert lines[3].startswith("| rare | 1 | ██")
    assert len(lines[2]) > len(lines[3])


@given(st.lists(st.text(max_size=100), min_size=1, max_size=40))
def test_a_chart_of_whatever_text_is_short_enough_to_be_shown_at_once(values: list[str]) -> None:
    chart = str(md.bar_chart(values, "Occasions").value)
    assert len(chart) < 1000
    assert chart.count("\n") <= md.CHART_BARS + 1


def test_a_long_value_in_a_chart_is_seen_to_be_cut() -> None:
    lines = str(md.bar_chart(["x" * md.CHART_LABEL, "y" * (md.CHART_LABEL + 1)], "Occasions").value).split("\n")
    assert lines[2].startswith(f"| {'x' * md.CHART_LABEL} |")
    assert lines[3].startswith(f"| {'y' * (md.CHART_LABEL - 1)}… |")


def test_a_chart_of_nothing_says_so() -> None:
    assert "no values" in str(md.bar_chart([], "Occasions").value)


def test_the_counts_are_there_also_for_an_empty_day() -> None:
    counts = md.stage_metadata(0, 0, 0, 0.0)
    assert counts == {
        "rows_in": 0,
        "rows_out": 0,
        "rows_quarantined": 0,
        "seconds": 0.0,
        "rows_per_second": 0.0,
        "dagster/partition_row_count": 0,
    }


def test_the_column_schema_is_that_of_the_records() -> None:
    schema = md.table_schema(LabeledProduct)
    assert [column.name for column in schema.columns] == arrow_schema(LabeledProduct).names
    assert all(column.description for column in schema.columns)


def test_columns_that_a_stage_passes_on_come_from_the_stage_before() -> None:
    lineage = md.column_lineage(["title", "new"], "raw_products", RawProduct.model_fields, {"new": ["image"]})
    deps = lineage.deps_by_column
    assert [dep.column_name for dep in deps["title"]] == ["title"]
    assert [dep.column_name for dep in deps["new"]] == ["image"]
