"""`labeling up`, `down` and `status`: the services of the laptop."""

from __future__ import annotations

import json
import signal
import sys
import time
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from labeling_assets.settings import PREFIX, Settings

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

    Their data and logs are in LABELING_HOME. A service that you run yourself (LABELING_POSTGRES_URL, LABELING_MILVUS_URI) is
    used and not started. Where the services run already, this only shows where they are. Without --detach they run until
    Ctrl+C.
    """
    from labeling_assets.embedded import stack

    settings = Settings.load()
    console = Console(highlight=False)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)  # a shell's background job has SIGINT ignored
    was_running = stack.is_running(settings)
    has_started = not was_running
    try:
        _, has_started = stack.start_or_attach(settings)
        state = stack.status(settings)
        _print(console, state)
        if not has_started:
            console.print("Nothing to start." if state.supervisor_pid is None else "The services were running already.")
        elif detach:
            console.print("The services stay up until `labeling down`.")
        else:
            console.print("Ctrl+C stops the services.")
            while stack.is_running(settings):
                time.sleep(POLL_SECONDS)
            console.print("The services were stopped from elsewhere.")
    except KeyboardInterrupt:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
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
    secrets = stack.connection_secrets(settings) if show_secrets else {}
    if as_json:
        sys.stdout.write(json.dumps(_as_json(state) | secrets, indent=2, ensure_ascii=False) + "\n")
    else:
        console = Console(highlight=False)
        _print(console, state)
        for name, value in secrets.items():
            console.print(f"{name}={value}", markup=False, soft_wrap=True)
    if not state.is_running:
        sys.exit(NOT_RUNNING)
