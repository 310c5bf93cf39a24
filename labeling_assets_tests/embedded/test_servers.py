"""PostgreSQL and Milvus Lite servers on their own, without a supervisor."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg2
import pytest
import sqlalchemy as sa

from labeling_assets.embedded.milvus import MilvusServer
from labeling_assets.embedded.ports import LOOPBACK, free_port, is_port_free
from labeling_assets.embedded.postgres import PostgresServer, connect
from labeling_assets.embedded.postgres_programs import find_programs
from labeling_assets.errors import ConfigurationError, ServiceUnavailableError
from labeling_assets_tests.embedded.stack_probes import wait_for

only_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs a second user, which only root can become")

START_FOREVER = """
import sys, time
from pathlib import Path
from labeling_assets.embedded.postgres import PostgresServer
PostgresServer(Path(sys.argv[1])).start()
print("started", flush=True)
time.sleep(600)
"""


def query(server: PostgresServer, text: str) -> list[tuple[object, ...]]:
    connection = connect(server.folder, server.port, "labeling")
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(text)
            return list(cursor.fetchall()) if cursor.description else []
    finally:
        connection.close()


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Folder of a server that was stopped in good order, with a row in it; tests leave it so."""
    home = Path(tempfile.mkdtemp(prefix="labeling servers é "))
    home.chmod(0o755)
    with PostgresServer(home / "postgres") as server:
        query(server, "create table kept as select 7 as number")
    yield home / "postgres"
    shutil.rmtree(home)


@contextlib.contextmanager
def replaced(path: Path, text: str) -> Iterator[None]:
    """The file with another content, for a while; its owner and mode stay."""
    before = path.read_text()
    path.write_text(text)
    yield
    path.write_text(before)


def test_postgres_has_both_databases_and_speaks_only_on_loopback_with_the_password(folder: Path) -> None:
    with PostgresServer(folder) as server:
        engine = sa.create_engine(server.url("dagster"))
        with engine.connect() as connection:
            shown = connection.execute(
                sa.text(
                    "select current_setting('listen_addresses'), current_setting('unix_socket_directories'),"
                    " current_setting('data_checksums'), current_setting('server_encoding'), current_user"
                )
            ).one()
        engine.dispose()
        assert tuple(shown) == ("127.0.0.1", "", "on", "UTF8", "labeling")
        assert server.url().startswith("postgresql+psycopg2://labeling:")
        with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
            psycopg2.connect(host=LOOPBACK, port=server.port, user="labeling", password="wrong", dbname="labeling")
        assert query(server, "select number from kept") == [(7,)]


