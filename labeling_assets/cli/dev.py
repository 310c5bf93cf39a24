"""`labeling dev`: the Dagster UI and daemon on the services of this home."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import click

from labeling_assets.cli.output import output
from labeling_assets.embedded.launcher import PR_SET_PDEATHSIG
from labeling_assets.errors import ConfigurationError
from labeling_assets.settings import Settings

STOP_SECONDS = 30


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address on which the UI listens.")
@click.option("--port", default=3000, show_default=True, help="Port of the UI.")
def dev(host: str, port: int) -> None:
    """Open the platform in the Dagster UI.

    Starts the services that are not set from outside, ends runs that a crash left behind, and runs the UI with its
    daemon until Ctrl+C. The services stay up; `labeling down` stops them.
    """
    import dagster as dg

    from labeling_assets import instance as dagster_instance
    from labeling_assets.abandoned_runs import end_abandoned_runs

    settings = dagster_instance.prepare(Settings.load())
    with _only_one(dagster_instance.dagster_home(settings)) as lock:
        with dg.DagsterInstance.get() as instance:
            ended = end_abandoned_runs(instance, is_boot=True)
        console = output()
        if ended:
            console.print(f"Ended {len(ended)} runs that a crash had left behind.")
        workspace = dagster_instance.PROJECT_FOLDER / "workspace.yaml"
        command = [sys.executable, "-m", "dagster", "dev", "-w", str(workspace), "-h", host, "-p", str(port)]
        command += ["--log-format", "json"] if settings.log_format == "json" else []
        console.print(f"Dagster UI: http://{host}:{port} (Ctrl+C stops it)")
        with _metrics(settings, host) as serve_metrics:
            code = _run_until_stopped(command, lock, serve_metrics)
    sys.exit(code)


@contextlib.contextmanager
def _metrics(settings: Settings, host: str) -> Iterator[Callable[[], None]]:
    """Take the port of the metrics where it is set, and give what serves them: a thread, which ends with us."""
    if not settings.metrics_port:
        yield lambda: None
        return
    from labeling_assets.metrics import metrics_server

    with metrics_server(settings, host, settings.metrics_port) as server:
        output().print(f"Metrics: http://{host}:{server.server_port}/metrics")
        thread = threading.Thread(target=server.serve_forever, daemon=True, name="metrics")
        yield thread.start
        if thread.is_alive():
            server.shutdown()


@contextlib.contextmanager
def _only_one(folder: Path) -> Iterator[int]:
    """Hold the lock of the home's UI, an open file: two daemons on one instance would launch every run twice."""
    with (folder / "dev.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigurationError(
                f"The UI of {folder.parent} is up already.", "Stop the other `labeling dev` first."
            ) from None
        yield file.fileno()


def _run_until_stopped(command: list[str], lock: int, once_started: Callable[[], None]) -> int:
    """Run a child in a session of its own and pass on to it once that we are to stop.

    What starts threads is called once the child runs: Python code between fork and exec can dead-lock beside threads.

    The child shares the lock, and is told to stop where we are killed. A shell that starts us in the background leaves
    SIGINT ignored, and Dagster maps SIGTERM to SIGINT's handler; so the child gets the default handler back.
    """

    def prepare_child() -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)

    process = subprocess.Popen(
        command,
        cwd="/",
        env=os.environ | {"PYTHONWARNINGS": "ignore"},
        start_new_session=True,
        pass_fds=(lock,),
        preexec_fn=prepare_child,
    )
    once_started()
    stopping = False

    def stop(*_: object) -> None:
        nonlocal stopping
        if not stopping:
            stopping = True
            process.send_signal(signal.SIGTERM)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    while True:
        try:
            code = process.wait(timeout=STOP_SECONDS if stopping else 1)
        except subprocess.TimeoutExpired:
            if stopping:
                os.killpg(process.pid, signal.SIGKILL)
        else:
            return 0 if stopping else code
