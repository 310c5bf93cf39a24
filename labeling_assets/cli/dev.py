"""`labeling dev`: the Dagster UI, its daemon and the code location on the services of this home.

Everything that it needs is kept running: code location, webserver and daemon are started again when they end, and so
are the services when their supervisor was killed. What fails again and again ends the command with an error; a service
manager may then start it anew. Not `dagster dev`: that ends with its daemon or webserver (with exit code 0), goes on
without its code location when that is killed, and leaves all three behind when it is killed itself.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import click

from labeling_assets.cli.deployment import LOCATION, MODULE
from labeling_assets.cli.kept_processes import KeptProcess
from labeling_assets.cli.output import output
from labeling_assets.embedded.lock import LockFile
from labeling_assets.embedded.ports import LOOPBACK, free_port, is_port_free
from labeling_assets.errors import ConfigurationError, LabelingError
from labeling_assets.settings import Settings

STOP_SECONDS = 30.0
"""Time that runs at work get to note that they are interrupted, and Dagster's processes to end."""
LOOK_SECONDS = 0.5
SERVICE_LOOK_SECONDS = 5.0


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address on which the UI listens.")
@click.option("--port", default=3000, show_default=True, type=click.IntRange(1, 65535), help="Port of the UI.")
def dev(host: str, port: int) -> None:
    """Open the platform in the Dagster UI.

    Starts the services that are not set from outside, ends runs that a crash left behind, and runs the UI with its
    daemon until Ctrl+C; what dies meanwhile is started again. Ctrl+C also stops runs at work; they are tried again at
    the next start. The services stay up; `labeling down` stops them.
    """
    from labeling_assets import instance

    given = Settings.load()
    settings = instance.prepare(given)
    console = output()
    with _only_one(instance.dagster_home(settings)) as lock:
        _end_abandoned_runs()
        if not is_port_free(port):
            raise ConfigurationError(f"Port {port} is taken by another program.", "Choose another --port.")
        console.print(f"Dagster UI: http://{host}:{port} (Ctrl+C stops it)")
        with _metrics(settings, host):
            _Platform(given, settings, lock, host, port).keep_running()


class _Platform:
    """Dagster's three processes, and an eye on the services.

    Args:
        given: The settings as they were given.
        settings: The settings with all addresses.
        lock: Open file with the lock of the UI.
        host: Address of the UI.
        port: Its port.
    """

    def __init__(self, given: Settings, settings: Settings, lock: int, host: str, port: int) -> None:
        from labeling_assets.instance import dagster_home

        self._given = given
        self._is_stopping = False
        self._next_look_at_services = 0.0
        code_port = free_port()
        workspace = dagster_home(settings) / "workspace.yaml"
        workspace.write_text(
            f"load_from:\n  - grpc_server:\n      host: {LOOPBACK}\n      port: {code_port}\n"
            f"      location_name: {LOCATION}\n"
        )
        log_format = ["--log-format", "json"] if settings.log_format == "json" else []

        def kept(name: str, death_signal: signal.Signals, *arguments: str) -> KeptProcess:
            return KeptProcess(name, [sys.executable, "-m", *arguments, *log_format], death_signal, lock)

        code = ["dagster", "api", "grpc", "--module-name", MODULE, "--location-name", LOCATION]
        code += ["--host", LOOPBACK, "--port", str(code_port), "--log-level", "warning"]
        webserver = ["dagster_webserver", "-h", host, "-p", str(port), "-w", str(workspace)]
        daemon = ["labeling_assets.daemon", "run", "-w", str(workspace)]
        # A code location that is told to stop waits for its runs; these go on without it, and are known by their tags.
        self._code_location = kept("code location", signal.SIGKILL, *code)
        self._kept = [
            self._code_location,
            kept("webserver", signal.SIGTERM, *webserver),
            kept("daemon", signal.SIGTERM, *daemon),
        ]

    def keep_running(self) -> None:
        """Keep all running until a signal.

        Raises:
            ServiceUnavailableError: A process ends again and again.
        """
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._request_stop)
        try:
            while not self._is_stopping:
                self._look_at_services()
                for each in self._kept:
                    each.look(output())
                time.sleep(LOOK_SECONDS)
        finally:
            self._stop()

    def _request_stop(self, *_: object) -> None:
        self._is_stopping = True

    def _look_at_services(self) -> None:
        """Start killed services again; where their addresses moved, Dagster's processes start again with the new ones.

        Services that `labeling down` stopped stay down.
        """
        from labeling_assets import instance
        from labeling_assets.embedded import stack

        if time.monotonic() < self._next_look_at_services:
            return
        try:
            if stack.was_killed(self._given):
                output().print("The services were killed; they are started again.")
                stack.start(self._given)
            environment = instance.environment(stack.addresses(self._given))
        except LabelingError as error:
            output(is_error=True).print(f"[red]Error:[/] {error}", soft_wrap=True)
            environment = {}
        self._next_look_at_services = time.monotonic() + SERVICE_LOOK_SECONDS
        if not environment.items() <= os.environ.items():
            output().print("The addresses of the services have changed.")
            os.environ.update(environment)
            self._stop()

    def _stop(self) -> None:
        """Stop Dagster's processes; runs at work are interrupted."""
        for run in self._code_location.children():
            run.terminate()
        for each in self._kept:
            each.tell_to_stop()
        deadline = time.monotonic() + STOP_SECONDS
        for each in self._kept:
            each.wait_or_kill(deadline)


def _end_abandoned_runs() -> None:
    import dagster as dg

    from labeling_assets.abandoned_runs import end_abandoned_runs

    with dg.DagsterInstance.get() as instance:
        ended = end_abandoned_runs(instance, is_boot=True)
    if ended:
        output().print(f"Ended {len(ended)} runs that a crash had left behind.")


@contextlib.contextmanager
def _metrics(settings: Settings, host: str) -> Iterator[None]:
    """Serve the metrics in a thread, where their port is set."""
    if not settings.metrics_port:
        yield
        return
    from labeling_assets.metrics import metrics_server

    with metrics_server(settings, host, settings.metrics_port) as server:
        output().print(f"Metrics: http://{host}:{server.server_port}/metrics")
        threading.Thread(target=server.serve_forever, daemon=True, name="metrics").start()
        yield
        server.shutdown()


@contextlib.contextmanager
def _only_one(folder: Path) -> Iterator[int]:
    """Hold the lock of the home's UI, an open file: two daemons on one instance would launch every run twice.

    What a killed `labeling dev` has left is waited for.
    """
    lock_file = LockFile(folder / "dev.lock")
    lock = lock_file.try_take()
    if lock is None:
        owner = lock_file.owner()
        if owner is not None and owner.is_alive():
            raise ConfigurationError(
                f"The UI of {folder.parent} is up already.", "Stop the other `labeling dev` first."
            )
        lock = lock_file.take(signal.SIGTERM)
    try:
        yield lock
    finally:
        os.close(lock)
