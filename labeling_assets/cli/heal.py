"""`labeling heal`: where source, files, Milvus and `data_label` disagree, and its repair."""

from __future__ import annotations

import datetime as dt
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click
from rich.markup import escape
from rich.table import Table

from labeling_assets.cli.days import DAY
from labeling_assets.cli.output import output, plain_table
from labeling_assets.settings import Settings

if TYPE_CHECKING:
    from labeling_assets.services.drift import Drift
    from labeling_assets.services.healing import StoreHealer

SHOWN_IDS = 3


@click.command()
@click.option("--start", type=DAY, help="First day, YYYY-MM-DD.")
@click.option("--end", type=DAY, help="Last day, included.")
@click.option("--dry-run", is_flag=True, help="Only show what is wrong and what would be done.")
def heal(start: dt.date | None, end: dt.date | None, *, dry_run: bool) -> None:
    """Make Milvus and data_label agree with the source again, by repair from the files or by running days.

    Without --start and --end: every day that a store or a file knows. Doing it twice does nothing the second time.
    Exit codes: 0 everything agrees, 1 with --dry-run something is wrong, else something is left, 2 a wrong setting.
    """
    from labeling_assets import instance

    settings = instance.prepare(Settings.load())
    healer = _healer(settings)
    console = output()
    if dry_run:
        with console.status("Comparing …"):
            found = healer.find(start, end)
        console.print(_drift_table("What is wrong", found) if found else "Everything agrees.")
        sys.exit(1 if found else 0)
    with console.status("Comparing and repairing …"):
        healing = healer.heal(start, end)
    if healing.found:
        console.print(_drift_table("What was wrong", healing.found))
    left = healing.left
    if healing.days_to_run:
        _run(settings, healing.days_to_run)
        with console.status("Comparing again …"):
            left = healer.heal(start, end).left
    console.print(_drift_table("What is left", left) if left else "Everything agrees.")
    sys.exit(1 if left else 0)


def _run(settings: Settings, days: Sequence[dt.date]) -> None:
    """Run days; one that fails is told there, and is still wrong when the days are compared again."""
    from labeling_assets.cli.run import materialize

    materialize(settings, [str(day) for day in days], None)


def _healer(settings: Settings) -> StoreHealer:
    from labeling_assets.services.connect import Services
    from labeling_assets.services.healing import StoreHealer
    from labeling_assets.services.images.files import open_root

    services = Services(settings)
    yesterday = dt.datetime.now(settings.zone).date() - dt.timedelta(days=1)
    return StoreHealer(
        services.product_database,
        services.source_days,
        services.vector_store,
        open_root(settings.storage_root),
        (settings.first_day, yesterday),
    )


def _drift_table(title: str, drifts: Sequence[Drift]) -> Table:
    """One line for each; ids are shown as Python strings, since they may hold anything."""
    table = plain_table(title, "day", "what", "count", "sample, details", "mended by")
    table.columns[2].justify = "right"
    for drift in drifts:
        sample = [repr(id_) for id_ in drift.sample_ids[:SHOWN_IDS]] + (["…"] if drift.count > SHOWN_IDS else [])
        about = ", ".join([*sample, *([drift.details] if drift.details else [])])
        table.add_row(str(drift.day or ""), drift.kind, str(drift.count), escape(about), drift.remedy)
    return table
