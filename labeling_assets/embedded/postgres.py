"""A PostgreSQL 18 server on loopback TCP, with a generated password and the databases `labeling` and `dagster`.

What belongs here: the data folder, its password, and the server process. Where the programs come from is in
`postgres_programs.py`; what talks to the server is in `services/postgres.py`.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import ClassVar

import psutil
import psycopg2
from psycopg2 import sql
from sqlalchemy import URL

from labeling_assets.embedded.ports import LOOPBACK
from labeling_assets.embedded.postgres_programs import find_programs, require_entry, runnable_programs, server_user
from labeling_assets.embedded.process import ServerProcess
from labeling_assets.errors import ConfigurationError, ServiceUnavailableError

USER = "labeling"
DATABASES = ("labeling", "dagster")
"""The source table with our own tables, and Dagster's storage."""
SERVER_SETTINGS = {
    "listen_addresses": LOOPBACK,
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "jit": "off",
}
"""Given at each start, so that a change reaches existing data folders."""


class PostgresServer(ServerProcess):
    """PostgreSQL on 127.0.0.1; its data are in `data/` of the folder, its password in the file `password`.

    Args:
        folder: See `ServerProcess`. As root, every user must be able to enter the folders above it.
        port: See `ServerProcess`.
        can_move: See `ServerProcess`.
        log_file: See `ServerProcess`.
        programs: Installation with `bin/`, `lib/` and `share/`; default the one in the wheel.
    """

    name: ClassVar[str] = "PostgreSQL"
    stop_signal: ClassVar[signal.Signals] = signal.SIGINT  # fast shutdown: sessions are ended, nothing is lost

    def __init__(
        self,
        folder: Path,
        port: int | None = None,
        *,
        can_move: bool = False,
        log_file: Path | None = None,
        programs: Path | None = None,
    ) -> None:
        super().__init__(folder, port, can_move=can_move, log_file=log_file)
        self.data_folder = self.folder / "data"
        self.password_file = self.folder / "password"
        self._programs = programs

    def url(self, database: str = "labeling") -> str:
        """The SQLAlchemy URL of a database. Holds the password."""
        return database_url(self.folder, self.port, database)

    def command(self) -> list[str]:
        """The server in the foreground, with its settings."""
        settings = {**SERVER_SETTINGS, "port": str(self.port)}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return [self._program("postgres"), "-D", str(self.data_folder), *options]

    def environment(self) -> dict[str, str]:
        """Only what a program needs to start: root's environment is not for `nobody`."""
        return {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "TMPDIR") if name in os.environ}

    def user(self) -> tuple[int, int] | None:
        """`nobody` for root, otherwise the caller."""
        return server_user()

    def stragglers(self) -> list[int]:
        """Sessions of a killed server: one in a long query does not notice that its server is gone."""
        data = str(self.data_folder.resolve())
        processes = psutil.process_iter(["name", "cwd"])
        return [each.pid for each in processes if each.info["name"] == "postgres" and each.info["cwd"] == data]

    def prepare(self) -> None:
        """Make the data folder if there is none, and see that it belongs to the server's user and version."""
        super().prepare()
        require_entry(self.folder)
        for abandoned in self.folder.glob("unfinished-*"):
            shutil.rmtree(abandoned) if abandoned.is_dir() else abandoned.unlink()
        if not self.data_folder.exists():
            self._initialise()
        self._check_owner()
        self._check_version()
        read_password(self.folder)
        # We hold the lock, so the pid in this file is a dead server's, even where a new process got its number.
        (self.data_folder / "postmaster.pid").unlink(missing_ok=True)

    def is_answering(self) -> bool:
        """Whether the server accepts our login.

        Raises:
            ConfigurationError: The password file does not fit the data.
        """
        return answers_postgres(self.folder, self.port)

    def complete(self) -> None:
        """Create the databases that are missing."""
        connection = connect(self.folder, self.port)
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute("select datname from pg_database")
                existing = {name for (name,) in cursor.fetchall()}
                for database in DATABASES:
                    if database not in existing:
                        cursor.execute(sql.SQL("create database {}").format(sql.Identifier(database)))
        finally:
            connection.close()
        super().complete()

    def _initialise(self) -> None:
        """Run initdb in a folder of its own and rename the result, so that a half-made one is never taken for data."""
        work = Path(tempfile.mkdtemp(prefix="unfinished-", dir=self.folder))
        password_copy = work / "password"
        _write_secret(password_copy, self._password_for_new_data())
        if (user := self.user()) is not None:
            os.chown(work, *user)
            os.chown(password_copy, *user)
        command = [self._program("initdb"), "-D", str(work / "data"), f"--username={USER}"]
        command += ["--auth=scram-sha-256", f"--pwfile={password_copy}", "--encoding=UTF8", "--no-locale"]
        # Many rounds protect passwords that people choose. This one is random, and Dagster logs in for every event.
        command += ["-c", "scram_iterations=1"]
        code = self.spawn(command, signal.SIGTERM).wait()
        if code != 0:
            raise ServiceUnavailableError(
                f"initdb ended with code {code}; its last line: {self.last_line()}", f"See {self.log_file}."
            )
        (work / "data").rename(self.data_folder)
        _sync_folder(self.folder)
        shutil.rmtree(work)

    def _password_for_new_data(self) -> str:
        """The password in the file, or a new one that is on disk before any data depend on it."""
        if not self.password_file.exists():
            draft = self.folder / "unfinished-password"
            _write_secret(draft, secrets.token_urlsafe(32))
            draft.rename(self.password_file)
            _sync_folder(self.folder)
        return read_password(self.folder)

    def _check_owner(self) -> None:
        """See that the data belong to the user that the server runs as; root hands them over."""
        user = self.user()
        owner_id = self.data_folder.stat().st_uid
        if user is not None and owner_id != user[0]:
            for path in (*self.data_folder.rglob("*"), self.data_folder):
                os.chown(path, *user, follow_symlinks=False)
        elif user is None and owner_id != os.geteuid():
            raise ConfigurationError(
                f"The folder {self.data_folder} belongs to another user (id {owner_id}).",
                "Start the stack as that user, or set LABELING_HOME to a folder of your own.",
            )

    def _check_version(self) -> None:
        shown = subprocess.run([self._program("postgres"), "--version"], capture_output=True, text=True, check=True)
        program_version = shown.stdout.split()[-1].partition(".")[0]
        data_version = (self.data_folder / "PG_VERSION").read_text(encoding="ascii").strip()
        if program_version != data_version:
            raise ConfigurationError(
                f"The data in {self.data_folder} are of PostgreSQL {data_version}, the programs of {program_version}.",
                "Dump the data with the old version, or set LABELING_HOME to a new folder.",
            )

    def _program(self, name: str) -> str:
        programs = runnable_programs(self._programs or find_programs(), self.folder)
        return str(programs / "bin" / name)


