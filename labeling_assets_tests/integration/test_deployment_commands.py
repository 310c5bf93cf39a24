"""`labeling init`, `code-server` and `backfill` on a home of their own, as a deployment runs them."""

from __future__ import annotations

import datetime as dt
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
import sqlalchemy as sa

from labeling_assets.abandoned_runs import end_abandoned_runs
from labeling_assets.embedded.ports import free_port
from labeling_assets.products.queries import SOURCE_COLUMNS
from labeling_assets_tests.integration.installation import Installation

TABLE = "ai_craw.product_marketing_summary"
DAYS = [dt.date(2026, 3, 10) + dt.timedelta(days=number) for number in range(3)]


@pytest.fixture(scope="module")
def installation() -> Iterator[Installation]:
    """A home whose source table has three days without a usable image; the second cannot be read."""
    home = Path(tempfile.mkdtemp(prefix="labeling deployment "))
    home.chmod(0o755)
    installation = Installation(home)
    try:
        assert installation.labeling("up", "--detach").returncode == 0
        engine = sa.create_engine(installation.address("POSTGRES_URL"))
        columns = ", ".join(f"{name} {kind}" for name, kind in SOURCE_COLUMNS.items())
        with engine.begin() as connection:
            connection.exec_driver_sql("create schema ai_craw")
            connection.exec_driver_sql(f"create table {TABLE} ({columns.replace('spend numeric', 'spend text')})")
            for day in DAYS:
                connection.exec_driver_sql(
                    f"insert into {TABLE} (product_id, image, published_at, spend) values (%s, %s, %s, %s)",
                    (f"P {day}", "http://127.0.0.1:1/a.jpg", f"{day} 12:00+07", "much" if day == DAYS[1] else "1"),
                )
        engine.dispose()
        yield installation
    finally:
        installation.labeling("down")
        shutil.rmtree(home)


def test_init_makes_everything_ready_and_may_be_repeated(installation: Installation) -> None:
    for _ in range(2):
        result = installation.labeling("init")
        assert result.returncode == 0, result.stderr
    assert installation.query("select count(*) from labeling.synced_days")[0][0] == 0
    assert installation.query("select count(*) from concurrency_limits", "DAGSTER_POSTGRES_URL")[0][0] >= 5
    assert (installation.home / "dagster" / "dagster.yaml").exists()


def test_a_backfill_does_the_good_days_and_names_the_bad_one(installation: Installation) -> None:
    result = installation.labeling("backfill", "--start", str(DAYS[0]), "--end", str(DAYS[-1]))
    assert result.returncode == 1
    assert f"{DAYS[1]} failed" in result.stdout
    assert "much" in result.stdout
    runs = installation.query("select status from runs", "DAGSTER_POSTGRES_URL")
    assert [row[0] for row in runs] == ["FAILURE"]
    synced = {row[0] for row in installation.query("select distinct day from labeling.synced_days")}
    assert synced == {DAYS[0], DAYS[2]}


def test_a_backfill_of_missing_days_leaves_out_those_that_are_done(installation: Installation) -> None:
    with sa.create_engine(installation.address("POSTGRES_URL")).begin() as connection:
        connection.exec_driver_sql(f"update {TABLE} set spend = '2' where spend = 'much'")
    arguments = ["backfill", "--missing", "--start", str(DAYS[0]), "--end", str(DAYS[-1])]
    result = installation.labeling(*arguments)
    assert result.returncode == 0, result.stdout + result.stderr
    assert str(DAYS[1]) in result.stdout
    assert str(DAYS[0]) not in result.stdout
    again = installation.labeling(*arguments)
    assert again.returncode == 0
    assert "Both stores hold every day" in again.stdout


def test_the_code_server_ends_what_its_predecessor_left_and_stops_on_sigterm(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABELING_DAGSTER_POSTGRES_URL", installation.address("DAGSTER_POSTGRES_URL"))
    port = free_port()
    with dg.DagsterInstance.from_config(str(installation.home / "dagster")) as instance:
        run = instance.create_run_for_job(nothing, status=dg.DagsterRunStatus.STARTED)
        assert end_abandoned_runs(instance) == []
        server = installation.start("code-server", "--port", str(port))
        try:
            wait_for_end_of(instance, run.run_id, server)
            assert answers(port)
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(timeout=60)
        assert not answers(port)


@dg.op
def work() -> None:
    """Nothing."""


@dg.job
def nothing() -> None:
    work()


def wait_for_end_of(instance: dg.DagsterInstance, run_id: str, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while not (run := instance.get_run_by_id(run_id)) or not run.is_finished:
        assert server.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert run.status is dg.DagsterRunStatus.FAILURE


def answers(port: int) -> bool:
    command = [sys.executable, "-m", "dagster", "api", "grpc-health-check", "--port", str(port)]
    return subprocess.run(command, capture_output=True, check=False, env=os.environ).returncode == 0
