"""The sensor's one query: fingerprints of a window of 35 days with a million rows, on the embedded PostgreSQL.

The table has twice the days and rows of the window; then four times, in the same window, which shows that the time does
not grow with what lies outside it. Rows lie as a crawler appends them: in the order of time, a tenth of them days late,
each hundred in a transaction of its own. The goal is one second: the ratio is a second to the time measured.
"""

from __future__ import annotations

import datetime as dt
import time
from zoneinfo import ZoneInfo

import sqlalchemy as sa

from benchmarks.measure import print_result, temporary_folder
from labeling_assets.embedded.postgres import PostgresServer
from labeling_assets.products.queries import SOURCE_COLUMNS, fingerprint_query
from labeling_assets.services.postgres import create_engine
from labeling_assets.services.source_days import SourceDays

TABLE = "ai_craw.product_marketing_summary"
ZONE = ZoneInfo("Asia/Ho_Chi_Minh")
LAST = dt.date(2026, 3, 14)
WINDOW_DAYS = 35
WINDOW_ROWS = 1_000_000
ROWS_A_TRANSACTION = 100
ROUNDS = 9
GOAL = 1.0

FILL = """
do $$
declare
    days constant int := {days};
    rows constant int := {rows};
    chunk constant int := {chunk};
begin
    for number in 0 .. rows / chunk - 1 loop
        insert into {table}
        select 'P' || id, 'https://images.example.com/products/' || id || '/main-1200x1200.jpg',
               ('{end}'::timestamptz - make_interval(days => days)) + days * interval '1 day' * id / rows
               - case when id % 10 = 0 and id > rows / days * 3 then interval '1 day' * (id % 3) else interval '0' end,
               'Personalised ceramic mug with a name for mothers and grandmothers, number ' || id, 'Store ' || id % 40,
               'GP' || id % 9, 'https://shop.example.com/p/' || id || '?utm_source=feed&utm_campaign=spring',
               id % 977 + 0.25, id % 9001, id % 8001, id % 701, id % 90001, id % 80001, id % 31
        from generate_series(number * chunk, number * chunk + chunk - 1) as id;
        commit;
    end loop;
end $$
"""


def fill(engine: sa.Engine, days: int, rows: int) -> None:
    """Make the source table hold so many rows in the days up to `LAST`."""
    counters = dict.fromkeys(("clicks", "unique_clicks", "unique_atc", "impression", "reach", "quantity"), "bigint")
    columns = ", ".join(f"{name} {kind}" for name, kind in (SOURCE_COLUMNS | counters).items())
    end = dt.datetime.combine(LAST + dt.timedelta(days=1), dt.time(), ZONE).isoformat()
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for statement in (
            "create schema if not exists ai_craw",
            f"drop table if exists {TABLE}",
            f"create table {TABLE} ({columns})",
            "set synchronous_commit = off",
            FILL.format(table=TABLE, days=days, rows=rows, chunk=ROWS_A_TRANSACTION, end=end),
            f"create index on {TABLE} (published_at)",
            f"vacuum analyze {TABLE}",
        ):
            connection.execute(sa.text(statement))


def plan(engine: sa.Engine) -> str:
    """The plan of the query, as `SourceDays` runs it, with the times of its steps."""
    days = [LAST - dt.timedelta(days=number) for number in reversed(range(-1, WINDOW_DAYS))]
    bounds = [dt.datetime.combine(day, dt.time(), ZONE) for day in days]
    query = sa.text(f"explain (analyze, buffers) {fingerprint_query(TABLE, has_row_versions=True)}")
    with engine.begin() as connection:
        connection.execute(sa.text("set local jit = off"))
        lines = connection.execute(query, {"bounds": bounds, "start": bounds[0], "end": bounds[-1]}).scalars()
        return "\n".join(line if len(line) < 160 else f"{line[:160]} …" for line in lines)


def seconds(engine: sa.Engine) -> list[float]:
    """Time of each round."""
    source_days = SourceDays(engine, TABLE, ZONE)
    figures = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        fingerprints = source_days.fingerprints(LAST - dt.timedelta(days=WINDOW_DAYS - 1), LAST)
        figures.append(time.perf_counter() - started)
        rows = sum(int(fingerprint.split(":")[0]) for fingerprint in fingerprints.values())
        assert len(fingerprints) == WINDOW_DAYS
        assert abs(rows - WINDOW_ROWS) < WINDOW_ROWS / 100, rows
    return figures


def main() -> None:
    """Measure and print."""
    with temporary_folder() as folder, PostgresServer(folder / "postgres") as server:
        engine = create_engine(server.url("labeling"))
        measured = {}
        for times in (2, 4):
            fill(engine, WINDOW_DAYS * times, WINDOW_ROWS * times)
            measured[times] = sorted(seconds(engine))
            print(
                f"{WINDOW_ROWS * times:,} rows in {WINDOW_DAYS * times} days, {WINDOW_ROWS:,} in the window:", end=" "
            )
            print(", ".join(f"{figure:.3f}" for figure in measured[times]), "s", flush=True)
            print(plan(engine), flush=True)
        engine.dispose()
    print_result("source_fingerprint", [1 / figure for times in (2, 4) for figure in measured[times]], GOAL)


if __name__ == "__main__":
    main()