def database_url(folder: Path, port: int, database: str) -> str:
    """The SQLAlchemy URL of a database of the server in `folder`. Holds the password.

    Raises:
        ConfigurationError: The password file cannot be read.
    """
    url = URL.create("postgresql+psycopg2", USER, read_password(folder), LOOPBACK, port, database)
    return url.render_as_string(hide_password=False)


def read_password(folder: Path) -> str:
    """The generated password of the server in `folder`.

    Raises:
        ConfigurationError: The file is missing, empty or not readable for us.
    """
    path = folder / "password"
    try:
        password = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        password = ""
    if not password:
        raise ConfigurationError(
            f"The password file {path} is missing, empty or not readable.",
            "Restore it, or run as the user who started the stack; without it the data cannot be opened.",
        )
    return password


def connect(folder: Path, port: int, database: str = "postgres") -> psycopg2.extensions.connection:
    """A connection to the server in `folder`.

    Raises:
        ConfigurationError: The password file is missing, or does not fit the data.
        ServiceUnavailableError: No server answers on the port, or it is still starting.
    """
    password = read_password(folder)
    try:
        return psycopg2.connect(
            host=LOOPBACK, port=port, user=USER, password=password, dbname=database, connect_timeout=5
        )
    except psycopg2.OperationalError as error:
        if "password authentication failed" in str(error):
            raise ConfigurationError(
                f"PostgreSQL on port {port} refuses the password in {folder / 'password'}.", "Restore the right file."
            ) from None
        raise ServiceUnavailableError(f"PostgreSQL on port {port} does not answer: {str(error).strip()}") from None


def answers_postgres(folder: Path, port: int) -> bool:
    """Whether the server in `folder` accepts our login on the port.

    Raises:
        ConfigurationError: The password file is missing, or does not fit the data.
    """
    try:
        connect(folder, port).close()
    except ServiceUnavailableError:
        return False
    return True


def _write_secret(path: Path, secret: str) -> None:
    """Write a new file that only its owner can read, durably."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
        file.write(secret)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Make a rename in the folder survive a power cut."""
    folder_fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(folder_fd)
    finally:
        os.close(folder_fd)
