"""Every check passes on what is right and fails on what is wrong, with the evidence and what to do."""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pyarrow as pa
import pytest
from upath import UPath

from labeling_assets.defs.products import checks, day_checks, model_checks, store_checks
from labeling_assets.errors import ImageNotFoundError
from labeling_assets.products.fallback import is_fallback_label
from labeling_assets.products.label_drift import DRIFT_FIELDS
from labeling_assets.products.records import LABEL_LISTS, EmbeddedProduct, RawProduct, arrow_schema, to_table
from labeling_assets.products.vectors import DESCRIPTION_VECTOR, IMAGE_VECTOR, milvus_records, with_vectors
from labeling_assets.services.day_tables import read_table, write_table
from labeling_assets.services.milvus import MilvusStore, StoredProduct
from labeling_assets_tests.services.milvus_samples import IDENTITY, MONDAY, TUESDAY, product, temporary_store, vector

DAY = dt.date(2026, 3, 14)
DAYS = [DAY + dt.timedelta(days=number) for number in range(10)]
GOOD_LABEL: dict[str, Any] = {name: ["Dad"] for name in LABEL_LISTS} | {
    "trademark_level": "No TM",
    "main_subject": "a heart",
    "text": "Best Dad Ever",
}
EMPTY_LABEL: dict[str, Any] = {name: [] for name in LABEL_LISTS} | {
    "trademark_level": "No TM",
    "main_subject": "",
    "text": "",
}
BOTH_VECTORS = [IMAGE_VECTOR, DESCRIPTION_VECTOR]


def ids_and_days(*rows: tuple[str, dt.date]) -> pa.Table:
    return pa.table({"id_sanpham": [row[0] for row in rows], "date": [row[1] for row in rows]})


def vectors(*lengths: float) -> pa.Table:
    values = np.zeros((len(lengths), 4), dtype=np.float32)
    values[:, 0] = lengths
    column = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), 4)
    return pa.table({"id_sanpham": [str(number) for number in range(len(lengths))], IMAGE_VECTOR: column})


def labels(*rows: dict[str, object], **values: object) -> pa.Table:
    """Rows as of qwen_labels: one, or one for each mapping."""
    return pa.Table.from_pylist(
        [
            {"id_sanpham": str(number), "title": "Gift", "image_sha256": f"image {number}", "parse_step": "direct"}
            | {"date": DAY}
            | GOOD_LABEL
            | row
            for number, row in enumerate(rows or [values])
        ]
    )


def error(count: int) -> dict[str, ImageNotFoundError]:
    return {str(number): ImageNotFoundError("gone") for number in range(count)}


def embedded(*products: EmbeddedProduct, seeds: Sequence[str] = ()) -> pa.Table:
    """Rows as of clip_vectors; `seeds` makes image vectors and descriptions of other content than the products'."""
    table = to_table(products, EmbeddedProduct)
    images = np.stack([vector(seed) for seed in seeds or [str(row.image_sha256) for row in products]])
    texts = np.stack([vector(seed) for seed in seeds or [row.description for row in products]])
    return with_vectors(table, images, texts)


THREE = [product(name) for name in ("a", "b", "c")]


def stored(day: dt.date = MONDAY, record_hash: str = "new") -> StoredProduct:
    return StoredProduct("row", record_hash, day)


def milvus(
    held: dict[str, StoredProduct],
    *,
    for_the_day: Sequence[str] | None = None,
    waiting: Sequence[str] = (),
    is_partial: bool = False,
) -> dg.AssetCheckResult:
    """The day has products a and b, whose record has the hash `new`."""
    of_day = [id_ for id_, each in held.items() if each.date == MONDAY] if for_the_day is None else for_the_day
    return store_checks.milvus_holds_every_labeled_product(
        MONDAY, {"a": "new", "b": "new"}, held, of_day, waiting, is_partial=is_partial
    )


@dataclass
class FoundProduct:
    id_sanpham: str
    score: float | None