def test_the_password_file_is_closed_to_others_and_the_password_shows_nowhere_else(folder: Path) -> None:
    password = (folder / "password").read_text()
    with PostgresServer(folder) as server:
        assert stat.S_IMODE((folder / "password").stat().st_mode) == 0o600
        command_lines = [process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline"])]
        assert not any(password in word for words in command_lines for word in words)
        assert password not in repr(vars(server))
    holders = [path for path in folder.rglob("*") if path.is_file() and password.encode() in path.read_bytes()]
    assert holders == [folder / "password"]


def test_a_wrong_password_file_is_reported_without_the_password(folder: Path) -> None:
    with replaced(folder / "password", "not-the-right-one"):
        with pytest.raises(ConfigurationError, match="refuses the password") as caught:
            PostgresServer(folder).start()
        assert "not-the-right-one" not in str(caught.value)


def test_data_without_their_password_file_are_not_opened(folder: Path) -> None:
    with replaced(folder / "password", ""), pytest.raises(ConfigurationError, match="missing, empty or not readable"):
        PostgresServer(folder).start()


def test_an_initdb_that_was_killed_half_way_is_started_over(home: Path) -> None:
    folder = home / "postgres"
    owner = subprocess.Popen([sys.executable, "-c", START_FOREVER, str(folder)])
    wait_for(lambda: list(folder.glob("unfinished-*/data/base")))
    owner.kill()
    owner.wait()
    assert not (folder / "data").exists()
    (folder / "unfinished-password").write_text("left by a kill")
    with PostgresServer(folder) as server:
        assert query(server, "select 1") == [(1,)]
    assert not list(folder.glob("unfinished-*"))


def test_a_pid_file_that_names_a_living_stranger_is_no_obstacle(folder: Path) -> None:
    (folder / "data" / "postmaster.pid").write_text(
        f"{os.getpid()}\n{folder / 'data'}\n1\n5432\n\n127.0.0.1\n  1 2\nready\n"
    )
    with PostgresServer(folder) as server:
        assert query(server, "select number from kept") == [(7,)]


def test_a_server_dies_with_its_owner_and_the_next_start_waits_for_it(folder: Path) -> None:
    owner = subprocess.Popen([sys.executable, "-c", START_FOREVER, str(folder)], stdout=subprocess.PIPE)
    assert owner.stdout is not None
    assert owner.stdout.readline() == b"started\n"
    orphan = PostgresServer(folder).lock_file.program()
    assert orphan is not None
    assert orphan.is_alive()
    with pytest.raises(ServiceUnavailableError, match="is in use by process"):
        PostgresServer(folder).start()
    owner.kill()
    owner.communicate()
    with PostgresServer(folder) as server:
        assert not orphan.is_alive()
        assert query(server, "select number from kept") == [(7,)]


def test_sessions_of_a_killed_server_do_not_block_the_next_start(folder: Path) -> None:
    server = PostgresServer(folder).start()
    assert server.pid is not None
    busy = psycopg2.connect(server.url().replace("+psycopg2", ""), async_=True)
    wait_for(lambda: busy.poll() == psycopg2.extensions.POLL_OK)
    busy.cursor().execute("select count(*) from generate_series(1, 100000000000)")
    query(server, "create table acknowledged as select 8 as number")
    session = psutil.Process(busy.info.backend_pid)
    wait_for(lambda: query(server, f"select state from pg_stat_activity where pid = {session.pid}") == [("active",)])
    os.kill(server.pid, signal.SIGKILL)
    wait_for(lambda: server.pid is None)
    assert session.status() == psutil.STATUS_RUNNING
    with server:
        assert not session.is_running() or session.status() == psutil.STATUS_ZOMBIE
        assert query(server, "select * from kept, acknowledged") == [(7, 8)]
        query(server, "drop table acknowledged")
    busy.close()


def test_a_taken_port_is_left_to_its_owner(folder: Path) -> None:
    with socket.create_server((LOOPBACK, 0)) as stranger:
        port = stranger.getsockname()[1]
        assert not is_port_free(port)
        with pytest.raises(ConfigurationError, match=f"Port {port} of the PostgreSQL is taken"):
            PostgresServer(folder, port).start()
        with PostgresServer(folder, port, can_move=True) as server:
            assert server.port != port


def test_data_of_another_version_are_refused(folder: Path) -> None:
    version = replaced(folder / "data" / "PG_VERSION", "15\n")
    with version, pytest.raises(ConfigurationError, match=r"are of PostgreSQL 15, the programs of 18"):
        PostgresServer(folder).start()


@only_root
def test_programs_that_nobody_may_not_run_are_copied(folder: Path, home: Path) -> None:
    closed = home / "closed"
    closed.mkdir(mode=0o700)
    (closed / "programs").symlink_to(find_programs())
    for _ in range(2):
        with PostgresServer(folder, programs=closed / "programs") as server:
            assert server.pid is not None
            assert Path(psutil.Process(server.pid).exe()).is_relative_to(folder)
    assert len(list(folder.glob("programs-*"))) == 1
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700


@only_root
def test_a_folder_that_nobody_may_not_enter_is_named_and_keeps_its_mode(home: Path) -> None:
    closed = home / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(ConfigurationError, match=f"may not enter {closed}") as caught:
        PostgresServer(closed / "postgres").start()
    assert "LABELING_HOME" in caught.value.remedy
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700


@only_root
def test_data_of_another_user_are_handed_to_nobody(folder: Path) -> None:
    for path in (folder / "data", *(folder / "data").rglob("*")):
        os.chown(path, 0, 0)
    with PostgresServer(folder) as server:
        assert query(server, "select number from kept") == [(7,)]


def test_milvus_stops_in_good_order_although_sigint_is_ignored_here(home: Path) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with MilvusServer(home / "milvus é") as server:
            assert not is_port_free(server.port)
    finally:
        signal.signal(signal.SIGINT, before)
    assert server.log_file.read_text().splitlines()[-1] == "Shutting down..."


def test_a_milvus_server_that_cannot_start_says_why(home: Path) -> None:
    (home / "milvus").mkdir()
    (home / "milvus" / "data").write_text("no folder")
    with pytest.raises(ServiceUnavailableError, match=r"ended with code 1; its last line: .*Error"):
        MilvusServer(home / "milvus").start()


def test_free_ports_are_free() -> None:
    assert is_port_free(free_port())
