"""Fingerprints of the source's days on a real PostgreSQL with concurrent transactions."""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Callable, Iterator
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa
import tenacity
from hypothesis import given, settings
from hypothesis import strategies as st

from labeling_assets.errors import ConfigurationError, ServiceUnavailableError
from labeling_assets.products.detection import EMPTY_DAY, row_count
from labeling_assets.products.queries import SOURCE_COLUMNS
from labeling_assets.services import source_days as subject
from labeling_assets.services.postgres import ProductDatabase, create_engine
from labeling_assets.services.source_days import SourceDays

TABLE = "ai_craw.product_marketing_summary"
ZONE = ZoneInfo("Asia/Ho_Chi_Minh")
DAYS = [dt.date(2026, 3, 14) + dt.timedelta(days=number) for number in range(4)]
FIRST, SECOND = DAYS[0], DAYS[1]
Fingerprints = dict[dt.date, str]


def make_table(engine: sa.Engine, published_type: str = "timestamptz", tail: str = "") -> None:
    columns = ", ".join(f"{name} {kind}" for name, kind in (SOURCE_COLUMNS | {"published_at": published_type}).items())
    run(engine, "create schema if not exists ai_craw", f"drop table if exists {TABLE}")
    run(engine, f"create table {TABLE} ({columns}) {tail}")


def run(target: sa.Engine | sa.Connection, *statements: str) -> None:
    """Execute statements in one transaction of an engine, or in the open one of a connection."""
    with target.begin() if isinstance(target, sa.Engine) else contextlib.nullcontext(target) as connection:
        for statement in statements:
            connection.execute(sa.text(statement))


def at(day: dt.date, hour: int = 12) -> str:
    return f"'{dt.datetime.combine(day, dt.time(hour), ZONE).isoformat()}'"


def insertion(product_id: str, day: dt.date) -> str:
    return f"insert into {TABLE} (product_id, published_at, image) values ('{product_id}', {at(day)}, 'http://host/a')"


def edit(product_id: str) -> str:
    return f"update {TABLE} set title = coalesce(title, '') || '!' where product_id = '{product_id}'"


def deletion(product_id: str) -> str:
    return f"delete from {TABLE} where product_id = '{product_id}'"


def move(product_id: str, day: dt.date) -> str:
    return f"update {TABLE} set published_at = {at(day)} where product_id = '{product_id}'"


def fingerprints(engine: sa.Engine) -> Fingerprints:
    return SourceDays(engine, TABLE, ZONE).fingerprints(DAYS[0], DAYS[-1])


def differing(before: Fingerprints, after: Fingerprints) -> set[dt.date]:
    return {day for day in DAYS if before[day] != after[day]}


@pytest.fixture
def source(engine: sa.Engine) -> sa.Engine:
    """Three rows in each of the first two days, each written by a transaction of its own."""
    make_table(engine)
    for number, day in enumerate(DAYS[:2]):
        for name in "abc":
            run(engine, insertion(f"{name}{number}", day))
    return engine


@pytest.fixture
def old(source: sa.Engine) -> Iterator[sa.Connection]:
    """A connection in a transaction that is older than all that the test does after it."""
    with source.connect() as connection, connection.begin():
        connection.execute(sa.text("select pg_current_xact_id()"))
        yield connection


def test_every_day_has_a_fingerprint_and_one_without_rows_is_zero(source: sa.Engine) -> None:
    found = fingerprints(source)
    assert list(found) == DAYS
    assert [row_count(fingerprint) for fingerprint in found.values()] == [3, 3, 0, 0]
    assert [found[day] for day in DAYS[2:]] == [EMPTY_DAY, EMPTY_DAY]
    assert found[FIRST] != found[SECOND]


def test_no_days_are_no_fingerprints(source: sa.Engine) -> None:
    assert SourceDays(source, TABLE, ZONE).fingerprints(SECOND, FIRST) == {}


