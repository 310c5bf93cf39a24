"""`labeling up`, `down` and `status` on real services."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest
import sqlalchemy as sa
from click.testing import CliRunner

from labeling_assets.cli.stack import down, status, up
from labeling_assets.embedded import stack
from labeling_assets.settings import Settings
from labeling_assets_tests.embedded.stack_probes import (
    processes_of,
    urls,
)


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
    url = sa.make_url(urls(started)[0])
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
    assert [secret["LABELING_POSTGRES_URL"], secret["LABELING_MILVUS_URI"]] == urls(started)
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
