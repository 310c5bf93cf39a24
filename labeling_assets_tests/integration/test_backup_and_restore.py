"""`labeling backup` and `labeling restore` on a whole installation: wiped, restored, and going on where it was."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from labeling_assets.embedded.demo.install import install_demo
from labeling_assets.settings import Settings
from labeling_assets_tests.integration.installation import Installation, installed
from labeling_assets_tests.services import backup_contents

SEED, PRODUCTS = 7, 4


@dataclass
class BackedUp:
    """A home that was run, backed up and wiped.

    Attributes:
        folder: The backup.
        ports: The ports of its services; the demo's image URLs hold one.
        contents: What its stores held.
        printed: What `labeling backup` printed.
        refused: What it printed while a run was on.
    """

    folder: Path
    ports: str
    contents: dict[str, Any]
    printed: str
    refused: subprocess.CompletedProcess[str]


def yesterday() -> dt.date:
    return dt.datetime.now(Settings().zone).date() - dt.timedelta(days=1)


def addresses(installation: Installation) -> dict[str, str]:
    """The addresses of the services; asking for them takes a second."""
    status = json.loads(installation.labeling("status", "--json", "--show-secrets").stdout)
    return {name.removeprefix("LABELING_"): value for name, value in status["environment"].items()}


def contents(installation: Installation) -> dict[str, Any]:
    """Everything that the stores hold."""
    address = addresses(installation)
    found: dict[str, Any] = {}
    for name in ("POSTGRES_URL", "DAGSTER_POSTGRES_URL"):
        engine = sa.create_engine(address[name])
        found[name] = backup_contents.tables(engine)
        engine.dispose()
    found["milvus"] = backup_contents.products(address["MILVUS_URI"], "product_collection_v4")
    found["storage"] = backup_contents.files(installation.home / "storage")
    return found


def run_ids(found: dict[str, Any]) -> set[bytes]:
    return {line.split(b"\t")[1] for line in found["DAGSTER_POSTGRES_URL"]["public.runs"].splitlines()}


def run_yesterday(installation: Installation) -> dict[str, Any]:
    path = installation.home / "statistics.json"
    day = str(yesterday())
    result = installation.labeling("run", "--start", day, "--end", day, "--json", str(path))
    assert result.returncode == 0, result.stdout + result.stderr
    statistics: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return statistics


def run_demo(installation: Installation, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the demo, and try to back up in the middle of it; what that gave."""
    demo = installation.start("demo", "--days", "1", "--products", str(PRODUCTS), "--seed", str(SEED))
    while not (installation.home / "stack.json").exists():
        assert demo.poll() is None
        time.sleep(0.05)
    engine = sa.create_engine(addresses(installation)["DAGSTER_POSTGRES_URL"])
    while not _is_run_on(engine):
        assert demo.poll() is None
        time.sleep(0.05)
    engine.dispose()
    demo.send_signal(signal.SIGSTOP)
    try:
        return installation.labeling("backup", str(folder))
    finally:
        demo.send_signal(signal.SIGCONT)
        assert demo.wait(timeout=150) == 0, (installation.home / "command.log").read_text()


def _is_run_on(engine: sa.Engine) -> bool:
    with engine.connect() as connection:
        if not sa.inspect(connection).has_table("runs"):
            return False
        started = sa.text("select count(*) from runs where status = 'STARTED'")
        return bool(connection.execute(started).scalar())


@contextlib.contextmanager
def new_home() -> Iterator[Path]:
    """A folder that user `nobody` may enter."""
    with tempfile.TemporaryDirectory(prefix="labeling backup ") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture(scope="module")
def backed_up() -> Iterator[BackedUp]:
    with new_home() as places:
        folder = places / "backups" / "first"
        with installed(places / "home") as installation:
            refused = run_demo(installation, folder)
            assert installation.labeling("backup", str(installation.home / "backup")).returncode == 2
            before = contents(installation)
            result = installation.labeling("backup", str(folder))
            assert result.returncode == 0, result.stdout + result.stderr
            ports = (installation.home / "ports.json").read_text()
            password = (installation.home / "postgres" / "password").read_text().strip()
        assert password not in result.stdout + result.stderr + (folder / "manifest.json").read_text()
        shutil.rmtree(places / "home")
        yield BackedUp(folder, ports, before, result.stdout, refused)


@pytest.fixture
def fresh(backed_up: BackedUp) -> Iterator[Installation]:
    """A fresh home with the ports of the first."""
    with new_home() as home:
        (home / "ports.json").write_text(backed_up.ports)
        with installed(home) as installation:
            yield installation


def kill_when_printed(installation: Installation, text: str, *arguments: str) -> None:
    """Run a command and kill it with SIGKILL once it has printed a text, or let it end."""
    process = installation.start(*arguments)
    log = installation.home / "command.log"
    while process.poll() is None and text not in log.read_text():
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=0.005)
    process.kill()
    process.wait()
    assert text in log.read_text()


def test_a_backup_tells_what_it_holds_and_is_refused_while_something_runs(backed_up: BackedUp) -> None:
    for text in ("PostgreSQL, labeling", "PostgreSQL, dagster", "Milvus", "Storage", "B in ", "is not part of it"):
        assert text in backed_up.printed
    assert backed_up.refused.returncode == 1
    assert str(yesterday()) in backed_up.refused.stderr
    assert "nothing runs" in backed_up.refused.stderr
    assert "Traceback" not in backed_up.refused.stderr


def test_a_wiped_platform_is_restored_and_goes_on_where_it_was(backed_up: BackedUp, fresh: Installation) -> None:
    kill_when_printed(fresh, "Milvus", "restore", str(backed_up.folder))
    result = fresh.labeling("restore", str(backed_up.folder))
    assert result.returncode == 0, result.stdout + result.stderr
    assert contents(fresh) == backed_up.contents

    install_demo(Settings(home=fresh.home), seed=SEED, days=1, products_per_day=PRODUCTS, last_day=yesterday())
    statistics = run_yesterday(fresh)
    assert (statistics["model_calls"], statistics["insert_batches"], statistics["inserted_ids"]) == (0, 0, [])
    assert statistics["unchanged_count"] == len(backed_up.contents["milvus"]) > 0
    after = contents(fresh)
    assert after["milvus"] == backed_up.contents["milvus"]
    assert run_ids(after) > run_ids(backed_up.contents)
    assert len(run_ids(after)) == len(run_ids(backed_up.contents)) + 1


def test_a_damaged_backup_is_refused_before_anything_starts(backed_up: BackedUp, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(backed_up.folder, damaged)
    next(damaged.glob("storage/*/*.parquet")).write_bytes(b"")
    installation = Installation(tmp_path / "home")
    result = installation.labeling("restore", str(damaged))
    assert result.returncode == 2
    assert "1 of" in result.stderr
    assert "missing or damaged" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not installation.home.exists()