@pytest.mark.parametrize(
    ("writes", "changed"),
    [
        ([insertion("d", FIRST)], {FIRST}),
        ([edit("a0")], {FIRST}),
        ([edit("a0"), edit("a0")], {FIRST}),
        ([deletion("a1")], {SECOND}),
        ([deletion("a0"), insertion("a0", FIRST)], {FIRST}),
        ([insertion("d", DAYS[3])], {DAYS[3]}),
        ([move("a0", SECOND)], {FIRST, SECOND}),
        ([move("a0", SECOND), move("a1", FIRST)], {FIRST, SECOND}),
        ([move("a0", DAYS[2]), move("a0", FIRST)], {FIRST}),
        ([move("a0", dt.date(2020, 1, 1))], {FIRST}),
        ([f"update {TABLE} set published_at = null where product_id = 'a0'"], {FIRST}),
        ([f"update {TABLE} set image = null where product_id = 'a0'"], {FIRST}),
        (["savepoint s", edit("a0"), "release savepoint s", edit("a1")], {FIRST, SECOND}),
        (["savepoint s", edit("a0"), "rollback to savepoint s", edit("a1")], {SECOND}),
        ([f"delete from {TABLE}"], {FIRST, SECOND}),
        ([f"truncate {TABLE}"], {FIRST, SECOND}),
        ([insertion("d", FIRST), deletion("d")], set()),
        ([insertion("d", dt.date(2020, 1, 1))], set()),
        ([f"select * from {TABLE} for update"], set()),
    ],
)
def test_a_transaction_changes_the_days_that_it_wrote(
    source: sa.Engine, writes: list[str], changed: set[dt.date]
) -> None:
    before = fingerprints(source)
    run(source, *writes)
    assert differing(before, fingerprints(source)) == changed


def test_a_transaction_changes_nothing_until_it_commits(source: sa.Engine, old: sa.Connection) -> None:
    before = fingerprints(source)
    run(old, insertion("late", FIRST))
    run(source, insertion("newer", FIRST))
    between = fingerprints(source)
    assert differing(before, between) == {FIRST}
    old.commit()
    assert differing(between, fingerprints(source)) == {FIRST}


@pytest.mark.parametrize(
    "writes", [[edit("a0")], [deletion("a0"), insertion("z", FIRST)], [deletion("a0"), insertion("a0", FIRST)]]
)
def test_an_old_transaction_that_keeps_the_count_and_the_newest_xmin_changes_its_day(
    source: sa.Engine, old: sa.Connection, writes: list[str]
) -> None:
    run(source, insertion("newer", FIRST))
    before, count_and_newest_before = fingerprints(source), count_and_newest_xmin(source)
    run(old, *writes)
    old.commit()
    assert count_and_newest_xmin(source) == count_and_newest_before
    assert differing(before, fingerprints(source)) == {FIRST}


def count_and_newest_xmin(engine: sa.Engine) -> tuple[int, int]:
    with engine.connect() as connection:
        query = f"select count(*), max(xmin::text::bigint) from {TABLE} where published_at < {at(FIRST, 23)}"
        count, newest = connection.execute(sa.text(query)).one()
    return count, newest


def test_an_aborted_transaction_changes_nothing(source: sa.Engine, old: sa.Connection) -> None:
    before = fingerprints(source)
    run(old, edit("a0"), deletion("b0"), insertion("d", SECOND), move("c0", SECOND))
    old.rollback()
    assert fingerprints(source) == before


def test_rows_that_one_transaction_wrote_do_not_cancel_each_other(source: sa.Engine) -> None:
    run(source, f"delete from {TABLE}", insertion("a", FIRST), insertion("b", FIRST))
    before = fingerprints(source)
    run(source, deletion("a"), deletion("b"), insertion("c", FIRST), insertion("d", FIRST))
    assert differing(before, fingerprints(source)) == {FIRST}


@pytest.mark.parametrize(
    "command",
    [
        f"vacuum {TABLE}",
        f"vacuum (freeze, analyze) {TABLE}",
        f"vacuum full {TABLE}",
        f"vacuum (full, freeze) {TABLE}",
        f"create index on {TABLE} (published_at)",
    ],
)
def test_maintenance_changes_nothing(source: sa.Engine, command: str) -> None:
    run(source, deletion("b0"))
    before = fingerprints(source)
    with source.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text(command))
    assert fingerprints(source) == before


