"""The databases of a backup: which tables belong to it, and in which transaction they are dumped and loaded.

What is dumped is one snapshot. What is loaded is one transaction, which also marks the database with the backup that it
came from. Two databases are known: the one with our tables and `data_label`, and Dagster's storage. How a table is
copied is in `copying.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError

from labeling_assets.errors import ConfigurationError
from labeling_assets.services.backup.copying import dump_table, fix_text_form, load_table, quoted
from labeling_assets.services.backup.folder import DatabaseEntry, NewBackup, Report, TableEntry
from labeling_assets.services.postgres import database_errors, migrate
from labeling_assets.services.tables import SCHEMA, data_label

VERSION_TABLE = "alembic_version"


@dataclass(frozen=True)
class Database:
    """A database that is part of a backup.

    Attributes:
        name: Its name in the manifest.
        engine: Engine on it.
        contents: Names of the tables by schema, where None is the default schema; no names mean all of the schema. The
            first schema has Alembic's table.
        migrations: Where Alembic finds its revisions.
        seeded: Tables that hold rows in a platform on which nothing has run yet.
        make_tables: Makes the tables of a backup as they were at its revision, in an empty database and a transaction.
        upgrade: Brings the tables from an older revision to the newest.
    """

    name: str
    engine: sa.Engine
    contents: Mapping[str | None, frozenset[str]]
    migrations: str
    seeded: frozenset[str]
    make_tables: Callable[[sa.Connection, DatabaseEntry], None]
    upgrade: Callable[[], None]

    def tables(self, connection: sa.Connection) -> list[sa.Table]:
        """Its tables as they are in the server, each after those that its foreign keys refer to."""
        metadata = sa.MetaData()
        for schema, names in self.contents.items():
            there = sa.inspect(connection).get_table_names(schema)
            chosen = [name for name in there if not names or name in names]
            metadata.reflect(connection, schema=schema, only=chosen, resolve_fks=False)
        return metadata.sorted_tables

    def version_table(self, connection: sa.Connection) -> sa.Table:
        """Alembic's table, whose comment is the mark of the database."""
        schema = next(iter(self.contents))
        return sa.Table(VERSION_TABLE, sa.MetaData(), schema=schema, autoload_with=connection)

    def is_newest(self, revision: str) -> bool:
        """Whether a revision is the newest that this release knows.

        Raises:
            ConfigurationError: This release does not know it.
        """
        scripts = ScriptDirectory.from_config(_alembic_config(self.migrations))
        try:
            scripts.get_revision(revision)
        except CommandError as error:
            raise ConfigurationError(
                f"The tables of {self.name} in the backup are of revision {revision}, unknown to this release.",
                "Install the release that made the backup, or a later one.",
            ) from error
        return revision == scripts.get_current_head()


def product_database(engine: sa.Engine) -> Database:
    """Our schema and `data_label`; the source table beside it is not ours."""
    migrations = str(Path(__file__).parents[2] / "migrations")

    def make_tables(connection: sa.Connection, entry: DatabaseEntry) -> None:
        config = _alembic_config(migrations)
        config.attributes["connection"] = connection
        command.downgrade(config, entry.revision)
        if data_label.name in {table.name for table in entry.tables}:
            connection.execute(sa.schema.CreateSchema(str(data_label.schema), if_not_exists=True))
            connection.execute(sa.schema.CreateTable(data_label, if_not_exists=True))

    return Database(
        name="labeling",
        engine=engine,
        contents={SCHEMA: frozenset(), data_label.schema: frozenset({data_label.name})},
        migrations=migrations,
        seeded=frozenset({VERSION_TABLE, "writer_leases"}),
        make_tables=make_tables,
        upgrade=lambda: migrate(engine),
    )


def dagster_database(engine: sa.Engine, tables: Iterable[str], upgrade: Callable[[], None]) -> Database:
    """Dagster's storage. Its migrations take tables that have newer columns, so it is loaded into the tables of today.

    Args:
        engine: Engine on Dagster's database.
        tables: Names of Dagster's tables.
        upgrade: `DagsterInstance.upgrade`.
    """
    return Database(
        name="dagster",
        engine=engine,
        contents={None: frozenset({*tables, VERSION_TABLE})},
        migrations="dagster:_core/storage/alembic",
        seeded=frozenset(
            {VERSION_TABLE, "concurrency_limits", "concurrency_slots", "instance_info", "secondary_indexes"}
        ),
        make_tables=lambda _connection, _entry: None,
        upgrade=upgrade,
    )


