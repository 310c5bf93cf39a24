"""The laptop stack with its real processes: attach, kills, two homes, ordinary users, damaged files."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from labeling_assets.embedded import stack
from labeling_assets.embedded.home import Home
from labeling_assets.embedded.ports import LOOPBACK
from labeling_assets.errors import ConfigurationError, ServiceUnavailableError
from labeling_assets.settings import Settings
from labeling_assets_tests.embedded.stack_probes import (
    execute,
    insert_vectors,
    new_home,
    processes_of,
    service_pid,
    supervisor_pid,
    urls,
    vector_ids,
    wait_for,
)

NOBODY = 65534


def test_start_fills_in_addresses_that_answer_and_a_second_start_attaches(settings: Settings) -> None:
    started = stack.start(settings)
    attached, has_started = stack.start_or_attach(settings)
    assert not has_started
    assert attached == started
    assert execute(started, "select current_database()") == [("labeling",)]
    assert started.dagster_postgres_url is not None
    storage = Settings(postgres_url=started.dagster_postgres_url)
    assert execute(storage, "select current_database()") == [("dagster",)]
    assert started.milvus_uri is not None
    assert started.milvus_uri.startswith("http://127.0.0.1:")
    assert started.allow_private_image_hosts == ()


def test_of_many_starts_at_once_one_starts_and_all_get_the_same(settings: Settings) -> None:
    stack.stop(settings)
    with ThreadPoolExecutor(6) as pool:
        results = list(pool.map(lambda _: stack.start_or_attach(settings), range(6)))
    assert sum(has_started for _, has_started in results) == 1
    assert all(started == results[0][0] for started, _ in results)
    supervisors = [pid for pid, command in processes_of(settings.home).items() if "embedded.supervisor" in command]
    assert supervisors == [supervisor_pid(settings)]


@pytest.mark.parametrize("victim", ["supervisor", "postgres", "milvus", "all"])
def test_after_a_kill_the_next_start_has_every_acknowledged_row(settings: Settings, victim: str) -> None:
    started = stack.start(settings)
    execute(started, "drop table if exists kept")
    execute(started, "create table kept as select generate_series(1, 1000) as number")
    insert_vectors(started, range(100))
    pids = {"supervisor": supervisor_pid(settings)}
    pids |= {key: service_pid(settings, key) for key in ("postgres", "milvus")}
    killed = [pid for key, pid in pids.items() if victim in {key, "all"}]
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not set(killed) & processes_of(settings.home).keys())
    again = stack.start(settings)
    assert execute(again, "select count(*) from kept") == [(1000,)]
    assert vector_ids(again) == list(range(100))
    assert again == started
    assert len([command for command in processes_of(settings.home).values() if "milvus_program" in command]) == 1


def test_stop_leaves_nothing_running_and_is_idempotent(settings: Settings) -> None:
    stack.start(settings)
    assert stack.stop(settings)
    assert processes_of(settings.home) == {}
    assert not stack.stop(settings)
    assert not stack.status(settings).is_running


def test_stop_after_a_killed_supervisor_waits_for_its_servers(settings: Settings) -> None:
    stack.start(settings)
    os.kill(supervisor_pid(settings), signal.SIGKILL)
    stack.stop(settings)
    assert processes_of(settings.home) == {}


def test_stop_ends_a_start_that_is_under_way(settings: Settings) -> None:
    stack.stop(settings)
    with ThreadPoolExecutor(1) as pool:
        starting = pool.submit(stack.start, settings)
        wait_for(lambda: stack.is_running(settings))
        stack.stop(settings)
        assert processes_of(settings.home) == {}
        with pytest.raises(ServiceUnavailableError, match="ended before it answered"):
            starting.result()


def test_a_stale_state_file_and_a_port_taken_meanwhile_are_no_obstacle(settings: Settings) -> None:
    started = stack.start(settings)
    state = Home(settings.home).state_file
    text = state.read_text()
    stack.stop(settings)
    state.write_text(text)
    port = Home(settings.home).ports().postgres
    with socket.create_server((LOOPBACK, port)):
        moved = stack.start(settings)
        assert moved.postgres_url != started.postgres_url
        assert moved.milvus_uri == started.milvus_uri
        assert execute(moved, "select 1") == [(1,)]
    assert stack.start(settings) == moved


def test_the_password_shows_nowhere(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    started = stack.start(settings)
    file = settings.home / "postgres" / "password"
    password = file.read_text()
    assert len(password) > 30
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert password not in repr(started) + repr(stack.status(settings)) + caplog.text
    assert not any(password in command for command in processes_of(settings.home).values())
    stack.stop(settings)
    assert [path for path in settings.home.rglob("*") if path.is_file() and password.encode() in path.read_bytes()] == [
        file
    ]


def test_two_homes_run_side_by_side(settings: Settings, other: Settings) -> None:
    one, two = stack.start(settings), stack.start(other)
    execute(one, "drop table if exists whose")
    for started, name in ((one, "one"), (two, "two")):
        execute(started, f"create table whose as select '{name}' as name")
    assert execute(one, "select name from whose") == [("one",)]
    assert execute(two, "select name from whose") == [("two",)]
    assert len({each.split(":")[-1].split("/")[0] for each in urls(one) + urls(two)}) == 4
    assert stack.stop(other)
    assert execute(one, "select name from whose") == [("one",)]


def test_a_taken_port_of_the_image_host_is_an_error_with_the_remedy(settings: Settings) -> None:
    stack.stop(settings)
    images = settings.home / "demo" / "images"
    images.mkdir(parents=True)
    port = int(stack.image_host_url(settings).rpartition(":")[2])
    try:
        with socket.create_server((LOOPBACK, port)), pytest.raises(ConfigurationError, match=f"Port {port}") as caught:
            stack.start(settings)
        assert "labeling demo" in caught.value.remedy
        assert processes_of(settings.home) == {}
    finally:
        shutil.rmtree(images.parent)


def test_the_image_host_follows_the_demo_folder(settings: Settings) -> None:
    assert "image_host" not in [service.key for service in stack.status(settings).services]
    stack.start(settings)
    images = settings.home / "demo" / "images"
    images.mkdir(parents=True)
    try:
        started = stack.start(settings)
        host = stack.image_host_url(settings).removeprefix("http://")
        assert started.allow_private_image_hosts == (host,)
        pid = service_pid(settings, "image_host")
    finally:
        shutil.rmtree(images.parent)
    wait_for(lambda: not psutil.pid_exists(pid))
    assert stack.start(settings).allow_private_image_hosts == ()


@pytest.mark.parametrize("name", ["ports.json", "stack.json"])
def test_a_damaged_file_of_the_home_is_named(settings: Settings, name: str) -> None:
    stack.start(settings)
    file = settings.home / name
    text = file.read_text()
    file.write_text('{"postgres": ')
    with pytest.raises(ConfigurationError, match=name):
        stack.status(settings)
    file.write_text(text)


def test_a_home_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match=r"file/home cannot be made") as caught:
        stack.start(Settings(home=tmp_path / "file" / "home"))
    assert "LABELING_HOME" in caught.value.remedy


def test_addresses_of_a_home_that_was_never_started_are_not_known(other: Settings) -> None:
    with pytest.raises(ConfigurationError, match="never started"):
        stack.addresses(other)
    assert stack.connection_environment(other) == {}
    assert not stack.status(other).is_running
    assert not other.home.exists()


USE_AS_USER = """
import os, sys
from pathlib import Path
from labeling_assets.embedded import stack
from labeling_assets.settings import Settings
import psycopg2
settings = Settings(home=Path(sys.argv[1]))
for _ in range(2):
    started = stack.start(settings)
    psycopg2.connect(started.postgres_url.get_secret_value().replace("+psycopg2", "")).close()
print(os.geteuid(), {os.stat(f"/proc/{service.pid}").st_uid for service in stack.status(settings).services})
assert stack.stop(settings)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user; the other tests ran as one already")
def test_the_stack_runs_as_an_ordinary_user() -> None:
    home = new_home()
    os.chown(home, NOBODY, NOBODY)
    # The interpreter may lie in root's home: the capability lets this one command read it there.
    capability = "+dac_read_search"
    become = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    become += [f"--inh-caps=-all,{capability}", f"--ambient-caps={capability}", f"--bounding-set=-all,{capability}"]
    command = [*become, sys.executable, "-W", "error", "-c", USE_AS_USER, str(home)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
    assert (result.stdout, result.stderr) == (f"{NOBODY} {{{NOBODY}}}\n", "")
    assert processes_of(home) == {}
    shutil.rmtree(home)
