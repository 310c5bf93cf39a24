"""The source table, `data_label`, migrations and locks on a real PostgreSQL."""

from __future__ import annotations

import datetime as dt
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa

from labeling_assets.errors import ConfigurationError, ServiceUnavailableError
from labeling_assets.products.queries import SOURCE_COLUMNS
from labeling_assets.services.postgres import (
    DataLabelCounts,
    ProductDatabase,
    advisory_lock,
    create_engine,
    migrate,
    normalised_url,
)
from labeling_assets.services.tables import SCHEMA, metadata

ZONE = ZoneInfo("Asia/Ho_Chi_Minh")
DAY = dt.date(2026, 3, 14)
MIDNIGHT = dt.datetime.combine(DAY, dt.time(), ZONE)
SECOND = dt.timedelta(seconds=1)


def source_table(engine: sa.Engine, rows: list[dict[str, Any]], published_type: str = "timestamptz") -> None:
    columns = ", ".join(f"{name} {kind}" for name, kind in (SOURCE_COLUMNS | {"published_at": published_type}).items())
    with engine.begin() as connection:
        connection.execute(sa.text("create schema ai_craw"))
        connection.execute(sa.text(f"create table ai_craw.product_marketing_summary ({columns})"))
        for row in rows:
            names = ", ".join(row)
            values = ", ".join(f":{name}" for name in row)
            connection.execute(
                sa.text(f"insert into ai_craw.product_marketing_summary ({names}) values ({values})"), row
            )


def database(engine: sa.Engine) -> ProductDatabase:
    return ProductDatabase(engine, "ai_craw.product_marketing_summary", ZONE)


def crawled_ids(engine: sa.Engine, limit: int | None = None) -> list[str]:
    source = database(engine)
    with source.snapshot() as snapshot:
        return [row["product_id"] for chunk in source.crawl_day(snapshot, DAY, limit) for row in chunk]


def row(product_id: str, published_at: dt.datetime, image: str | None = "http://host/a.jpg") -> dict[str, Any]:
    return {"product_id": product_id, "published_at": published_at, "image": image}


def test_a_day_is_half_open_in_the_business_time_zone(engine: sa.Engine) -> None:
    source_table(
        engine,
        [
            row("before", MIDNIGHT - SECOND),
            row("first", MIDNIGHT),
            row("last", MIDNIGHT + dt.timedelta(days=1) - SECOND),
            row("after", MIDNIGHT + dt.timedelta(days=1)),
        ],
    )
    assert crawled_ids(engine) == ["last", "first"]


def test_a_source_column_without_time_zone_is_read_in_the_business_time_zone(engine: sa.Engine) -> None:
    naive = MIDNIGHT.replace(tzinfo=None)
    source_table(engine, [row("before", naive - SECOND), row("first", naive)], published_type="timestamp")
    source = database(engine)
    with source.snapshot() as snapshot:
        (chunk,) = source.crawl_day(snapshot, DAY)
    assert [each["product_id"] for each in chunk] == ["first"]
    assert chunk[0]["published_at"] == MIDNIGHT


@pytest.mark.parametrize("image", [None, "", "  ", "\t\n"])
def test_rows_without_an_image_are_left_out_and_counted(engine: sa.Engine, image: str | None) -> None:
    source_table(engine, [row("with", MIDNIGHT), row("without", MIDNIGHT, image)])
    assert crawled_ids(engine) == ["with"]
    source = database(engine)
    with source.snapshot() as snapshot:
        assert source.rows_without_image(snapshot, DAY) == 1


def test_a_snapshot_sees_no_row_that_comes_later(engine: sa.Engine) -> None:
    source_table(engine, [row("there", MIDNIGHT)])
    source = database(engine)
    with source.snapshot() as snapshot:
        assert source.rows_without_image(snapshot, DAY) == 0
        with engine.begin() as other:
            other.execute(sa.text("update ai_craw.product_marketing_summary set image = null"))
        assert source.rows_without_image(snapshot, DAY) == 0
        assert [len(chunk) for chunk in source.crawl_day(snapshot, DAY)] == [1]


def test_a_limit_takes_the_newest_rows(engine: sa.Engine) -> None:
    source_table(engine, [row(str(hour), MIDNIGHT + dt.timedelta(hours=hour)) for hour in range(10)])
    assert crawled_ids(engine, limit=3) == ["9", "8", "7"]


def test_a_missing_source_table_is_a_configuration_error(engine: sa.Engine) -> None:
    with pytest.raises(ConfigurationError, match="does not exist"):
        crawled_ids(engine)


def test_a_server_that_does_not_answer_is_unavailable_and_its_password_stays_secret() -> None:
    engine = create_engine("postgresql://user:hunter2@127.0.0.1:1/labeling")
    source = ProductDatabase(engine, "ai_craw.product_marketing_summary", ZONE)
    with pytest.raises(ServiceUnavailableError) as caught, source.snapshot():
        pass
    assert "hunter2" not in str(caught.value)


