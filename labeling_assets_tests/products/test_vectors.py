"""The last record of a product: vectors as Arrow columns, the record's hash and its form in Milvus."""

from __future__ import annotations

import datetime as dt
import io
import json
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labeling_assets.errors import InvalidRowError, VectorError
from labeling_assets.products.records import LABEL_LISTS, EmbeddedProduct, from_table, to_table
from labeling_assets.products.vectors import (
    DESCRIPTION_VECTOR,
    IMAGE_VECTOR,
    MAX_ID_BYTES,
    MAX_ITEM_BYTES,
    MAX_LIST_ITEMS,
    MAX_TEXT_BYTES,
    MAX_TITLE_BYTES,
    milvus_record,
    milvus_records,
    record_hash,
    vector_matrix,
    with_vectors,
)

DIMENSION = 16
EMBEDDER = "embedded-hash-v1@1/1/16"


def product(**changes: Any) -> EmbeddedProduct:
    annotations = {name: info.annotation for name, info in EmbeddedProduct.model_fields.items()}
    values: dict[str, Any] = {name: [] for name in LABEL_LISTS}
    for name, annotation in annotations.items():
        if name not in values:
            values[name] = {str: "x", int: 1, float: 1.5, bool: True}.get(annotation)
    values |= {
        "id_sanpham": "P1",
        "published_at": dt.datetime(2026, 3, 2, 12, 30, 15, 999_999, dt.UTC),
        "date": dt.date(2026, 3, 2),
        "status": "new",
        "trademark_level": "No TM",
        "embedder": EMBEDDER,
        "image_sha256": "a" * 64,
        "title": "x",
        "spend": 1.5,
    }
    return EmbeddedProduct(**values | changes)


def unit_vectors(rows: int, seed: int = 0) -> np.ndarray:
    numbers = np.random.default_rng(seed).standard_normal((rows, DIMENSION)).astype(np.float32)
    return numbers / np.linalg.norm(numbers, axis=1, keepdims=True)


def table_of(rows: int, **changes: Any) -> pa.Table:
    return to_table([product(id_sanpham=f"P{number}", **changes) for number in range(rows)], EmbeddedProduct)


def digest(row: EmbeddedProduct, embedder: str = EMBEDDER, *, has_image_vector: bool = True) -> str:
    return record_hash(row, embedder, has_image_vector=has_image_vector)


def test_another_version_of_the_text_is_another_record(monkeypatch: pytest.MonkeyPatch) -> None:
    before = digest(product())
    monkeypatch.setattr("labeling_assets.products.vectors.EMBEDDING_TEXT_VERSION", "another")
    assert digest(product()) != before


@given(rows=st.integers(0, 40), offset=st.integers(0, 40), length=st.integers(0, 40))
def test_vectors_pass_through_arrow_unchanged_whole_and_in_slices(rows: int, offset: int, length: int) -> None:
    images, descriptions = unit_vectors(rows, 1), unit_vectors(rows, 2)
    table = with_vectors(table_of(rows), images, descriptions)
    np.testing.assert_array_equal(vector_matrix(table, IMAGE_VECTOR), images)
    part = table.slice(offset, length)
    np.testing.assert_array_equal(vector_matrix(part, DESCRIPTION_VECTOR), descriptions[offset : offset + length])


def test_a_file_of_a_release_without_costs_is_read() -> None:
    table = table_of(2).drop_columns(["label_cost"])
    assert [row.label_cost for row in from_table(table, EmbeddedProduct)] == [0.0, 0.0]
    vectors = unit_vectors(2)
    assert len(next(milvus_records(with_vectors(table, vectors, vectors)))) == 2


def test_a_file_without_a_column_that_every_release_has_is_not_read() -> None:
    with pytest.raises(KeyError, match="text"):
        list(from_table(table_of(2).drop_columns(["text"]), EmbeddedProduct))


def test_vectors_survive_parquet_in_row_groups() -> None:
    images, descriptions = unit_vectors(70, 1), unit_vectors(70, 2)
    file = io.BytesIO()
    pq.write_table(with_vectors(table_of(70), images, descriptions), file, row_group_size=20)
    table = pq.read_table(file)
    assert table.schema.field(IMAGE_VECTOR).type == pa.list_(pa.float32(), DIMENSION)
    np.testing.assert_array_equal(vector_matrix(table, IMAGE_VECTOR), images)
    np.testing.assert_array_equal(vector_matrix(table, DESCRIPTION_VECTOR), descriptions)


def test_the_matrix_of_a_column_shares_its_memory() -> None:
    column = with_vectors(table_of(5), unit_vectors(5), unit_vectors(5)).column(IMAGE_VECTOR)
    matrix = vector_matrix(pa.table({IMAGE_VECTOR: column}), IMAGE_VECTOR)
    assert matrix.dtype == np.float32
    assert matrix.base is not None
    assert matrix.__array_interface__["data"][0] == column.chunk(0).flatten().buffers()[1].address


@pytest.mark.parametrize("fault", [np.nan, np.inf, 0.0, 2.0])
@pytest.mark.parametrize("faulty", [0, 1])
def test_a_vector_that_is_not_of_unit_length_is_refused_by_name(fault: float, faulty: int) -> None:
    vectors = [unit_vectors(3), unit_vectors(3)]
    vectors[faulty][1] *= fault
    with pytest.raises(VectorError, match="'P1'"):
        with_vectors(table_of(3), *vectors)


def test_a_product_without_image_vector_gets_a_unit_vector_in_its_place() -> None:
    images = np.zeros((2, DIMENSION), dtype=np.float32)
    table = with_vectors(table_of(2, has_image_vector=False), images, unit_vectors(2))
    np.testing.assert_array_equal(vector_matrix(table, IMAGE_VECTOR), np.eye(DIMENSION)[[0, 0]])
    assert not images.any()