def search_among(*products: EmbeddedProduct) -> Callable[[np.ndarray], list[FoundProduct]]:
    """An exact search by cosine over the image vectors of the products."""

    def search(wanted: np.ndarray) -> list[FoundProduct]:
        scores = {row.id_sanpham: float(vector(str(row.image_sha256)) @ wanted) for row in products}
        ranked = sorted(scores, key=lambda id_: -scores[id_])
        return [FoundProduct(id_, scores[id_]) for id_ in ranked[: store_checks.SEARCH_HITS]]

    return search


def searches(
    table: pa.Table, search: Callable[[np.ndarray], Sequence[FoundProduct]], **held: StoredProduct
) -> dg.AssetCheckResult:
    ids = [str(each) for each in table["id_sanpham"].to_pylist()]
    return store_checks.stored_vectors_find_their_product(
        MONDAY, table, {id_: stored() for id_ in ids} | held, lambda sample: [search(wanted) for wanted in sample]
    )


def drifting(share: float) -> tuple[pa.Table, pa.Table]:
    """A day on which a share of the labels says another occasion than those of ten days before."""
    changed = [{"occasion": ["Christmas" if number < 50 * share else "Birthday"]} for number in range(50)]
    usual = [{"occasion": ["Birthday"], "date": DAYS[number % 10]} for number in range(200)]
    return labels(*changed), labels(*usual)


NAVY = {"title": "Navy Hoodie", "color_aesthetic": ["Black"]}
PASSING = {
    "columns_match_schema": checks.columns_match_schema(embedded(*THREE), checks.embedded_schema(8)),
    "rows_lie_in_the_day": checks.rows_lie_in_the_day(ids_and_days(("a", DAY)), DAY),
    "ids_are_unique": checks.ids_are_unique(ids_and_days(("a", DAY), ("b", DAY))),
    "most_images_are_usable": checks.quarantined_share_is_low("most_images_are_usable", error(2), 10, 0.8),
    "most_images_are_labeled": checks.quarantined_share_is_low("most_images_are_labeled", error(0), 0, 0.8),
    "most_images_are_embedded": checks.quarantined_share_is_low("most_images_are_embedded", error(1), 10, 0.8),
    "labels_match_schema": checks.labels_match_schema(labels()),
    "most_labels_say_something": model_checks.most_labels_say_something(labels(*[{}] * 4, EMPTY_LABEL)),
    "label_distribution_is_steady": model_checks.label_distribution_is_steady(*drifting(0.0)),
    "labels_agree_with_titles": model_checks.labels_agree_with_titles(labels(*[{}] * 49, NAVY)),
    "vectors_are_unit_length": checks.vectors_are_unit_length(vectors(1.0, 1.0), [IMAGE_VECTOR]),
    "vectors_fit_the_embedder": model_checks.vectors_fit_the_embedder(embedded(*THREE), BOTH_VECTORS, IDENTITY),
    "vectors_differ": model_checks.vectors_differ(embedded(*THREE)),
    "milvus_holds_every_labeled_product": milvus({"a": stored(), "b": stored(TUESDAY, "newer")}),
    "stored_vectors_find_their_product": searches(embedded(*THREE), search_among(*THREE)),
    "data_label_holds_every_labeled_product": checks.holds_every_product(
        "data_label_holds_every_labeled_product", ["a"], {"a", "b"}
    ),
    "data_label_equals_milvus": store_checks.data_label_equals_milvus({"a": "x"}, {"a": "x"}),
    "yesterday_is_present": day_checks.yesterday_is_present("qwen_labels", DAYS, DAYS[-1:]),
    "no_partitions_left_failed": day_checks.no_partitions_left_failed("qwen_labels", DAYS, []),
}
FAILING = {
    "columns_match_schema": checks.columns_match_schema(ids_and_days(("a", DAY)), arrow_schema(RawProduct)),
    "rows_lie_in_the_day": checks.rows_lie_in_the_day(ids_and_days(("a", DAY + dt.timedelta(days=1))), DAY),
    "ids_are_unique": checks.ids_are_unique(ids_and_days(("a", DAY), ("a", DAY))),
    "most_images_are_usable": checks.quarantined_share_is_low("most_images_are_usable", error(3), 10, 0.8),
    "most_images_are_labeled": checks.quarantined_share_is_low("most_images_are_labeled", error(9), 10, 0.8),
    "most_images_are_embedded": checks.quarantined_share_is_low("most_images_are_embedded", error(9), 10, 0.8),
    "labels_match_schema": checks.labels_match_schema(labels(trademark_level="Maybe")),
    "most_labels_say_something": model_checks.most_labels_say_something(labels({}, {}, {}, EMPTY_LABEL)),
    "label_distribution_is_steady": model_checks.label_distribution_is_steady(*drifting(0.6)),
    "labels_agree_with_titles": model_checks.labels_agree_with_titles(labels({}, NAVY)),
    "vectors_are_unit_length": checks.vectors_are_unit_length(vectors(1.0, 0.0), [IMAGE_VECTOR]),
    "vectors_fit_the_embedder": model_checks.vectors_fit_the_embedder(
        embedded(*THREE[:2], product("c", embedder="other")), BOTH_VECTORS, IDENTITY
    ),
    "vectors_differ": model_checks.vectors_differ(embedded(*THREE, seeds=["same"] * 3)),
    "milvus_holds_every_labeled_product": milvus({"a": stored()}),
    "stored_vectors_find_their_product": searches(embedded(*THREE), search_among(*THREE[1:])),
    "data_label_holds_every_labeled_product": checks.holds_every_product(
        "data_label_holds_every_labeled_product", ["a", "b"], {"a"}
    ),
    "data_label_equals_milvus": store_checks.data_label_equals_milvus({"a": "x"}, {"a": "y"}),
    "yesterday_is_present": day_checks.yesterday_is_present("qwen_labels", DAYS, DAYS[:-1]),
    "no_partitions_left_failed": day_checks.no_partitions_left_failed("qwen_labels", DAYS, DAYS[2:4]),
}


