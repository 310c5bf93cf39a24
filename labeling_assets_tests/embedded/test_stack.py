"""The laptop stack with its real processes: attach, kills, two homes, users, external services, and the commands."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
import sqlalchemy as sa
from click.testing import CliRunner
from pydantic import SecretStr

from labeling_assets.cli.stack import down, status, up
from labeling_assets.embedded import stack
from labeling_assets.embedded.home import Home
from labeling_assets.embedded.ports import LOOPBACK
from labeling_assets.errors import ConfigurationError, ServiceUnavailableError
from labeling_assets.settings import Settings

NOBODY = 65534


def wait_for(condition: Callable[[], object]) -> None:
    """Return once the condition holds; the test's own time-out ends a wait that is in vain."""
    while not condition():
        time.sleep(0.02)


def processes_of(home: Path) -> dict[int, str]:
    """Command line of every living process that has to do with the home, by command line or working folder."""
    found = {}
    for process in psutil.process_iter(["cmdline", "cwd", "status"]):
        command_line = " ".join(process.info["cmdline"] or [])
        is_ours = str(home) in command_line or str(home) in (process.info["cwd"] or "")
        if is_ours and process.info["status"] != psutil.STATUS_ZOMBIE:
            found[process.pid] = command_line
    return found


def new_home() -> Path:
    """A fresh home that every user may enter, with a space and letters beyond ASCII in its path."""
    home = Path(tempfile.mkdtemp(prefix="labeling stack é "))
    home.chmod(0o755)
    return home


def execute(settings: Settings, text: str) -> list[tuple[object, ...]]:
    """Run SQL in our database of a started stack."""
    assert settings.postgres_url is not None
    engine = sa.create_engine(settings.postgres_url.get_secret_value(), poolclass=sa.NullPool)
    with engine.begin() as connection:
        result = connection.execute(sa.text(text))
        return [tuple(row) for row in result] if result.returns_rows else []


def insert_vectors(settings: Settings, ids: range) -> None:
    """Upsert rows into a Milvus collection without a flush."""
    from pymilvus import DataType, MilvusClient

    client = MilvusClient(settings.milvus_uri)
    if not client.has_collection("kept"):
        schema = client.create_schema()
        schema.add_field("id", DataType.INT64, is_primary=True)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=4)
        indexes = client.prepare_index_params()
        indexes.add_index("vector", index_type="FLAT", metric_type="COSINE")
        client.create_collection("kept", schema=schema, index_params=indexes)
    client.upsert("kept", [{"id": each, "vector": [1.0, 0.0, 0.0, float(each)]} for each in ids])
    client.close()


def vector_ids(settings: Settings) -> list[int]:
    from pymilvus import MilvusClient

    client = MilvusClient(settings.milvus_uri)
    client.load_collection("kept")
    rows = client.query("kept", filter="id >= 0", output_fields=["id"])
    client.close()
    return sorted(row["id"] for row in rows)


@pytest.fixture(scope="module")
def settings() -> Iterator[Settings]:
    """Settings of one home for the tests that need a stack; each starts or attaches to it, and may kill its parts."""
    settings = Settings(home=new_home())
    yield settings
    stack.stop(settings)
    assert not processes_of(settings.home)
    shutil.rmtree(settings.home)


@pytest.fixture
def other() -> Iterator[Settings]:
    """Settings of another home."""
    settings = Settings(home=new_home() / "not there yet")
    yield settings
    stack.stop(settings)
    assert not processes_of(settings.home)
    shutil.rmtree(settings.home.parent)


def supervisor_pid(settings: Settings) -> int:
    pid = stack.status(settings).supervisor_pid
    assert pid is not None
    return pid


def service_pid(settings: Settings, key: str) -> int:
    pid = next(service.pid for service in stack.status(settings).services if service.key == key)
    assert pid is not None
    return pid


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
    assert len([command for command in processes_of(settings.home).values() if "milvus_lite" in command]) == 1


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
    assert len({each.split(":")[-1].split("/")[0] for each in _urls(one) + _urls(two)}) == 4
    assert stack.stop(other)
    assert execute(one, "select name from whose") == [("one",)]


def _urls(settings: Settings) -> list[str]:
    assert settings.postgres_url is not None
    assert settings.milvus_uri is not None
    return [settings.postgres_url.get_secret_value(), settings.milvus_uri]


def test_services_that_the_settings_give_are_not_started(other: Settings, postgres_url: str, milvus_uri: str) -> None:
    bare = postgres_url.replace("postgresql+psycopg2://", "postgres://")
    given = other.model_copy(update={"postgres_url": SecretStr(bare), "milvus_uri": milvus_uri})
    started = stack.start(given)
    assert not other.home.exists()
    assert _urls(started) == [postgres_url, milvus_uri]
    assert started.dagster_postgres_url == SecretStr(postgres_url.removesuffix("labeling") + "dagster")
    shown = stack.status(given)
    assert shown.is_running
    assert [(service.is_external, service.is_healthy) for service in shown.services] == [(True, True), (True, True)]
    assert not stack.stop(given)


