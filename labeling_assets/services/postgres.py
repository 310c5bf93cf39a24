"""PostgreSQL: connections, migrations, locks, the source table and `data_label`.

The source table is only read, by a server-side cursor in chunks. Tables of our own are in `tables.py`; the services
that own one (`ledger.py`, `quarantine.py`, the image store, the vector cache) talk to it through the engine made here.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from tenacity import (
    before_sleep_log,
    retry,
    retry_if_exception_type,
    stop_after_attempt,
    stop_after_delay,
    wait_exponential,
    wait_random,
)

from labeling_assets.errors import ConfigurationError, ServiceUnavailableError
from labeling_assets.products.queries import crawl_query, rows_without_image_query
from labeling_assets.services.tables import SCHEMA, data_label

CHUNK_ROWS = 1000
CONNECT_TIMEOUT_SECONDS = 10
RETRY_SECONDS = 45
"""No attempt begins later, so that a statement which ran into a time limit of its own is not begun anew."""
logger = logging.getLogger(__name__)

waits_out_outages = retry(
    retry=retry_if_exception_type(ServiceUnavailableError),
    stop=stop_after_attempt(6) | stop_after_delay(RETRY_SECONDS),
    wait=wait_exponential(0.5, max=5) + wait_random(0, 0.5),
    before_sleep=before_sleep_log(logger, logging.WARNING),
    reraise=True,
)
"""For statements that may be repeated, also when their answer was lost: a restart of PostgreSQL takes seconds."""


def create_engine(url: str) -> sa.Engine:
    """An engine for a PostgreSQL URL of any spelling; the driver is always psycopg2.

    SQLAlchemy 2.1 would take psycopg 3 for a bare `postgresql://`, which Dagster's storage cannot use.

    Raises:
        ConfigurationError: The URL cannot be read; the message does not repeat it, since it may hold a password.
    """
    return sa.create_engine(
        normalised_url(url),
        pool_pre_ping=True,
        pool_size=8,
        max_overflow=32,
        connect_args={"connect_timeout": CONNECT_TIMEOUT_SECONDS, "application_name": "labeling-assets"},
    )


def normalised_url(url: str) -> sa.URL:
    """The URL with driver psycopg2.

    Raises:
        ConfigurationError: It is no PostgreSQL URL.
    """
    try:
        parsed = sa.make_url(url)
    except (sa.exc.ArgumentError, ValueError):
        parsed = None
    if parsed is not None and "@" in (parsed.host or ""):
        raise ConfigurationError(
            "A PostgreSQL URL has more than one @.", "Write an @ in the password as %40, and other special signs alike."
        )
    if parsed is None or parsed.drivername.split("+")[0] not in {"postgres", "postgresql"}:
        raise ConfigurationError(
            "A PostgreSQL URL cannot be read.", "It must look like postgresql://user:password@host:5432/database."
        )
    return parsed.set(drivername="postgresql+psycopg2")


@contextlib.contextmanager
def database_errors(what: str) -> Iterator[None]:
    """Turn SQLAlchemy errors into ours, without the connection string.

    Raises:
        ServiceUnavailableError: The server does not answer or ended the connection.
        ConfigurationError: A table, column or permission is missing, or the login is refused.
    """
    try:
        yield
    except sa.exc.DBAPIError as error:
        reason = str(error.orig).strip().splitlines()[0] if str(error.orig).strip() else type(error.orig).__name__
        if "authentication failed" in reason or (reason.startswith("FATAL") and "does not exist" in reason):
            raise ConfigurationError(f"{what}: {reason}.", "Check LABELING_POSTGRES_URL.") from error
        if isinstance(error, sa.exc.ProgrammingError):
            raise ConfigurationError(f"{what}: {reason}.", "Run `labeling doctor`.") from error
        if isinstance(error, sa.exc.DataError | sa.exc.NotSupportedError):
            raise ConfigurationError(f"{what}: {reason}.", "Correct the value or the type in the database.") from error
        if isinstance(error, sa.exc.OperationalError) or error.connection_invalidated:
            raise ServiceUnavailableError(
                f"{what}: {reason}.", "Is the server of LABELING_POSTGRES_URL up? `labeling doctor` tells."
            ) from error
        raise


def migrate(engine: sa.Engine) -> None:
    """Bring schema `labeling` to the newest version. Safe to call at once from several processes.

    Raises:
        ConfigurationError: The schema is of a newer release, or the user may not create it.
        ServiceUnavailableError: The server does not answer.
    """
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parents[1] / "migrations").replace("%", "%%"))
    # A transaction that begins once the lock is held sees the catalogue as it is, not as the session has cached it.
    with (
        database_errors("The tables cannot be set up"),
        advisory_lock(engine, "labeling.migrate"),
        engine.begin() as connection,
    ):
        connection.execute(sa.schema.CreateSchema(SCHEMA, if_not_exists=True))
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, "head")
        except CommandError as error:
            raise ConfigurationError(
                f"The tables cannot be set up: {error}.", "Was the database used by a newer release?"
            ) from error


@contextlib.contextmanager
def advisory_lock(engine: sa.Engine, name: str) -> Iterator[sa.Connection]:
    """Hold a lock that all processes of this database see; it goes with the connection, also on kill -9.

    Yields:
        The connection that holds it, without a transaction.
    """
    key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big", signed=True)
    with database_errors(f"Lock {name!r} cannot be taken"), engine.connect() as connection:
        connection = connection.execution_options(isolation_level="AUTOCOMMIT")
        connection.execute(sa.text("select pg_advisory_lock(:key)"), {"key": key})
        try:
            yield connection
        finally:
            if not connection.invalidated:  # a connection that broke has lost its locks
                connection.execute(sa.text("select pg_advisory_unlock(:key)"), {"key": key})


@dataclass(frozen=True)
class DataLabelCounts:
    """What `sync_data_label` did: rows written, left as they were (or to a newer day), and removed."""

    written: int
    unchanged: int
    removed: int


class ProductDatabase:
    """The source table and `data_label` of one database.

    Args:
        engine: From `create_engine`.
        source_table: `schema.table` of the source.
        zone: Business time zone; a source column without time zone is read in it.
    """

    def __init__(self, engine: sa.Engine, source_table: str, zone: ZoneInfo) -> None:
        self.engine = engine
        self.zone = zone
        self.source_table = source_table

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[sa.Connection]:
        """A transaction in the business time zone in which every query sees the source as it is now.

        Raises:
            ConfigurationError: The source table or a column is missing.
            ServiceUnavailableError: The server does not answer or went away.
        """
        with database_errors(f"{self.source_table} cannot be read"), self.engine.connect() as connection:
            connection = connection.execution_options(isolation_level="REPEATABLE READ")
            with connection.begin():
                connection.execute(sa.text("set transaction read only"))
                connection.execute(sa.text("select set_config('TimeZone', :zone, true)"), {"zone": self.zone.key})
                yield connection

    def crawl_day(
        self, snapshot: sa.Connection, day: dt.date, limit: int | None = None
    ) -> Iterator[Sequence[Mapping[str, Any]]]:
        """Rows of one half-open business day that have an image, newest first, in chunks."""
        query = sa.text(crawl_query(self.source_table, limit))
        result = snapshot.execution_options(yield_per=CHUNK_ROWS).execute(query, self._bounds(day))
        yield from ([dict(row) for row in chunk] for chunk in result.mappings().partitions(CHUNK_ROWS))

    def rows_without_image(self, snapshot: sa.Connection, day: dt.date) -> int:
        """Rows of the day that the crawl leaves out because they have no image."""
        query = sa.text(rows_without_image_query(self.source_table))
        return int(snapshot.execute(query, self._bounds(day)).scalar_one())

    def _bounds(self, day: dt.date) -> dict[str, dt.datetime]:
        start = dt.datetime.combine(day, dt.time(), self.zone)
        end = dt.datetime.combine(day + dt.timedelta(days=1), dt.time(), self.zone)
        return {"start": start, "end": end}

    @waits_out_outages
    def sync_data_label(
        self,
        day: dt.date,
        rows: Sequence[Mapping[str, Any]],
        restored: Sequence[Mapping[str, Any]] = (),
        leaving: Sequence[str] = (),
    ) -> DataLabelCounts:
        """Write the day's rows of `ai_craw.data_label` and remove those that left the day, in one transaction.

        A product that a newer day holds is left to it.

        Args:
            day: The business day.
            rows: Mappings with `id_sanpham, description, date_created, platform, name_store`.
            restored: Rows of other days for products that left this day.
            leaving: Products to remove, see `data_label_ids_leaving`.
        """
        written = removed = 0
        everything = [*rows, *restored]
        _ensure_data_label(self.engine)
        with database_errors("ai_craw.data_label cannot be written"), self.engine.begin() as connection:
            connection.execute(sa.text("select pg_advisory_xact_lock(hashtext('ai_craw.data_label'))"))
            if leaving:
                gone = sa.delete(data_label).where(data_label.c.date_created == day, _is_any(leaving))
                removed = connection.execute(gone).rowcount
            for start in range(0, len(everything), CHUNK_ROWS):
                written += connection.execute(_upsert_labels(everything[start : start + CHUNK_ROWS])).rowcount
        return DataLabelCounts(written=written, unchanged=len(everything) - written, removed=removed)

    def data_label_ids_leaving(self, day: dt.date, ids: Sequence[str]) -> list[str]:
        """Products that `data_label` holds for the day and that are not among `ids`."""
        held = self._data_label_ids(data_label.c.date_created == day)
        return sorted(held - set(ids))

    def data_label_ids(self, ids: Sequence[str]) -> set[str]:
        """Those of the products that `data_label` holds, for whatever day."""
        return self._data_label_ids(_is_any(ids))

    def data_label_days(self) -> list[dt.date]:
        """The days of which `data_label` holds rows."""
        rows = self._read_data_label(sa.select(data_label.c.date_created).distinct())
        return sorted(row["date_created"] for row in rows)

    def data_label_of_day(self, day: dt.date) -> dict[str, dict[str, Any]]:
        """Rows that `data_label` holds for a day, as `sync_data_label` takes them, by product."""
        names = ("id_sanpham", "description", "date_created", "platform", "name_store")
        query = sa.select(*(data_label.c[name] for name in names)).where(data_label.c.date_created == day)
        rows = self._read_data_label(query)
        return {row["id_sanpham"]: dict(row) for row in rows}

    def data_label_days_of(self, ids: Sequence[str]) -> dict[str, dt.date]:
        """The day for which `data_label` holds each of the products; those that it does not hold are missing."""
        query = sa.select(data_label.c.id_sanpham, data_label.c.date_created).where(_is_any(ids))
        return {row["id_sanpham"]: row["date_created"] for row in self._read_data_label(query)}

    @waits_out_outages
    def _read_data_label(self, query: sa.Select[Any]) -> Sequence[sa.RowMapping]:
        """The rows of a query; none where the table was not made yet."""
        with database_errors("ai_craw.data_label cannot be read"), self.engine.connect() as connection:
            is_there = sa.inspect(connection).has_table(data_label.name, schema=data_label.schema)
            return connection.execute(query).mappings().all() if is_there else []

    @waits_out_outages
    def _data_label_ids(self, condition: sa.ColumnElement[bool]) -> set[str]:
        query = sa.select(data_label.c.id_sanpham).where(condition)
        _ensure_data_label(self.engine)
        with database_errors("ai_craw.data_label cannot be read"), self.engine.begin() as connection:
            return set(connection.execute(query).scalars())


def _is_any(ids: Sequence[str]) -> sa.ColumnElement[bool]:
    return data_label.c.id_sanpham == sa.any_(sa.literal(list(ids), sa.ARRAY(sa.Text)))


def _upsert_labels(rows: Sequence[Mapping[str, Any]]) -> sa.Insert:
    """Insert rows, or update those that differ and are not held by a newer day."""
    statement = insert(data_label).values([dict(row) for row in rows])
    new, old = statement.excluded, data_label.c
    names = ("description", "date_created", "platform", "name_store")
    return statement.on_conflict_do_update(
        index_elements=[old.id_sanpham],
        set_={**{name: new[name] for name in names}, "updated_at": sa.func.now()},
        where=sa.and_(
            old.date_created <= new.date_created, sa.or_(*(old[name].is_distinct_from(new[name]) for name in names))
        ),
    )


def _ensure_data_label(engine: sa.Engine) -> None:
    """Create `ai_craw.data_label` where it does not exist."""
    with database_errors("ai_craw.data_label cannot be set up"):
        if sa.inspect(engine).has_table(data_label.name, schema=data_label.schema):
            return
        # A transaction that begins once the lock is held sees the schema that another one has made.
        with advisory_lock(engine, f"schema:{data_label.schema}"), engine.begin() as connection:
            connection.execute(sa.schema.CreateSchema(str(data_label.schema), if_not_exists=True))
            connection.execute(sa.schema.CreateTable(data_label, if_not_exists=True))