def value(result: dg.AssetCheckResult, key: str) -> Any:
    return result.metadata[key].value


@pytest.mark.parametrize("name", PASSING)
def test_a_check_passes_on_what_is_right(name: str) -> None:
    result = PASSING[name]
    assert (result.check_name, result.passed) == (name, True)
    assert value(result, "what_to_do") == "Nothing."


@pytest.mark.parametrize("name", FAILING)
def test_a_check_fails_on_what_is_wrong_and_says_what_to_do(name: str) -> None:
    result = FAILING[name]
    assert (result.check_name, result.passed) == (name, False)
    assert sum(value(result, key) for key in result.metadata if key.startswith("offending_")) > 0
    assert any(value(result, key) for key in result.metadata if key.startswith("sample_"))
    what_to_do = value(result, "what_to_do")
    assert what_to_do.endswith(".")
    places = ("`labeling ", "LABELING_", "Materialize", "metadata of qwen_labels", "records.py")
    assert any(place in what_to_do for place in places), what_to_do


def test_every_check_is_described_passes_once_and_fails_once() -> None:
    assert set(PASSING) == set(FAILING) == set(checks.DESCRIPTIONS)
    assert all(text.endswith(".") for text in checks.DESCRIPTIONS.values())
    assert [spec.name for spec in checks.specs("raw_products", "rows_lie_in_the_day")] == ["rows_lie_in_the_day"]


@pytest.mark.parametrize("name", FAILING)
def test_evidence_tells_the_same_things_whether_a_check_passes_or_fails(name: str) -> None:
    assert {key: type(entry) for key, entry in PASSING[name].metadata.items()} == {
        key: type(entry) for key, entry in FAILING[name].metadata.items()
    }


@pytest.mark.parametrize(
    "name", ["most_images_are_usable", "most_labels_say_something", "label_distribution_is_steady"]
)
def test_what_is_only_unlikely_is_a_warning(name: str) -> None:
    assert FAILING[name].severity is dg.AssetCheckSeverity.WARN


def test_the_sample_of_ids_is_capped() -> None:
    result = checks.holds_every_product("milvus_holds_every_labeled_product", [str(n) for n in range(500)], set())
    assert value(result, "offending_rows") == 500
    assert len(value(result, "sample_ids")) == checks.SAMPLE_IDS


def test_a_table_keeps_its_schema_through_a_file(tmp_path: Path) -> None:
    path = UPath(tmp_path / "day.parquet")
    write_table(path, embedded(*THREE))
    assert checks.columns_match_schema(read_table(path), checks.embedded_schema(8)).passed


