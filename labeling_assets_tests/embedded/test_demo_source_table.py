"""The demo's rows in a real PostgreSQL."""

from __future__ import annotations

import datetime as dt
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa

from labeling_assets.embedded.demo.catalogue import build_catalogue
from labeling_assets.embedded.demo.contents import LINK_PREFIX, Catalogue
from labeling_assets.embedded.demo.source_table import load_catalogue_rows

BASE_URL = "http://127.0.0.1:8081"
TABLE = "ai_craw.product_marketing_summary"


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return build_catalogue(days=2, products_per_day=5, last_day=dt.date(2025, 11, 20))


def _rows(engine: sa.Engine, table: str = TABLE) -> list[dict[str, Any]]:
    with engine.connect() as connection:
        return [dict(row) for row in connection.execute(sa.text(f"select * from {table}")).mappings()]


def test_the_table_is_made_with_the_columns_of_the_source(engine: sa.Engine, catalogue: Catalogue) -> None:
    assert load_catalogue_rows(engine, catalogue, BASE_URL) == len(catalogue.rows)
    inspector = sa.inspect(engine)
    columns = {
        column["name"]: str(column["type"])
        for column in inspector.get_columns("product_marketing_summary", schema="ai_craw")
    }
    counters = dict.fromkeys(("clicks", "unique_clicks", "unique_atc", "impression", "reach", "quantity"), "BIGINT")
    texts = dict.fromkeys(("product_id", "image", "title", "store", "gp_code", "link"), "TEXT")
    assert columns == texts | counters | {"published_at": "TIMESTAMP", "spend": "NUMERIC(12, 2)"}
    assert any(
        index["column_names"] == ["published_at"]
        for index in inspector.get_indexes("product_marketing_summary", schema="ai_craw")
    )


def test_every_value_comes_back_unharmed(engine: sa.Engine, catalogue: Catalogue) -> None:
    load_catalogue_rows(engine, catalogue, BASE_URL + "/")
    found = {row["link"]: row for row in _rows(engine)}
    for row in catalogue.rows:
        stored = found[row.link]
        for column in ("product_id", "published_at", "title", "store", "gp_code", "spend", "clicks", "impression"):
            assert stored[column] == getattr(row, column), column
        if row.image in catalogue.images:
            assert stored["image"] == f"{BASE_URL}/{row.image}"
        else:
            assert stored["image"] == row.image


def test_loading_again_restores_edited_moved_and_deleted_rows(engine: sa.Engine, catalogue: Catalogue) -> None:
    load_catalogue_rows(engine, catalogue, BASE_URL)
    whole = sorted(_rows(engine), key=repr)
    with engine.begin() as connection:
        connection.execute(sa.text(f"update {TABLE} set title = 'edited', published_at = now() where clicks > 50"))
        connection.execute(sa.text(f"delete from {TABLE} where clicks < 50"))
    load_catalogue_rows(engine, catalogue, BASE_URL)
    assert sorted(_rows(engine), key=repr) == whole


@pytest.mark.parametrize("link", [None, "", "https://shop.example/p/1", f"see {LINK_PREFIX}", LINK_PREFIX.upper()])
def test_rows_of_others_are_never_touched(engine: sa.Engine, catalogue: Catalogue, link: str | None) -> None:
    load_catalogue_rows(engine, catalogue, BASE_URL)
    with engine.begin() as connection:
        foreign = sa.text(f"insert into {TABLE} (product_id, title, link) values ('1', 'foreign', :link)")
        connection.execute(foreign, {"link": link})
    load_catalogue_rows(engine, catalogue, BASE_URL)
    assert [row["link"] for row in _rows(engine) if row["title"] == "foreign"] == [link]


def test_a_table_that_exists_keeps_its_shape(engine: sa.Engine, catalogue: Catalogue) -> None:
    with engine.begin() as connection:
        connection.execute(sa.text("create schema ai_craw"))
        connection.execute(
            sa.text(
                f"create table {TABLE} (id bigserial, product_id text, image text, published_at timestamptz,"
                " title text, store text, gp_code text, link text, spend double precision, clicks int,"
                " unique_clicks int, unique_atc int, impression int, reach int, quantity int,"
                " extra text default 'kept')"
            )
        )
    load_catalogue_rows(engine, catalogue, BASE_URL)
    assert {row["extra"] for row in _rows(engine)} == {"kept"}
    assert not sa.inspect(engine).get_indexes("product_marketing_summary", schema="ai_craw")


def test_names_are_quoted(engine: sa.Engine, catalogue: Catalogue) -> None:
    with engine.begin() as connection:
        connection.execute(sa.text('drop schema if exists "Odd schema" cascade'))
    load_catalogue_rows(engine, catalogue, BASE_URL, 'Odd schema.table"; drop')
    assert len(_rows(engine, '"Odd schema"."table""; drop"')) == len(catalogue.rows)
    with engine.begin() as connection:
        connection.execute(sa.text('drop schema "Odd schema" cascade'))


def test_two_loads_at_once_leave_each_row_once(engine: sa.Engine, catalogue: Catalogue) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: load_catalogue_rows(engine, catalogue, BASE_URL), range(4)))
    assert len(_rows(engine)) == len(catalogue.rows)


def test_a_failed_load_changes_nothing(engine: sa.Engine, catalogue: Catalogue) -> None:
    load_catalogue_rows(engine, catalogue, BASE_URL)
    with engine.begin() as connection:
        connection.execute(
            sa.text(f"alter table {TABLE} add constraint few check (clicks is null or clicks < 0) not valid")
        )
    with pytest.raises(sa.exc.IntegrityError):
        load_catalogue_rows(engine, catalogue, BASE_URL)
    assert len(_rows(engine)) == len(catalogue.rows)
