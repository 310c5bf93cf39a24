"""One table to and from a file, by COPY in its text form, gzipped.

COPY needs no program of a PostgreSQL version, and its text means the same to every version. Which tables are copied,
and in which transaction, is decided in `databases.py`.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import psycopg2
import sqlalchemy as sa

from labeling_assets.errors import ConfigurationError, ServiceUnavailableError
from labeling_assets.services.backup.folder import NewBackup, TableEntry

BUFFER_BYTES = 1 << 20
FASTEST = 1
"""Level of gzip: vectors and hashes hardly shrink at any level."""
_SERVER_SETTINGS = {
    "client_encoding": "UTF8",
    "datestyle": "ISO, YMD",
    "intervalstyle": "postgres",
    "timezone": "UTC",
    "extra_float_digits": "3",
    "bytea_output": "hex",
    "statement_timeout": "0",
}
_OWNED_SEQUENCES = sa.text(
    "select s.oid::regclass::text from pg_depend d join pg_class s on s.oid = d.objid and s.relkind = 'S' "
    "where d.refobjid = cast(:table as regclass) and d.deptype in ('a', 'i') order by 1"
)

_SEQUENCE_STATE = (sa.column("last_value", sa.BigInteger), sa.column("is_called", sa.Boolean))


def fix_text_form(connection: sa.Connection) -> None:
    """Set, for the transaction, what decides how COPY writes a value, so that it is read as it was written."""
    for name, value in _SERVER_SETTINGS.items():
        connection.execute(sa.text("select set_config(:name, :value, true)"), {"name": name, "value": value})


def quoted(connection: sa.Connection, table: sa.Table, columns: Iterable[str] = ()) -> str:
    """The table as SQL names it, with a list of columns where some are given."""
    preparer = connection.dialect.identifier_preparer
    listed = ", ".join(preparer.quote(column) for column in columns)
    return str(preparer.format_table(table)) + (f" ({listed})" if listed else "")


def dump_table(connection: sa.Connection, table: sa.Table, folder: str, backup: NewBackup) -> TableEntry:
    """Write the rows of a table to a file of the backup.

    Args:
        connection: In a transaction, with its text form fixed.
        table: The table.
        folder: Folder of the file in the backup.
        backup: Where to write.

    Raises:
        ConfigurationError: The table may not be read.
        ServiceUnavailableError: The server went away.
    """
    columns = [column.name for column in table.columns if column.computed is None]
    path = f"{folder}/{re.sub(r'[^A-Za-z0-9_.]', '_', table.fullname)}.copy.gz"
    with backup.create(path) as file, _cursor(connection, table) as cursor:
        with (
            gzip.GzipFile("", "wb", FASTEST, file, mtime=0) as compressed,
            io.BufferedWriter(compressed, BUFFER_BYTES) as buffer,
        ):
            cursor.copy_expert(f"copy {quoted(connection, table, columns)} to stdout", buffer)
        rows = cursor.rowcount
    return TableEntry(
        schema_name=table.schema,
        name=table.name,
        columns=tuple(columns),
        rows=rows,
        sequences=_sequences(connection, table),
        path=path,
    )


def load_table(connection: sa.Connection, table: sa.Table, entry: TableEntry, folder: Path) -> None:
    """Fill an empty table from its file in the backup, and set its sequences.

    Raises:
        ConfigurationError: The table does not take the rows.
        ServiceUnavailableError: The server went away.
    """
    with gzip.open(folder / entry.path, "rb") as file, _cursor(connection, table) as cursor:
        cursor.copy_expert(f"copy {quoted(connection, table, entry.columns)} from stdin", file, BUFFER_BYTES)
        if cursor.rowcount != entry.rows:
            raise ConfigurationError(
                f"{table.fullname} took {cursor.rowcount} rows of {entry.rows}.", "Use another backup."
            )
    for name, (value, is_called) in entry.sequences.items():
        connection.execute(
            sa.text("select setval(cast(:name as regclass), :value, :is_called)"),
            {"name": name, "value": value, "is_called": is_called},
        )


def _sequences(connection: sa.Connection, table: sa.Table) -> dict[str, tuple[int, bool]]:
    """State of the sequences that columns of the table take their numbers from: `last_value` and `is_called`."""
    states = {}
    for name in connection.execute(_OWNED_SEQUENCES, {"table": quoted(connection, table)}).scalars().all():
        state = connection.execute(sa.select(*_SEQUENCE_STATE).select_from(sa.text(name))).one()
        states[str(name)] = (int(state.last_value), bool(state.is_called))
    return states


@contextlib.contextmanager
def _cursor(connection: sa.Connection, table: sa.Table) -> Iterator[psycopg2.extensions.cursor]:
    """A cursor of the driver in the transaction of the connection; SQLAlchemy has no COPY."""
    cursor = connection.connection.cursor()
    try:
        yield cursor
    except (psycopg2.OperationalError, psycopg2.InterfaceError) as error:
        raise ServiceUnavailableError(f"{table.fullname} cannot be copied: {_reason(error)}.", "Try again.") from error
    except psycopg2.Error as error:
        raise ConfigurationError(
            f"{table.fullname} cannot be copied: {_reason(error)}.", "Give our user the right to it."
        ) from error
    finally:
        cursor.close()


def _reason(error: psycopg2.Error) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip(".")