def test_one_external_service_leaves_the_other_ours(other: Settings, postgres_url: str) -> None:
    given = other.model_copy(update={"postgres_url": SecretStr(postgres_url)})
    started = stack.start(given)
    assert not (other.home / "postgres").exists()
    assert _urls(started)[0] == postgres_url
    assert [service.is_external for service in stack.status(given).services] == [True, False]
    with pytest.raises(ConfigurationError, match="started without postgres of its own") as caught:
        stack.start(other)
    assert "labeling down" in caught.value.remedy


@pytest.mark.parametrize(
    ("change", "kind", "match"),
    [
        (("//labeling:", "//stranger:"), ConfigurationError, "authentication failed"),
        (("/labeling?", "/missing?"), ConfigurationError, "does not exist"),
        (("postgresql+psycopg2", "mysql"), ConfigurationError, "cannot be read"),
    ],
)
def test_a_wrong_external_address_is_refused_without_its_password(
    other: Settings, postgres_url: str, change: tuple[str, str], kind: type[Exception], match: str
) -> None:
    url = (postgres_url + "?").replace(*change)
    with pytest.raises(kind, match=match) as caught:
        stack.start(other.model_copy(update={"postgres_url": SecretStr(url), "milvus_uri": "http://127.0.0.1:1"}))
    password = sa.make_url(postgres_url).password
    assert isinstance(password, str)
    assert password not in str(caught.value)


def test_dagsters_database_is_made_on_an_external_server_or_its_absence_explained(
    other: Settings, postgres_url: str
) -> None:
    main = Settings(postgres_url=SecretStr(postgres_url))
    engine = sa.create_engine(postgres_url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with engine.connect() as connection:
        connection.execute(sa.text("drop database if exists dagster"))
        connection.execute(sa.text("drop role if exists guest"))
        connection.execute(sa.text("create role guest login password 'p'"))
    guest = sa.make_url(postgres_url).set(username="guest", password="p").render_as_string(hide_password=False)
    given = other.model_copy(update={"postgres_url": SecretStr(guest), "milvus_uri": "http://127.0.0.1:1"})
    with pytest.raises(ConfigurationError, match="permission denied to create database") as caught:
        stack.start(given)
    assert "LABELING_DAGSTER_POSTGRES_URL" in caught.value.remedy
    own_storage = given.model_copy(update={"dagster_postgres_url": SecretStr("postgresql://u:p@elsewhere/d")})
    assert stack.start(own_storage).dagster_postgres_url == SecretStr("postgresql+psycopg2://u:p@elsewhere/d")
    stack.start(given.model_copy(update={"postgres_url": SecretStr(postgres_url)}))
    assert execute(main, "select 1 from pg_database where datname = 'dagster'") == [(1,)]


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


def test_the_commands_tell_every_address_and_the_password_only_when_asked(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABELING_HOME", str(settings.home))
    stack.stop(settings)
    runner = CliRunner()
    assert runner.invoke(status).exit_code == 3
    assert runner.invoke(up, ["--detach"]).exit_code == 0
    assert "running already" in runner.invoke(up).output
    password = (settings.home / "postgres" / "password").read_text()
    started = stack.start(settings)
    plain, shown = runner.invoke(status), runner.invoke(status, ["--json"])
    assert password not in plain.output + shown.output
    assert (plain.exit_code, shown.exit_code) == (0, 0)
    content = json.loads(shown.output)
    url = sa.make_url(_urls(started)[0])
    assert [content["postgres"][key] for key in ("host", "port", "user", "database")] == [
        url.host,
        url.port,
        url.username,
        url.database,
    ]
    assert content["postgres"]["dagster"]["database"] == "dagster"
    assert content["milvus"]["uri"] == started.milvus_uri
    assert content["milvus"]["collection"] == "product_collection_v4"
    assert content["dagster_home"] == str(settings.home / "dagster")
    secret = json.loads(runner.invoke(status, ["--json", "--show-secrets"]).output)["environment"]
    assert [secret["LABELING_POSTGRES_URL"], secret["LABELING_MILVUS_URI"]] == _urls(started)
    assert password in runner.invoke(status, ["--show-secrets"]).output
    assert "are stopped" in runner.invoke(down).output
    assert "No services were running" in runner.invoke(down).output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_up_in_the_foreground_stops_what_it_started(settings: Settings, number: signal.Signals) -> None:
    stack.stop(settings)
    code = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); from labeling_assets.cli.stack import up; up()"
    command = subprocess.Popen(
        [sys.executable, "-c", code],
        env=os.environ | {"LABELING_HOME": str(settings.home)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert command.stdout is not None
    while "Ctrl+C" not in command.stdout.readline():
        pass
    assert stack.status(settings).is_running
    command.send_signal(number)
    output, _ = command.communicate()
    assert command.returncode == 0
    assert output.splitlines()[-1] == "The services are stopped."
    assert processes_of(settings.home) == {}
