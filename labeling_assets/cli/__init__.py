"""`labeling …`: the platform from the command line.

Each module of this package holds the commands of one purpose. Commands load what they need when they run, so that
`--help` is quick. Exit codes: 0 done, 1 something failed, 2 a wrong setting or argument, 3 `status` of a stopped stack,
130 Ctrl+C.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import warnings

import click
from rich.markup import escape

from labeling_assets import logs
from labeling_assets.cli.backfill import backfill
from labeling_assets.cli.backup import backup, restore
from labeling_assets.cli.compare import compare
from labeling_assets.cli.deployment import code_server, init
from labeling_assets.cli.dev import dev
from labeling_assets.cli.doctor import doctor
from labeling_assets.cli.duplicates import duplicates
from labeling_assets.cli.heal import heal
from labeling_assets.cli.metrics import metrics
from labeling_assets.cli.output import output
from labeling_assets.cli.plan import plan
from labeling_assets.cli.quarantine import quarantine
from labeling_assets.cli.relabel import relabel
from labeling_assets.cli.run import demo, run
from labeling_assets.cli.search import search
from labeling_assets.cli.stack import down, status, up
from labeling_assets.cli.stale import stale
from labeling_assets.errors import ConfigurationError, LabelingError
from labeling_assets.settings import Settings


class Group(click.Group):
    """A group that prints an error of the platform as one line, not as a stack trace."""

    def invoke(self, ctx: click.Context) -> object:
        """Run the command; errors raised on purpose become a message and an exit code."""
        try:
            return super().invoke(ctx)
        except LabelingError as error:
            output(is_error=True).print(f"[red]Error:[/] {escape(str(error))}", soft_wrap=True)
            sys.exit(2 if isinstance(error, ConfigurationError) else 1)
        except OSError as error:
            output(is_error=True).print(f"[red]Error:[/] {escape(str(error))}.", soft_wrap=True)
            sys.exit(1)
        except KeyboardInterrupt:
            output(is_error=True).print("Stopped. What was finished is kept.")
            sys.stdout.flush()
            os._exit(130)  # threads at work do not hold the process; what they do is safe to cut off


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="labeling-assets")
@click.option("-v", "--verbose", is_flag=True, help="Log what the services do.")
def cli(*, verbose: bool) -> None:
    """Label, embed and index product images, a day at a time.

    Start with `labeling demo`. Settings are environment variables LABELING_…; see .env.example.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        # A shell's background job ignores SIGINT; Dagster ignores SIGTERM then, and child processes inherit it.
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)
    logs.configure(Settings.load(), logging.INFO if verbose else logging.WARNING)
    warnings.filterwarnings("ignore", module="dagster")


for command in (
    *(up, down, status, demo, dev, doctor, metrics),
    *(plan, run, backfill, heal, quarantine, relabel, stale, duplicates, compare, search),
    *(backup, restore, init, code_server),
):
    cli.add_command(command)


def main() -> None:
    """Entry point of the console script."""
    cli()
