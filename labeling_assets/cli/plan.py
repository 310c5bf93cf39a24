"""`labeling plan`: what labeling some days would take, before anything is paid."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.markup import escape
from rich.table import Table

from labeling_assets.cli.days import DAY
from labeling_assets.cli.output import output, plain_table
from labeling_assets.errors import ConfigurationError
from labeling_assets.settings import Settings

if TYPE_CHECKING:
    from labeling_assets.products.plan import DayPlan
    from labeling_assets.services.plan import Plan

SLOTS_UNKNOWN = (
    "LABELING_VISION_SLOTS is 0, so the slots are to be found: hours are those of one request at a time to each "
    "server, and a request costs the GPU's time as if it had it alone; both are upper bounds."
)


@click.command()
@click.option("--start", type=DAY, required=True, help="First day, YYYY-MM-DD.")
@click.option("--end", type=DAY, required=True, help="Last day, included.")
@click.option("--json", "json_path", type=click.Path(dir_okay=False, path_type=Path), help="Write the plan here.")
def plan(start: dt.date, end: dt.date, json_path: Path | None) -> None:
    """Show what labeling the days from --start to --end would take: calls, tokens, hours and cost.

    Reads PostgreSQL alone: nothing is fetched, and no model is asked about an image. Images are known by their content
    where their URL was fetched before; a URL that never was counts as an image of its own, so that the numbers are
    upper bounds. Estimates are the mean of the labels seen so far, with the 10th to 90th percentile of an image.
    """
    from labeling_assets.embedded import stack
    from labeling_assets.services.connect import Services
    from labeling_assets.services.plan import plan_days
    from labeling_assets.services.postgres import migrate

    if json_path and not json_path.parent.is_dir():
        raise ConfigurationError(f"--json: {json_path.parent} is no folder.", "Make it first.")
    settings = stack.start(Settings.load())
    migrate(Services(settings).product_database.engine)
    console = output()
    with console.status("Reading the days …"):
        made = plan_days(settings, start, end)
    console.print(_day_table(made))
    if made.use:
        console.print(_total_table(made))
    for note in _notes(made):
        console.print(note, soft_wrap=True)
    if json_path:
        text = json.dumps(asdict(made), ensure_ascii=False, indent=2, default=str)
        json_path.write_text(text + "\n", encoding="utf-8")
        console.print(f"Plan: {json_path}")


def _day_table(made: Plan) -> Table:
    table = plain_table("What labeling would take, by day", "day")
    names = ["rows", "images", "never fetched", "in ledger", "to label", "calls"]
    names += ["hours"] if made.use else []
    names += ["cost"] if made.use and made.has_prices else []
    for name in names:
        table.add_column(name, justify="right")
    for each in made.days:
        table.add_row(str(each.day), *_cells(made, each))
    table.add_section()
    table.add_row("[bold]total[/]", *_cells(made, made.total))
    return table


def _cells(made: Plan, each: DayPlan) -> list[str]:
    content, estimate = each.content, each.estimate
    counts = (content.rows, content.images, content.never_fetched, content.ledger_hits, content.to_label)
    cells = [f"{number:,}" for number in (*counts, round(estimate.calls))]
    means = [estimate.hours, estimate.cost if made.has_prices else None]
    return cells + [f"{spread.mean:,.2f}" for spread in means if spread]


def _total_table(made: Plan) -> Table:
    estimate = made.total.estimate
    table = plain_table("In total", "")
    for name in ("10th percentile", "expected", "90th percentile"):
        table.add_column(name, justify="right")
    measures = {
        "tokens read": (estimate.prompt_tokens, ",.0f"),
        "tokens written": (estimate.output_tokens, ",.0f"),
        "hours": (estimate.hours, ",.2f"),
        "cost": (estimate.cost if made.has_prices else None, ",.2f"),
    }
    for name, (spread, form) in measures.items():
        if spread:
            table.add_row(name, *(format(value, form) for value in (spread.low, spread.mean, spread.high)))
    return table


def _notes(made: Plan) -> list[str]:
    notes = [f"In use: {escape(str(made.version))}; {made.slots} requests at once."]
    if not made.are_slots_known:
        notes.append(SLOTS_UNKNOWN)
    if made.problem:
        notes.append(
            f"[yellow]The model's digest is not known:[/] {escape(made.problem)} Images in the ledger are counted by "
            "the name of the model; should it be another version, all of them are asked about again."
        )
    if made.use is None:
        notes.append("No label was ever made here: nothing is known of tokens, hours and cost; calls are one an image.")
    else:
        notes.append(
            f"Estimated from {made.use.images:,} labels of {made.use.source}, {made.use.calls:.2f} calls each; "
            "percentiles are those of one image."
        )
        if not made.has_prices:
            notes.append("Every price is 0, so that no cost is shown: LABELING_PRICE_… set them.")
    content = made.total.content
    if content.never_fetched:
        notes.append(f"{content.never_fetched:,} URLs were never fetched; several may show one image: an upper bound.")
    if content.of_earlier_days or content.unusable:
        notes.append(
            f"{content.of_earlier_days:,} images are of an earlier day too and count there; {content.unusable:,} URLs "
            "are known to deliver no usable image."
        )
    return notes
