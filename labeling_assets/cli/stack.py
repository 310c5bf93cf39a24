"""`labeling up`, `down` and `status`: the services of the laptop."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.markup import escape

from labeling_assets.settings import Settings

if TYPE_CHECKING:
    from labeling_assets.embedded.stack import ServiceStatus, StackStatus

NAMES = {"postgres": "PostgreSQL", "milvus": "Milvus", "image_host": "Demo image host"}
NOT_RUNNING = 3
"""Exit code of `status` when the stack does not run, as that of `systemctl status`."""
POLL_SECONDS = 0.5


@click.command()
@click.option("-d", "--detach", is_flag=True, help="Return once the services answer, and leave them running.")
def up(*, detach: bool) -> None:
    """Start the services on this machine: PostgreSQL and Milvus Lite.

    Their data and logs are in LABELING_HOME. A service that you run yourself (LABELING_POSTGRES_URL,
    LABELING_MILVUS_URI) is used and not started. Where the services run already, this only shows where they are.
    Without --detach they run until Ctrl+C.
    """
    from labeling_assets.embedded import stack

    settings = Settings.load()
    console = Console(highlight=False)
    has_started = not stack.is_running(settings)  # as far as is known if we are interrupted at once
    with _handled(signal.default_int_handler):  # a shell's background job has SIGINT ignored
        try:
            _, has_started = stack.start_or_attach(settings)
            state = stack.status(settings)
            _print(console, state)
            if not has_started:
                is_ours = state.supervisor_pid is not None
                console.print("The services were running already." if is_ours else "There is nothing to start.")
            elif detach:
                console.print("The services stay up until `labeling down`.")
            else:
                console.print("Ctrl+C stops the services.")
                while stack.is_running(settings):
                    time.sleep(POLL_SECONDS)
                console.print("The services were stopped from elsewhere.")
        except KeyboardInterrupt:
            with _handled(signal.SIG_IGN):
                if has_started:
                    console.print("Stopping …")
                    stack.stop(settings)
                    console.print("The services are stopped.")


@click.command()
def down() -> None:
    """Stop the services that `labeling up` started; their data stay."""
    from labeling_assets.embedded import stack

    was_running = stack.stop(Settings.load())
    Console(highlight=False).print("The services are stopped." if was_running else "No services were running.")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@click.option("--show-secrets", is_flag=True, help="Also print complete addresses, with passwords.")
def status(*, as_json: bool, show_secrets: bool) -> None:
    """Tell whether the services run, and every address that other programs need to connect.

    Exit code 0 when they run, 3 when not.
    """
    from labeling_assets.embedded import stack

    settings = Settings.load()
    state = stack.status(settings)
    secrets = stack.connection_environment(settings) if show_secrets else {}
    if as_json:
        content = _as_json(state) | ({"environment": secrets} if show_secrets else {})
        click.echo(json.dumps(content, indent=2, ensure_ascii=False))
    else:
        console = Console(highlight=False)
        _print(console, state)
        if not state.is_running:
            console.print("The services do not run; `labeling up` starts them.")
        for name, value in secrets.items():
            click.echo(f"{name}={value}")
    if not state.is_running:
        sys.exit(NOT_RUNNING)


@contextlib.contextmanager
def _handled(handler: Callable[[int, FrameType | None], object] | signal.Handlers) -> Iterator[None]:
    """What ends a program from outside, handled in one way for a while."""
    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


def _print(console: Console, state: StackStatus) -> None:
    """Print where everything is, for people."""
    for service in state.services:
        console.print(
            f"[bold]{NAMES[service.key]}[/]: {service.address}{_connection(service)}, {_health(service)}",
            soft_wrap=True,
        )
    for name, folder in (("Home", state.home), ("Dagster home", state.dagster_home), ("Logs", state.log_folder)):
        console.print(f"{name}: {escape(str(folder))}", soft_wrap=True)


def _connection(service: ServiceStatus) -> str:
    """What a person types into another program beside the address."""
    connection = service.connection
    if "user" in connection:
        dagster = connection["dagster"]
        other = f" and {dagster['database']}" if isinstance(dagster, dict) else ""
        return escape(f", user {connection['user']}, databases {connection['database']}{other}")
    return escape(f", collection {connection['collection']}") if "collection" in connection else ""


def _health(service: ServiceStatus) -> str:
    problem = f": {escape(service.problem)}" if service.problem and not service.is_healthy else ""
    if not service.is_external and service.pid is None:
        return f"stopped{problem}"
    owner = "yours" if service.is_external else f"process {service.pid}"
    answer = "[green]answers[/]" if service.is_healthy else "[red]does not answer[/]"
    return f"{answer} ({owner}){problem}"


def _as_json(state: StackStatus) -> dict[str, object]:
    content: dict[str, object] = {
        "is_running": state.is_running,
        "home": str(state.home),
        "dagster_home": str(state.dagster_home),
        "log_folder": str(state.log_folder),
        "supervisor_pid": state.supervisor_pid,
    }
    for service in state.services:
        content[service.key] = {
            **service.connection,
            "is_external": service.is_external,
            "is_healthy": service.is_healthy,
            "pid": service.pid,
            "problem": service.problem,
            "data_folder": service.data_folder and str(service.data_folder),
            "log_file": service.log_file and str(service.log_file),
        }
    return content
