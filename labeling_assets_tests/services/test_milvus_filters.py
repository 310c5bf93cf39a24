"""Filter expressions: every text that enters one comes out as itself."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from milvus_samples import MONDAY, record, store_of

from labeling_assets.errors import ConfigurationError
from labeling_assets.services.milvus.connection import MilvusConnection
from labeling_assets.services.milvus.filters import (
    MAX_EXPRESSION_CHARS,
    MAX_VALUES,
    all_of,
    any_of,
    in_batches,
    literal,
)
from labeling_assets.services.milvus.rows import ProductRows

SYNTAX = st.sampled_from(
    ['"', "'", "\\", "\n", "\r", "\t", "\b", "\f", "\0", "\x1f", "\u2028", "]", " or 1==1", "{x}", "%", "\\u0041"]
)
TEXTS = st.lists(SYNTAX | st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20).map("".join)


@pytest.fixture(scope="module")
def rows(milvus_uri: str) -> Iterator[ProductRows]:
    from pymilvus import MilvusClient

    store = store_of(milvus_uri)
    store.ensure()
    state = store.state()
    connection = MilvusConnection(milvus_uri)
    yield ProductRows(connection, state.alias)
    connection.close()
    store.close()
    client = MilvusClient(milvus_uri)
    client.drop_collection(state.physical_name)
    client.close()


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ids=st.lists(TEXTS, min_size=2, max_size=20, unique=True))
def test_generated_ids_are_found_and_removed_one_by_one(rows: ProductRows, ids: list[str]) -> None:
    rows.upsert([record(id_) for id_ in ids])
    assert set(rows.existing(ids)) == set(ids)
    assert set(rows.of_day(MONDAY)) == set(ids)
    for position, id_ in enumerate(ids):
        assert set(rows.existing([id_])) == {id_}
        rows.remove([id_])
        assert set(rows.existing(ids)) == set(ids[position + 1 :])


@given(value=TEXTS)
def test_a_literal_holds_no_line_break_and_ends_where_it_should(value: str) -> None:
    quoted = literal(value)
    assert not set("\r\n") & set(quoted)
    inner = quoted[1:-1].replace("\\\\", "")
    assert inner.count('"') == inner.count('\\"')
    assert not inner.endswith("\\")


def test_broken_bytes_of_a_command_line_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="no valid Unicode"):
        literal("\udcff")


def test_conditions_are_joined_and_empty_ones_left_out() -> None:
    assert all_of([]) == ""
    assert all_of(["", "a == 1"]) == "(a == 1)"
    assert all_of(["a == 1 or b == 2", "c == 3"]) == "(a == 1 or b == 2) and (c == 3)"
    assert any_of(["x", 'y"']) == '["x", "y\\""]'


def test_a_list_is_split_by_number_and_by_length() -> None:
    assert list(in_batches("id", [])) == []
    assert len(list(in_batches("id", map(str, range(2 * MAX_VALUES + 1))))) == 3
    long = list(in_batches("id", ["x" * 512] * MAX_VALUES))
    assert len(long) > 1
    assert all(len(expression) < MAX_EXPRESSION_CHARS + 100 for expression in long)
    assert sum(expression.count('"') for expression in long) == 2 * MAX_VALUES