def test_a_reload_changes_every_day_that_has_rows(source: sa.Engine) -> None:
    before = fingerprints(source)
    run(
        source,
        f"create temporary table dump on commit drop as select * from {TABLE}",
        f"truncate {TABLE}",
        f"insert into {TABLE} select * from dump",
    )
    assert differing(before, fingerprints(source)) == {FIRST, SECOND}


def test_a_partitioned_source_shows_a_row_that_moves_to_another_partition(engine: sa.Engine) -> None:
    make_table(engine, tail="partition by range (published_at)")
    run(
        engine,
        f"create table {TABLE}_first partition of {TABLE} for values from (minvalue) to ({at(SECOND, 0)})",
        f"create table {TABLE}_rest partition of {TABLE} for values from ({at(SECOND, 0)}) to (maxvalue)",
        *(insertion(name, FIRST) for name in "ab"),
    )
    before = fingerprints(engine)
    run(engine, move("a", SECOND))
    assert differing(before, fingerprints(engine)) == {FIRST, SECOND}
    before = fingerprints(engine)
    run(engine, edit("b"))
    assert differing(before, fingerprints(engine)) == {FIRST}


@pytest.mark.parametrize("kind", ["view", "materialized view"])
def test_a_view_has_fingerprints_of_its_content(source: sa.Engine, kind: str) -> None:
    view = "ai_craw.summary_view"
    run(source, f"create {kind} {view} as select * from {TABLE}")

    def read() -> Fingerprints:
        if kind == "materialized view":
            run(source, f"refresh materialized view {view}")
        return SourceDays(source, view, ZONE).fingerprints(DAYS[0], DAYS[-1])

    before = read()
    assert read() == before
    assert [row_count(fingerprint) for fingerprint in before.values()] == [3, 3, 0, 0]
    run(source, edit("a0"))
    assert differing(before, read()) == {FIRST}
    run(source, f"update {TABLE} set title = null where product_id = 'a0'")
    assert read() == before


@pytest.mark.parametrize(
    ("one", "other"), [(("a", "b,c"), ("a,b", "c")), (("", None), (None, "")), (('"', ""), ("", '"'))]
)
def test_a_view_never_takes_one_value_for_another(
    source: sa.Engine, one: tuple[str | None, str | None], other: tuple[str | None, str | None]
) -> None:
    view = "ai_craw.summary_view"
    run(source, f"create view {view} as select * from {TABLE}")

    def fingerprint_with(values: tuple[str | None, str | None]) -> str:
        statement = f"update {TABLE} set title = :title, store = :store where product_id = 'a0'"
        with source.begin() as connection:
            connection.execute(sa.text(statement), {"title": values[0], "store": values[1]})
        return SourceDays(source, view, ZONE).fingerprints(FIRST, FIRST)[FIRST]

    assert fingerprint_with(one) != fingerprint_with(other)


def test_one_day_is_read_in_the_snapshot_of_the_caller(source: sa.Engine) -> None:
    source_days = SourceDays(source, TABLE, ZONE)
    before = fingerprints(source)
    with source.connect().execution_options(isolation_level="REPEATABLE READ") as connection, connection.begin():
        rows = connection.execute(sa.text(f"select count(*) from {TABLE}")).scalar_one()
        run(source, insertion("d", FIRST))
        assert source_days.fingerprint(connection, FIRST) == before[FIRST]
        assert source_days.fingerprint(connection, DAYS[3]) == EMPTY_DAY
        assert connection.execute(sa.text(f"select count(*) from {TABLE}")).scalar_one() == rows
    with source.connect() as connection:
        assert source_days.fingerprint(connection, FIRST) == fingerprints(source)[FIRST] != before[FIRST]