def test_missing_extra_and_differing_columns_are_told_apart() -> None:
    declared = pa.schema([pa.field("a", pa.string(), nullable=False), ("b", pa.int64()), ("c", pa.list_(pa.string()))])
    table = pa.table({"a": ["x"], "b": [1.5], "d": [1], "c": [["x"]]})
    result = checks.columns_match_schema(table, declared)
    assert value(result, "missing_columns") == []
    assert value(result, "extra_columns") == ["d"]
    assert value(result, "differing_columns") == {
        "a": "string, declared string not null",
        "b": "double, declared int64",
    }
    assert value(checks.columns_match_schema(table.drop_columns(["c"]), declared), "missing_columns") == ["c"]


def test_a_column_that_stands_twice_is_extra() -> None:
    table = pa.Table.from_arrays([pa.array(["x"]), pa.array(["y"])], names=["a", "a"])
    assert value(checks.columns_match_schema(table, pa.schema([("a", pa.string())])), "extra_columns") == ["a"]


def test_vectors_of_another_dimension_are_found_by_the_schema_and_by_the_embedder() -> None:
    result = checks.columns_match_schema(embedded(*THREE), checks.embedded_schema(16))
    assert value(result, "sample_columns") == BOTH_VECTORS
    identity = type(IDENTITY)(IDENTITY.name, IDENTITY.revision, IDENTITY.preprocessing_version, 16)
    assert value(model_checks.vectors_fit_the_embedder(embedded(*THREE), BOTH_VECTORS, identity), "dimensions") == {
        IMAGE_VECTOR: 8,
        DESCRIPTION_VECTOR: 8,
    }


@pytest.mark.parametrize(
    ("failures", "rows_in", "hard_limit", "passed", "severity"),
    [
        (8, 10, 0.8, False, dg.AssetCheckSeverity.WARN),
        (9, 10, 0.8, False, dg.AssetCheckSeverity.ERROR),
        (9, 9, 0.8, False, dg.AssetCheckSeverity.WARN),
        (100, 100, 1.0, False, dg.AssetCheckSeverity.WARN),
        (2, 10, 0.1, False, dg.AssetCheckSeverity.ERROR),
        (1, 10, 0.1, True, dg.AssetCheckSeverity.WARN),
        (0, 0, 0.1, True, dg.AssetCheckSeverity.WARN),
    ],
)
def test_too_many_quarantined_rows_warn_and_far_too_many_fail(
    failures: int, rows_in: int, hard_limit: float, passed: bool, severity: dg.AssetCheckSeverity
) -> None:
    result = checks.quarantined_share_is_low("most_images_are_usable", error(failures), rows_in, hard_limit)
    assert (result.passed, result.severity) == (passed, severity)
    assert value(result, "failure_above_share") == hard_limit
    assert value(result, "warning_above_share") == checks.QUARANTINE_WARN_SHARE


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, True),
        ({"color_aesthetic": ["Black"], "design_style": ["Graphic"], "message_type": ["No message"]}, True),
        ({"product_type": ["Mug"]}, False),
        ({"main_subject": "a cat"}, False),
        ({"text": "Mom"}, False),
        ({"occasion": ["Christmas"]}, False),
    ],
)
def test_a_label_is_a_fallback_when_nothing_was_recognised(changes: dict[str, object], expected: bool) -> None:
    assert is_fallback_label(EMPTY_LABEL | changes) is expected


def test_mended_replies_are_counted() -> None:
    result = model_checks.most_labels_say_something(labels({}, {"parse_step": "repaired"}))
    assert (result.passed, value(result, "labels_repaired")) == (True, 1)


@pytest.mark.parametrize("field", DRIFT_FIELDS)
def test_a_day_without_enough_history_is_not_judged_and_says_so(field: str) -> None:
    day = labels(*[{field: ["Something new"]}] * 50)
    result = model_checks.label_distribution_is_steady(day, day.slice(0, 0))
    assert result.passed
    assert "history" in value(result, "not_compared") or "distinct images" in value(result, "not_compared")