def test_the_rows_of_a_table_become_rows_of_the_collection_in_batches() -> None:
    images, descriptions = unit_vectors(1203, 1), unit_vectors(1203, 2)
    table = with_vectors(table_of(1203), images, descriptions)
    batches = list(milvus_records(table))
    assert max(map(len, batches)) <= 500
    records = [record for batch in batches for record in batch]
    assert [record["id_sanpham"] for record in records] == table["id_sanpham"].to_pylist()
    np.testing.assert_array_equal(np.stack([record[IMAGE_VECTOR] for record in records]), images)
    np.testing.assert_array_equal(np.stack([record[DESCRIPTION_VECTOR] for record in records]), descriptions)


def test_a_damaged_vector_in_a_file_is_refused_before_it_reaches_milvus() -> None:
    table = with_vectors(table_of(2), unit_vectors(2), unit_vectors(2))
    damaged = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(2 * DIMENSION, np.float32)), DIMENSION)
    position = table.schema.get_field_index(IMAGE_VECTOR)
    table = table.set_column(position, table.schema.field(position), damaged)
    with pytest.raises(VectorError, match="length 0"):
        list(milvus_records(table))


def test_a_record_has_the_form_of_the_collection() -> None:
    row = product(spend=None, quantity=2, occasion=["Tết"], title=None)
    record = milvus_record(row, *unit_vectors(2))
    assert record["date"] == "2026-03-02"
    assert record["published_at"] == 1_772_454_615_999
    assert (record["spend"], record["quantity"], record["title"], record["occasion"]) == (None, 2, None, ["Tết"])
    assert record["metadata"]["embedder"] == EMBEDDER
    assert record["metadata"]["published_at"] == "2026-03-02T12:30:15.999999+00:00"
    json.dumps(record["metadata"])


def test_the_hash_is_the_same_after_parquet_and_in_every_run() -> None:
    row = product(
        published_at=dt.datetime(2026, 3, 2, 19, 30, tzinfo=dt.timezone(dt.timedelta(hours=7))), spend=0.1 + 0.2
    )
    file = io.BytesIO()
    pq.write_table(to_table([row], EmbeddedProduct), file)
    again = next(from_table(pq.read_table(file), EmbeddedProduct))
    assert digest(again) == digest(row)


def test_a_file_of_a_release_without_shared_labels_is_read_and_one_without_a_needed_column_is_not() -> None:
    table = to_table([product(label_shared_from="b" * 64)], EmbeddedProduct)
    assert next(from_table(table, EmbeddedProduct)).label_shared_from == "b" * 64
    assert next(from_table(table.drop_columns("label_shared_from"), EmbeddedProduct)).label_shared_from is None
    with pytest.raises(KeyError, match="title"):
        next(from_table(table.drop_columns("title"), EmbeddedProduct))


@pytest.mark.parametrize(
    "changes",
    [
        {"is_from_ledger": False},
        {"label_seconds": 99.0},
        {"label_cost": 99.0},
        {"prompt_tokens": 99},
        {"status": "unchanged"},
        {"duplicate_count": 9},
        {"label_shared_from": "b" * 64},
        {"record_hash": "y"},
    ],
)
def test_time_cost_and_cache_hits_do_not_change_the_hash(changes: dict[str, Any]) -> None:
    assert digest(product(**changes)) == digest(product())


@pytest.mark.parametrize(
    "changes",
    [
        {"title": "y"},
        {"title": None},
        {"spend": None},
        {"clicks": 7},
        {"occasion": ["a", "b"]},
        {"occasion": ["a, b"]},
        {"date": dt.date(2026, 3, 3)},
        {"image_sha256": "b" * 64},
        {"description": "y"},
        {"label_digest": "y"},
        {"row_hash": "y"},
    ],
)
def test_whatever_milvus_stores_changes_the_hash(changes: dict[str, Any]) -> None:
    assert digest(product(**changes)) != digest(product())


def test_another_embedder_or_a_missing_image_vector_changes_the_hash() -> None:
    hashes = {digest(product()), digest(product(), "other@1/1/16"), digest(product(), has_image_vector=False)}
    assert len(hashes) == 3


@pytest.mark.parametrize(
    ("field", "limit"),
    [
        ("id_sanpham", MAX_ID_BYTES),
        ("title", MAX_TITLE_BYTES),
        ("name_store", MAX_TITLE_BYTES),
        ("description", MAX_TEXT_BYTES),
        ("text", MAX_TEXT_BYTES),
    ],
)
def test_a_text_is_measured_in_bytes(field: str, limit: int) -> None:
    digest(product(**{field: "a" * limit}))
    for text in ("a" * (limit + 1), "ü" * (limit // 2) + "aa"):
        with pytest.raises(InvalidRowError, match=f"{field} has .* bytes; the limit is {limit}"):
            digest(product(**{field: text}))


@pytest.mark.parametrize("items", [["a" * (MAX_ITEM_BYTES + 1)], ["a"] * (MAX_LIST_ITEMS + 1)])
def test_a_label_list_over_its_limits_is_refused(items: list[str]) -> None:
    with pytest.raises(InvalidRowError, match="occasion"):
        digest(product(occasion=items))


def test_metadata_over_the_limit_of_json_is_refused() -> None:
    with pytest.raises(InvalidRowError, match="metadata"):
        digest(product(image_path="a" * 65_000, label_model="b" * 1_000))


def test_a_text_that_is_no_unicode_is_refused() -> None:
    with pytest.raises(InvalidRowError, match="no valid Unicode"):
        digest(product(text="\ud800"))