def dump_database(database: Database, backup: NewBackup, report: Report) -> DatabaseEntry:
    """Write every table, as of one moment, with its sequences.

    Raises:
        ConfigurationError: A table may not be read.
        ServiceUnavailableError: The server does not answer or went away.
    """
    with database_errors(f"The database {database.name} cannot be read"), database.engine.connect() as connection:
        connection = connection.execution_options(isolation_level="REPEATABLE READ")
        connection.execute(sa.text("set transaction read only"))
        fix_text_form(connection)
        entries = []
        for table in database.tables(connection):
            report(f"PostgreSQL, {database.name}: {table.fullname}")
            entries.append(dump_table(connection, table, f"postgres/{database.name}", backup))
        version_column = database.version_table(connection).c.version_num
        entry = DatabaseEntry(
            server_version=connection.execute(sa.text("show server_version")).scalar_one(),
            revision=connection.execute(sa.select(version_column)).scalar_one(),
            tables=tuple(entries),
        )
    report(f"PostgreSQL, {database.name}: {len(entry.tables)} tables, {entry.rows} rows", is_done=True)
    return entry


def load_database(database: Database, entry: DatabaseEntry, folder: Path, backup_id: str, report: Report) -> None:
    """Fill the tables of an empty database, as they were at the backup's revision, in one transaction.

    Raises:
        ConfigurationError: The database is not empty, or a table or column is unknown.
        ServiceUnavailableError: The server does not answer or went away; nothing is loaded.
    """
    with database_errors(f"The database {database.name} cannot be written"), database.engine.begin() as connection:
        fix_text_form(connection)
        database.make_tables(connection, entry)
        targets = _targets(database, connection, entry)
        names = ", ".join(quoted(connection, table) for table, _ in targets)
        connection.execute(sa.text(f"lock table {names} in access exclusive mode"))
        if held := tables_with_rows(database, connection):
            raise ConfigurationError(f"{', '.join(held)} were written during the restore.", "Stop who writes there.")
        for table, _ in reversed(targets):
            connection.execute(sa.delete(table))
        for table, table_entry in targets:
            report(f"PostgreSQL, {database.name}: {table.fullname}")
            load_table(connection, table, table_entry, folder)
        _set_mark(database, connection, restored_mark(backup_id))
    report(f"PostgreSQL, {database.name}: {len(entry.tables)} tables, {entry.rows} rows", is_done=True)


def tables_with_rows(database: Database, connection: sa.Connection) -> list[str]:
    """The tables that hold rows, but for those that hold some before anything has run."""
    tables = [table for table in database.tables(connection) if table.name not in database.seeded]
    one = sa.literal(1)
    return [
        table.fullname
        for table in tables
        if connection.execute(sa.select(one).select_from(table).limit(1)).first() is not None
    ]


def restoring_mark(backup_id: str) -> str:
    """The mark of a database while a backup is restored."""
    return f"Backup {backup_id} is being restored."


def restored_mark(backup_id: str) -> str:
    """The mark of a database that a backup was loaded into."""
    return f"Restored from backup {backup_id}."


def mark(database: Database) -> str:
    """The mark of a database, empty where it has none."""
    with database_errors(f"The database {database.name} cannot be read"), database.engine.connect() as connection:
        return database.version_table(connection).comment or ""


def set_mark(database: Database, text: str) -> None:
    """Replace the mark of a database."""
    with database_errors(f"The database {database.name} cannot be written"), database.engine.begin() as connection:
        _set_mark(database, connection, text)


def _set_mark(database: Database, connection: sa.Connection, text: str) -> None:
    table = database.version_table(connection)
    table.comment = text
    connection.execute(sa.schema.SetTableComment(table))


def _targets(database: Database, connection: sa.Connection, entry: DatabaseEntry) -> list[tuple[sa.Table, TableEntry]]:
    """The table of this platform for each table of the backup."""
    by_name = {(table.schema, table.name): table for table in database.tables(connection)}
    targets = []
    for table_entry in entry.tables:
        table = by_name.get((table_entry.schema_name, table_entry.name))
        if table is None or not set(table_entry.columns) <= set(table.columns.keys()):
            raise ConfigurationError(
                f"Table {table_entry.name} of the backup, or a column of it, is unknown to this release.",
                "Install the release that made the backup, or a later one.",
            )
        targets.append((table, table_entry))
    return targets


def _alembic_config(migrations: str) -> Config:
    config = Config()
    config.set_main_option("script_location", migrations.replace("%", "%%"))
    return config