def test_contradictions_are_listed_also_where_they_are_few() -> None:
    (listed,) = value(PASSING["labels_agree_with_titles"], "contradictions")
    assert (listed["id_sanpham"], listed["title"]) == ("49", "Navy Hoodie")
    assert "navy" in listed["contradictions"][0]


@pytest.mark.parametrize("length", [float("nan"), float("inf"), 0.5])
def test_a_vector_that_is_not_finite_or_not_of_length_one_is_found(length: float) -> None:
    assert not checks.vectors_are_unit_length(vectors(length), [IMAGE_VECTOR]).passed


def test_equal_pictures_may_have_equal_vectors() -> None:
    sha = hashlib.sha256(b"shared").hexdigest()
    shared = [product(name, image_sha256=sha, description="the same") for name in ("a", "b")]
    assert model_checks.vectors_differ(embedded(*shared)).passed
    assert model_checks.vectors_differ(embedded(*THREE).slice(0, 0)).passed


def test_products_without_image_vector_do_not_pass_for_different_ones() -> None:
    alike = [product(name, has_image_vector=name != "d") for name in ("a", "b", "c", "d")]
    result = model_checks.vectors_differ(embedded(*alike, seeds=["same"] * 4))
    assert IMAGE_VECTOR in value(result, "sample_columns")


@pytest.mark.parametrize(
    ("held", "options", "expected"),
    [
        ({"a": stored()}, {}, {"missing": ["b"]}),
        ({"a": stored(), "b": stored(record_hash="old")}, {}, {"differing": ["b"]}),
        ({"a": stored(), "b": stored(MONDAY - dt.timedelta(days=1))}, {}, {"differing": ["b"]}),
        ({"a": stored(), "b": stored(TUESDAY, "other")}, {}, {}),
        ({"a": stored(), "b": stored()}, {"for_the_day": ["a", "b", "c"]}, {"surplus": ["c"]}),
        ({"a": stored(), "b": stored()}, {"for_the_day": ["a", "b", "c"], "waiting": ["c"]}, {}),
        ({"a": stored(), "b": stored()}, {"for_the_day": ["a", "b", "c"], "is_partial": True}, {}),
    ],
)
def test_milvus_is_compared_in_both_directions_by_id_and_content(
    held: dict[str, StoredProduct], options: dict[str, Any], expected: dict[str, list[str]]
) -> None:
    result = milvus(held, **options)
    assert result.passed == (not expected)
    for kind in ("missing", "differing", "surplus"):
        assert value(result, f"{kind}_ids") == expected.get(kind, [])


def test_a_product_that_a_newer_day_holds_is_not_searched_for() -> None:
    result = searches(embedded(*THREE), search_among(*THREE[1:]), a=stored(TUESDAY))
    assert (result.passed, value(result, "searches")) == (True, 2)


def test_products_with_equal_pictures_tie_and_are_found() -> None:
    twins = [product(name, image_sha256="same") for name in ("a", "b", "c")]
    assert searches(embedded(*twins), search_among(*twins)).passed


def test_more_twins_than_hits_leave_a_search_undecided() -> None:
    twins = [product(f"p{number:03}", image_sha256="same") for number in range(store_checks.SEARCH_HITS + 5)]
    result = searches(embedded(*twins), search_among(*twins))
    assert result.passed
    assert value(result, "searches_undecided") > 0


@pytest.mark.parametrize("score", [0.5, None])
def test_a_product_that_is_far_behind_the_first_is_lost(score: float | None) -> None:
    result = searches(embedded(THREE[0]), lambda _: [FoundProduct("b", 1.0), FoundProduct("a", score)])
    assert value(result, "sample_ids") == ["a"]


def test_a_search_that_finds_nothing_loses_the_product() -> None:
    assert not searches(embedded(THREE[0]), lambda _: []).passed


def test_the_same_twenty_products_are_searched_for_each_time() -> None:
    many = [product(f"p{number}") for number in range(60)]
    asked: list[list[bytes]] = [[], []]
    for round_, rows in enumerate((many, many[::-1])):
        searches(embedded(*rows), lambda wanted: asked[round_].append(wanted.tobytes()) or [])  # noqa: B023 - at once
    assert asked[0] == asked[1]
    assert len(asked[0]) == store_checks.SAMPLE_SEARCHES