@pytest.mark.parametrize("published_type", ["timestamptz", "timestamp"])
@pytest.mark.parametrize(
    ("zone", "first"),
    [
        ("Asia/Ho_Chi_Minh", dt.date(2026, 3, 14)),
        ("America/New_York", dt.date(2026, 3, 7)),  # clocks forward on the 8th
        ("America/New_York", dt.date(2026, 10, 31)),  # and back on the 1st
        ("Australia/Lord_Howe", dt.date(2026, 4, 4)),  # back by half an hour on the 5th
        ("America/Sao_Paulo", dt.date(2018, 11, 3)),  # the 4th began at 01:00
    ],
)
def test_a_day_is_the_day_that_is_crawled(engine: sa.Engine, published_type: str, zone: str, first: dt.date) -> None:
    make_table(engine, published_type)
    start = dt.datetime.combine(first, dt.time(), dt.UTC) - dt.timedelta(days=1)
    with engine.begin() as connection:
        connection.execute(
            sa.text(
                f"insert into {TABLE} (product_id, image, published_at) select i, 'x', "
                f"'{start.isoformat()}'::{published_type} + interval '30 minutes' * i from generate_series(0, 300) as i"
            )
        )
    last = first + dt.timedelta(days=3)
    found = SourceDays(engine, TABLE, ZoneInfo(zone)).fingerprints(first, last)
    database = ProductDatabase(engine, TABLE, ZoneInfo(zone))
    with database.snapshot() as snapshot:
        crawled = {day: sum(map(len, database.crawl_day(snapshot, day))) for day in found}
        source_days = SourceDays(engine, TABLE, ZoneInfo(zone))
        assert {day: source_days.fingerprint(snapshot, day) for day in found} == found
    assert {day: row_count(fingerprint) for day, fingerprint in found.items()} == crawled
    assert all(crawled.values())


def test_a_source_column_without_index_or_with_dates_is_read_all_the_same(engine: sa.Engine) -> None:
    make_table(engine, "date")
    run(engine, f"insert into {TABLE} (product_id, published_at) values ('a', '{SECOND}')")
    assert [row_count(fingerprint) for fingerprint in fingerprints(engine).values()] == [0, 1, 0, 0]


def test_settings_of_the_query_do_not_outlive_it(source: sa.Engine) -> None:
    def current() -> list[str]:
        with source.connect() as connection:
            names = ("jit", "lock_timeout", "statement_timeout", "timezone", "transaction_read_only")
            return [connection.execute(sa.text(f"show {name}")).scalar_one() for name in names]

    before = current()
    fingerprints(source)
    assert current() == before


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SourceDays.fingerprints.retry, "wait", tenacity.wait_none())


def test_a_missing_source_table_is_a_configuration_error(engine: sa.Engine) -> None:
    with pytest.raises(ConfigurationError, match="does not exist"):
        fingerprints(engine)
    with engine.connect() as connection, pytest.raises(ConfigurationError, match="does not exist"):
        SourceDays(engine, TABLE, ZONE).fingerprint(connection, FIRST)


@pytest.mark.usefixtures("no_waiting")
def test_a_server_that_does_not_answer_is_unavailable_and_its_password_stays_secret() -> None:
    engine = create_engine("postgresql://user:hunter2@127.0.0.1:1/labeling")
    with pytest.raises(ServiceUnavailableError) as caught:
        fingerprints(engine)
    assert "hunter2" not in str(caught.value)


@pytest.mark.usefixtures("no_waiting")
def test_a_locked_table_is_unavailable_and_never_empty(source: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "LOCK_TIMEOUT_MS", 20)
    with source.begin() as connection:
        connection.execute(sa.text(f"lock table {TABLE} in access exclusive mode"))
        with pytest.raises(ServiceUnavailableError, match="lock timeout"):
            fingerprints(source)
    assert row_count(fingerprints(source)[FIRST]) == 3


