"""`labeling run` and `labeling demo`: materialize days through Dagster and tell what happened."""

from __future__ import annotations

import datetime as dt
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from labeling_assets.cli.budgets import budget_option
from labeling_assets.cli.days import DAY
from labeling_assets.cli.output import output, plain_table
from labeling_assets.errors import ConfigurationError
from labeling_assets.settings import Settings

if TYPE_CHECKING:
    from labeling_assets.run_statistics import RunStatistics
    from labeling_assets.runs import DayResult

EXAMPLE_SEARCHES = ("best dad ever mug", "quà tặng mẹ", "christmas gift for grandma")


@click.command()
@click.option("--start", type=DAY, required=True, help="First day, YYYY-MM-DD.")
@click.option("--end", type=DAY, required=True, help="Last day, included.")
@click.option("--limit", type=click.IntRange(min=1), help="At most so many rows a day; nothing is removed then.")
@budget_option
@click.option("--json", "json_path", type=click.Path(dir_okay=False, path_type=Path), help="Write the statistics here.")
def run(start: dt.date, end: dt.date, limit: int | None, budget: float | None, json_path: Path | None) -> None:
    """Materialize the days from --start to --end, both included.

    Each day is one Dagster run. Repeating a day costs nothing for what is unchanged. With --budget, the day on which it
    is spent fails, and no later one is begun; what is labeled is kept. Exit code 1 if a day failed.
    """
    from labeling_assets import instance, runs

    if json_path and not json_path.parent.is_dir():
        raise ConfigurationError(f"--json: {json_path.parent} is no folder.", "Make it first.")
    settings = instance.prepare(Settings.load())
    days = runs.known_days(settings, start, end)
    statistics = materialize(settings, days, limit, budget=budget)
    if json_path:
        statistics.write(json_path)
        output().print(f"Statistics: {json_path}")
    if any(not day["is_success"] for day in statistics.days):
        sys.exit(1)


@click.command()
@click.option("--days", default=7, show_default=True, type=click.IntRange(1, 366), help="Days of the catalogue.")
@click.option("--products", default=40, show_default=True, type=click.IntRange(1), help="Products a day, about.")
@click.option("--seed", default=7, show_default=True, help="Another seed draws another catalogue.")
def demo(days: int, products: int, seed: int) -> None:
    """Fill the database with a demo catalogue and run every day of it.

    Starts the services, draws the product images, materializes each day as a Dagster run, and shows three searches.
    Repeating it costs nothing for what is unchanged.
    """
    from labeling_assets import instance, runs
    from labeling_assets.embedded.demo.install import install_demo

    settings = Settings.load()
    console = output()
    with console.status("Drawing the demo catalogue and starting PostgreSQL and Milvus …"):
        last_day = dt.datetime.now(settings.zone).date() - dt.timedelta(days=1)
        settings = install_demo(settings, seed=seed, days=days, products_per_day=products, last_day=last_day)
        settings = instance.prepare(settings)
    first_day = last_day - dt.timedelta(days=days - 1)
    statistics = materialize(settings, runs.known_days(settings, first_day, last_day), None)
    for text in EXAMPLE_SEARCHES:
        console.print(f'\n[bold]labeling search "{text}"[/]')
        _show_search(console, settings, text)
    console.print(
        f"\nOpen the UI with [bold]make dev[/]: http://127.0.0.1:3000. Stop the services: [bold]{sys.argv[0]} down[/]"
    )
    if any(not day["is_success"] for day in statistics.days):
        sys.exit(1)


def materialize(
    settings: Settings,
    days: Sequence[str],
    limit: int | None = None,
    *,
    in_one_run: bool = False,
    budget: float | None = None,
) -> RunStatistics:
    """Run the days with a progress display, print the tables, and return the statistics."""
    from labeling_assets import runs
    from labeling_assets.cli.progress import show_progress
    from labeling_assets.run_statistics import statistics_of

    for number in (signal.SIGINT, signal.SIGTERM):  # both end the run in good order
        signal.signal(number, signal.default_int_handler)
    console = output()
    with show_progress(console, days) as progress:
        results = runs.run_days(
            days, limit=limit, budget=budget, in_one_run=in_one_run, on_stage=progress.stage, on_day=progress.day
        )
    console.print(_day_table(results))
    console.print(_stage_table(results))
    for result in results:
        if not result.is_success:
            console.print(f"[red]{result.day} failed:[/] {escape(result.failure)}")
    if len(results) < len(days):
        console.print(f"{len(days) - len(results)} later days were not begun, because the budget is spent.")
    statistics = statistics_of(settings, results)
    console.print(_statistics_table(statistics))
    if statistics.failed_records:
        console.print(_quarantine_summary(statistics))
    return statistics


def _day_table(results: Sequence[DayResult]) -> Table:
    table = plain_table("What happened, by day", "day")
    columns = {
        "crawled": ("raw_products", "rows_in"),
        "labeled": ("qwen_labels", "rows_out"),
        "calls": ("qwen_labels", "model_calls"),
        "new": ("milvus_collection", "rows_new"),
        "upd.": ("milvus_collection", "rows_updated"),
        "same": ("milvus_collection", "rows_unchanged"),
        "gone": ("milvus_collection", "rows_removed"),
    }
    for name in (*columns, "quar.", "seconds"):
        table.add_column(name, justify="right")
    for result in results:
        quarantined = sum(int(values.get("rows_quarantined", 0)) for values in result.stages.values())
        counts = [str(result.value(stage, key)) for stage, key in columns.values()]
        day = result.day if result.is_success else f"[red]{result.day} ✗[/]"
        table.add_row(day, *counts, str(quarantined), f"{result.seconds:.1f}")
    return table


def _stage_table(results: Sequence[DayResult]) -> Table:
    from labeling_assets.runs import STAGES

    table = plain_table("What happened, by stage", "asset")
    for name in ("rows in", "rows out", "quarantined", "seconds"):
        table.add_column(name, justify="right")
    for stage in STAGES:
        keys = ("rows_in", "rows_out", "rows_quarantined")
        sums = [sum(result.value(stage, key) for result in results) for key in keys]
        seconds = sum(float(result.stages.get(stage, {}).get("seconds", 0.0)) for result in results)
        table.add_row(stage, *map(str, sums), f"{seconds:.1f}")
    return table


def _statistics_table(statistics: RunStatistics) -> Table:
    table = plain_table("Statistics", "name")
    table.add_column("value", justify="right")
    for name, value in vars(statistics).items():
        if isinstance(value, int | float):
            table.add_row(name, str(value))
        elif name in ("inserted_ids", "failed_records"):
            table.add_row(name, f"{len(value)} (listed by --json)")
    return table


def _quarantine_summary(statistics: RunStatistics) -> str:
    classes: dict[str, int] = {}
    for record in statistics.failed_records:
        classes[record["error_class"]] = classes.get(record["error_class"], 0) + 1
    listed = ", ".join(f"{count} {name}" for name, count in sorted(classes.items()))
    return f"In quarantine: {listed}. `labeling quarantine list` shows each row."


def _show_search(console: Console, settings: Settings, text: str) -> None:
    from labeling_assets.cli.search import find, hit_table

    console.print(hit_table(find(settings, text, limit=3)))
