"""`labeling init` and `labeling code-server`: what a deployment runs beside Dagster's own processes.

`labeling dev` does both by itself on a laptop.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Sequence

import click

from labeling_assets.cli.output import output
from labeling_assets.settings import Settings

MODULE, LOCATION = "labeling_assets.definitions", "labeling_assets"
START_SECONDS = 180.0
POLL_SECONDS = 0.5


@click.command()
def init() -> None:
    """Make our tables, Dagster's tables and pools, and its settings in LABELING_HOME.

    Brings them to this release where they are older. May be repeated at any time, also while runs are at work.
    """
    from labeling_assets import instance

    instance.prepare(Settings.load())
    output().print("Tables, pools and Dagster's settings are ready.")


@click.command("code-server")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address on which the code location listens.")
@click.option("--port", default=4000, show_default=True, type=click.IntRange(1, 65535), help="Its port.")
def code_server(host: str, port: int) -> None:
    """Serve the code location to a webserver and a daemon elsewhere, until SIGTERM.

    Runs are child processes of the server, so those that its predecessor left are gone, and nobody else notices. They
    are ended once this server answers: Dagster starts them again at once, and gives up where it cannot.
    """
    from labeling_assets import instance

    settings = instance.prepare(Settings.load())
    left_behind = _runs_at_work()
    command = [sys.executable, "-m", "dagster", "api", "grpc", "--module-name", MODULE, "--location-name", LOCATION]
    command += ["--host", host, "--port", str(port)]
    command += ["--log-format", "json"] if settings.log_format == "json" else []
    server = subprocess.Popen(command)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: server.send_signal(signal.SIGTERM))
    if _answers(server, port):
        _end(left_behind)
    sys.exit(server.wait())


def _runs_at_work() -> Sequence[str]:
    """Ids of the runs that a server launched and that did not end."""
    import dagster as dg

    from labeling_assets.abandoned_runs import RUNNING, has_process
    from labeling_assets.instance import dagster_instance

    with dagster_instance() as dagster:
        runs = dagster.get_runs(dg.RunsFilter(statuses=RUNNING))
    return [run.run_id for run in runs if not has_process(run)]


def _answers(server: subprocess.Popen[bytes], port: int) -> bool:
    """Wait until the server answers; False where it ended instead, or takes too long."""
    probe = [sys.executable, "-m", "dagster", "api", "grpc-health-check", "--port", str(port)]
    deadline = time.monotonic() + START_SECONDS
    while server.poll() is None and time.monotonic() < deadline:
        if subprocess.run(probe, capture_output=True, check=False).returncode == 0:
            return True
        time.sleep(POLL_SECONDS)
    return False


def _end(run_ids: Sequence[str]) -> None:
    """Report the runs as failed, and free the slots of pools that they and others before them hold."""
    from labeling_assets import instance
    from labeling_assets.abandoned_runs import end_abandoned_runs

    with instance.dagster_instance() as dagster:
        for run_id in run_ids:
            run = dagster.get_run_by_id(run_id)
            if run is not None and not run.is_finished:
                dagster.report_run_failed(run, "The process of this run is gone. What it finished is kept.")
        ended = end_abandoned_runs(dagster)
    if run_ids or ended:
        output().print(f"Ended {len(run_ids) + len(ended)} runs that a crash had left behind.")
