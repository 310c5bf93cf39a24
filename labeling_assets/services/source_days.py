"""The state of each day's rows in the source table, as a fingerprint that changes with every committed change.

A fingerprint is `<rows>:<hash>`, see `fingerprint_query` in `products/queries.py` for what is hashed and why it misses
nothing. It tells that rows differ, not how. A dump and restore, or any other rewrite of the table, changes them all,
which is harmless: the days run again and nothing is paid for twice. VACUUM, VACUUM FULL and row locks change none.

Fingerprints are compared with those in `day_state.py`, which lie in the same database: a server that goes back to an
earlier state (a failover, a restore to a point in time) takes both back.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from zoneinfo import ZoneInfo

import sqlalchemy as sa

from labeling_assets.products.detection import EMPTY_DAY
from labeling_assets.products.queries import fingerprint_query, has_row_versions_query, quoted
from labeling_assets.services.postgres import database_errors, waits_out_outages

LOCK_TIMEOUT_MS = 5_000
STATEMENT_TIMEOUT_MS = 60_000
"""Dagster gives a sensor's tick 60 s; a query left behind by a tick that timed out must not pile up."""


class SourceDays:
    """Fingerprints of the days of the source table.

    Args:
        engine: Engine of the database.
        source_table: `schema.table` of the source; a view is read by the content of its rows, which takes longer.
        zone: Business time zone; a source column without time zone is read in it.
    """

    def __init__(self, engine: sa.Engine, source_table: str, zone: ZoneInfo) -> None:
        self._engine = engine
        self._source_table = source_table
        self._zone = zone

    @waits_out_outages
    def fingerprints(self, first: dt.date, last: dt.date) -> dict[dt.date, str]:
        """Fingerprint of each day from `first` to `last`, in order, read in one snapshot.

        Raises:
            ConfigurationError: The source table or a column is missing.
            ServiceUnavailableError: The server does not answer, or the table stays locked.
        """
        days = [first + dt.timedelta(days=number) for number in range((last - first).days + 1)]
        with database_errors(self._problem), self._engine.connect() as connection, connection.begin():
            connection.execute(sa.text("set transaction read only"))
            # Compiling takes longer than the query of a window, and grows with its estimated cost.
            settings = {"jit": "off", "lock_timeout": LOCK_TIMEOUT_MS, "statement_timeout": STATEMENT_TIMEOUT_MS}
            for name, value in settings.items():
                connection.execute(sa.select(sa.func.set_config(name, str(value), True)))  # noqa: FBT003 - is_local
            return self._read(connection, days)

    def fingerprint(self, connection: sa.Connection, day: dt.date) -> str:
        """Fingerprint of one day in the snapshot of the caller's transaction, whose time zone becomes the business's.

        Raises:
            ConfigurationError: The source table or a column is missing.
            ServiceUnavailableError: The server does not answer.
        """
        with database_errors(self._problem):
            return self._read(connection, [day])[day]

    @property
    def _problem(self) -> str:
        return f"The days of {self._source_table} cannot be read"

    def _read(self, connection: sa.Connection, days: Sequence[dt.date]) -> dict[dt.date, str]:
        found = dict.fromkeys(days, EMPTY_DAY)
        if not days:
            return found
        bounds = [dt.datetime.combine(day, dt.time(), self._zone) for day in [*days, days[-1] + dt.timedelta(days=1)]]
        connection.execute(sa.text("select set_config('TimeZone', :zone, true)"), {"zone": self._zone.key})
        relation = {"relation": quoted(self._source_table)}
        has_row_versions = connection.execute(sa.text(has_row_versions_query()), relation).scalar_one()
        query = sa.text(fingerprint_query(self._source_table, has_row_versions=has_row_versions))
        for row in connection.execute(query, {"bounds": bounds, "start": bounds[0], "end": bounds[-1]}):
            found[days[row.number - 1]] = f"{row.rows}:{row.hash}"
        return found
