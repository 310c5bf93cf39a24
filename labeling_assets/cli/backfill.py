"""`labeling backfill`: a range of days in one Dagster run, or only those of it that are missing."""

from __future__ import annotations

import datetime as dt
import sys

import click

from labeling_assets.cli.budgets import budget_option
from labeling_assets.cli.days import DAY
from labeling_assets.cli.output import output
from labeling_assets.settings import Settings


@click.command()
@click.option("--start", type=DAY, required=True, help="First day, YYYY-MM-DD.")
@click.option("--end", type=DAY, required=True, help="Last day, included.")
@click.option("--missing", is_flag=True, help="Only days whose source rows are not what the stores hold.")
@budget_option
def backfill(start: dt.date, end: dt.date, budget: float | None, *, missing: bool) -> None:
    """Materialize the days from --start to --end in one Dagster run, stage by stage.

    A day that fails does not stop the others, and is shown as failed. Stopped half-way and repeated, nothing that was
    finished is paid for again; --missing also leaves out the days that are done. With --budget, the day on which it is
    spent fails, and no later one is labeled. Exit code 1 if a day failed.
    """
    from labeling_assets import instance, runs
    from labeling_assets.cli.run import materialize

    settings = instance.prepare(Settings.load())
    days = runs.known_days(settings, start, end)
    if missing:
        days = _missing(settings, days)
        if not days:
            output().print("Both stores hold every day as the source has it.")
            return
    statistics = materialize(settings, days, in_one_run=True, budget=budget)
    if any(not day["is_success"] for day in statistics.days):
        sys.exit(1)


def _missing(settings: Settings, days: list[str]) -> list[str]:
    from labeling_assets.products.detection import is_changed
    from labeling_assets.services.connect import Services
    from labeling_assets.services.day_state import STORES, SyncedDays

    services = Services(settings)
    first, last = dt.date.fromisoformat(days[0]), dt.date.fromisoformat(days[-1])
    source = services.source_days.fingerprints(first, last)
    synced = SyncedDays(services.product_database.engine).find(first, last)
    return [str(day) for day, state in source.items() if is_changed(state, synced.get(day, {}), STORES)]