@pytest.mark.usefixtures("no_waiting")
def test_a_connection_that_the_server_ended_is_made_anew(source: sa.Engine, postgres_url: str) -> None:
    before = fingerprints(source)
    other = create_engine(postgres_url)
    with other.begin() as connection:
        ours = "datname = current_database() and pid <> pg_backend_pid()"
        connection.execute(sa.text(f"select pg_terminate_backend(pid) from pg_stat_activity where {ours}"))
    other.dispose()
    assert fingerprints(source) == before


IDS = st.sampled_from("abcdef")
SOME_DAY = st.sampled_from(DAYS)
WRITES = st.one_of(
    st.tuples(st.just("insert"), IDS, SOME_DAY),
    st.tuples(st.just("edit"), IDS, SOME_DAY),
    st.tuples(st.just("delete"), IDS, SOME_DAY),
    st.tuples(st.just("move"), IDS, SOME_DAY),
    st.tuples(st.sampled_from(["take a number", "savepoint", "rollback to", "commit", "commit", "rollback"])),
)
ROWS_NOT_LOCKED = f"select ctid from {TABLE} where product_id = :id for update skip locked"
STATEMENTS = {
    "insert": f"insert into {TABLE} (product_id, published_at) values (:id, :at)",
    "edit": f"update {TABLE} set title = coalesce(title, '') || '!' where ctid = any(array({ROWS_NOT_LOCKED}))",
    "delete": f"delete from {TABLE} where ctid = any(array({ROWS_NOT_LOCKED}))",
    "move": f"update {TABLE} set published_at = :at where ctid = any(array({ROWS_NOT_LOCKED}))",
    "take a number": "select pg_current_xact_id()",
    "savepoint": "savepoint s",
}


class Writer:
    """One connection that writes in transactions of its own."""

    def __init__(self, engine: sa.Engine) -> None:
        self.connection = engine.connect()
        self.has_savepoint = False

    def do(self, action: str, product_id: str = "", day: dt.date = FIRST) -> None:
        if action in ("commit", "rollback"):
            getattr(self.connection, action)()
            self.has_savepoint = False
        elif action == "rollback to":
            if self.has_savepoint:
                self.connection.execute(sa.text("rollback to savepoint s"))
        else:
            values = {"id": product_id, "at": dt.datetime.combine(day, dt.time(12), ZONE)}
            self.connection.execute(sa.text(STATEMENTS[action]), values)
            self.has_savepoint |= action == "savepoint"


def committed_versions(engine: sa.Engine) -> dict[dt.date, frozenset[tuple[object, ...]]]:
    """The truth: which version of which row each day holds."""
    query = f"select published_at, ctid::text, xmin::text, product_id, title from {TABLE}"
    with engine.connect() as connection:
        rows = connection.execute(sa.text(query)).all()
    days: dict[dt.date, set[tuple[object, ...]]] = {day: set() for day in DAYS}
    for published_at, *version in rows:
        days[published_at.astimezone(ZONE).date()].add(tuple(version))
    return {day: frozenset(versions) for day, versions in days.items()}


@settings(max_examples=40)
@given(steps=st.lists(st.tuples(st.booleans(), WRITES), max_size=25))
def test_a_fingerprint_differs_exactly_when_the_committed_rows_differ(
    postgres_url: str, steps: list[tuple[bool, tuple[object, ...]]]
) -> None:
    engine = create_engine(postgres_url)
    make_table(engine)
    run(engine, *(insertion(name, FIRST) for name in "abc"))
    writers = (Writer(engine), Writer(engine))
    writers[0].do("take a number")  # its first transaction is older than all others
    states = [(committed_versions(engine), fingerprints(engine))]
    for is_second, (action, *values) in [*steps, (False, ("commit",)), (True, ("commit",))]:
        do: Callable[..., None] = writers[is_second].do
        do(action, *values)
        if action == "commit":
            states.append((committed_versions(engine), fingerprints(engine)))
    for writer in writers:
        writer.connection.close()
    engine.dispose()
    for day in DAYS:
        versions = [state[0][day] for state in states]
        found = [state[1][day] for state in states]
        assert len(set(versions)) == len(set(zip(versions, found, strict=True))) == len(set(found))