def test_a_refused_login_is_a_configuration_error(postgres_url: str) -> None:
    wrong = sa.make_url(postgres_url).set(password="wrong")
    with pytest.raises(ConfigurationError, match="authentication failed"):
        migrate(create_engine(wrong.render_as_string(hide_password=False)))


@pytest.mark.parametrize("url", ["postgres://h/d", "postgresql://h/d", "postgresql+psycopg://h/d"])
def test_every_spelling_of_a_url_gets_the_same_driver(url: str) -> None:
    assert normalised_url(url).drivername == "postgresql+psycopg2"


@pytest.mark.parametrize(
    "url",
    ["mysql://user:hunter2@h/d", "hunter2", "", "postgresql://u:abc@hunter2@h/d", "postgresql://u:hunter2@h:port/d"],
)
def test_a_url_of_something_else_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        normalised_url(url)
    assert "hunter2" not in str(caught.value)


def test_migrations_make_the_tables_that_the_code_describes(postgres_url: str) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    options = {
        "include_schemas": True,
        "version_table_schema": SCHEMA,
        "include_name": lambda name, kind, _parents: kind != "schema" or name == SCHEMA,
    }
    # User and schema share a name here, so the schema would be the default one, which Alembic calls None.
    engine = sa.create_engine(postgres_url, connect_args={"options": "-csearch_path=public"})
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, metadata) == []
    engine.dispose()


def test_several_processes_may_migrate_at_once(engine: sa.Engine) -> None:
    with engine.begin() as connection:
        connection.execute(sa.text("drop schema labeling cascade"))
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: migrate(engine), range(4)))
    assert sa.inspect(engine).has_table("quarantine", schema="labeling")


def test_an_advisory_lock_lets_one_in_at_a_time(engine: sa.Engine) -> None:
    inside, most = 0, 0
    guard = threading.Lock()

    def enter(_: int) -> None:
        nonlocal inside, most
        with advisory_lock(engine, "writer"):
            with guard:
                inside += 1
                most = max(most, inside)
            with guard:
                inside -= 1

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(enter, range(40)))
    assert most == 1


def label(id_sanpham: str, day: dt.date = DAY, description: str = "text") -> dict[str, Any]:
    return {
        "id_sanpham": id_sanpham,
        "description": description,
        "date_created": day,
        "platform": "Website",
        "name_store": "unknown",
    }


def data_label_rows(engine: sa.Engine) -> dict[str, tuple[str, dt.date]]:
    with engine.connect() as connection:
        rows = connection.execute(sa.text("select id_sanpham, description, date_created from ai_craw.data_label"))
        return {each[0]: (each[1], each[2]) for each in rows}


def sync(engine: sa.Engine, day: dt.date, rows: list[dict[str, Any]], restored: Any = ()) -> DataLabelCounts:
    products = database(engine)
    leaving = products.data_label_ids_leaving(day, [each["id_sanpham"] for each in rows])
    return products.sync_data_label(day, rows, restored, leaving)


def test_data_label_equals_the_day(engine: sa.Engine) -> None:
    assert sync(engine, DAY, [label("a"), label("b")]) == DataLabelCounts(written=2, unchanged=0, removed=0)
    assert sync(engine, DAY, [label("a"), label("b")]) == DataLabelCounts(written=0, unchanged=2, removed=0)
    changed = sync(engine, DAY, [label("a", description="new")])
    assert changed == DataLabelCounts(written=1, unchanged=0, removed=1)
    assert data_label_rows(engine) == {"a": ("new", DAY)}


def test_an_older_day_leaves_a_product_to_the_newer_one(engine: sa.Engine) -> None:
    older = DAY - dt.timedelta(days=1)
    sync(engine, DAY, [label("a", description="newer")])
    sync(engine, older, [label("a", older, "older")])
    assert data_label_rows(engine) == {"a": ("newer", DAY)}


def test_a_product_that_left_a_day_returns_to_the_older_day_that_has_it(engine: sa.Engine) -> None:
    older = DAY - dt.timedelta(days=1)
    sync(engine, DAY, [label("a"), label("b")])
    assert database(engine).data_label_ids_leaving(DAY, ["b"]) == ["a"]
    sync(engine, DAY, [label("b")], restored=[label("a", older)])
    assert data_label_rows(engine) == {"a": ("text", older), "b": ("text", DAY)}
    assert database(engine).data_label_ids(["a", "c"]) == {"a"}


def test_an_empty_day_removes_all_its_rows(engine: sa.Engine) -> None:
    sync(engine, DAY, [label("a")])
    assert sync(engine, DAY, []).removed == 1
    assert data_label_rows(engine) == {}