def test_a_day_without_products_needs_no_search() -> None:
    assert searches(embedded(*THREE).slice(0, 0), lambda _: []).passed


def test_the_checks_of_milvus_hold_on_a_real_collection(milvus_uri: str) -> None:
    """And they find a product that is gone, one that changed, and one that should not be there."""
    rows = [product(f"p{number}") for number in range(30)]
    table = embedded(*rows)
    hashes = {row.id_sanpham: row.record_hash for row in rows}

    def found(store: MilvusStore) -> list[dg.AssetCheckResult]:
        held = store.existing(list(hashes))
        return [
            store_checks.milvus_holds_every_labeled_product(MONDAY, hashes, held, store.of_day(MONDAY)),
            store_checks.stored_vectors_find_their_product(
                MONDAY,
                table,
                held,
                lambda sample: store.search_each(sample, IMAGE_VECTOR, store_checks.SEARCH_HITS, consistency="Strong"),
            ),
        ]

    with temporary_store(milvus_uri) as store:
        store.sync_day(MONDAY, milvus_records(table), find_elsewhere=lambda _: [])
        assert [result.passed for result in found(store)] == [True, True]
        assert value(found(store)[1], "searches") == store_checks.SAMPLE_SEARCHES
        moved = product("p1", image_sha256="another picture")
        changed = embedded(*rows[2:], moved, product("stranger"))
        store.sync_day(MONDAY, milvus_records(changed), find_elsewhere=lambda _: [])
        holds, finds = found(store)
        assert value(holds, "missing_ids") == ["p0"]
        assert value(holds, "differing_ids") == ["p1"]
        assert value(holds, "surplus_ids") == ["stranger"]
        assert set(value(finds, "sample_ids")) <= {"p1"}


@pytest.mark.parametrize(
    ("data_label", "milvus_rows", "excused", "offenders"),
    [
        ({"a": "x", "b": "y"}, {"a": "x"}, [], ["b"]),
        ({"a": "x"}, {"a": "x", "b": "y"}, [], ["b"]),
        ({"a": "x", "b": "y"}, {"a": "x"}, ["b"], []),
        ({}, {}, [], []),
    ],
)
def test_data_label_and_milvus_are_compared_in_both_directions(
    data_label: dict[str, str], milvus_rows: dict[str, str], excused: list[str], offenders: list[str]
) -> None:
    result = store_checks.data_label_equals_milvus(data_label, milvus_rows, excused)
    assert value(result, "sample_ids") == offenders


def test_a_missing_or_failed_day_names_its_asset_and_the_command_that_recovers_it() -> None:
    left = [*DAYS[2:4], DAYS[6]]
    result = day_checks.no_partitions_left_failed("qwen_labels", DAYS, [*left[::-1], dt.date(1999, 1, 1)])
    assert result.asset_key == dg.AssetKey("qwen_labels")
    assert value(result, "sample_days") == [str(day) for day in left]
    assert value(result, "failed_days_outside_the_partitions") == 1
    recovery = value(result, "recovery")
    assert f"labeling backfill --start {DAYS[2]} --end {DAYS[3]}" in recovery
    assert f"labeling backfill --start {DAYS[6]} --end {DAYS[6]}" in recovery


def test_many_failed_ranges_are_capped_but_counted() -> None:
    days = [DAY + dt.timedelta(days=2 * number) for number in range(15)]
    result = day_checks.no_partitions_left_failed("qwen_labels", days, days)
    assert value(result, "recovery").count("labeling backfill") == day_checks.SAMPLE_RANGES
    assert "5 more ranges" in value(result, "recovery")


@pytest.mark.parametrize(
    ("known", "done", "is_due", "passed"),
    [([], [], True, True), (DAYS, [], True, False), (DAYS, [], False, True), (DAYS, DAYS, True, True)],
)
def test_yesterday_is_missed_only_when_it_is_over_and_due(
    known: list[dt.date], done: list[dt.date], is_due: bool, passed: bool
) -> None:
    assert day_checks.yesterday_is_present("data_label", known, done, is_due=is_due).passed is passed
