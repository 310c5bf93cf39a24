"""`labeling quarantine`: rows that could not be processed, why, and another try."""

from __future__ import annotations

import datetime as dt
import sys
from typing import TYPE_CHECKING

import click
from rich.markup import escape

from labeling_assets.cli.days import DAY
from labeling_assets.cli.output import output, plain_table
from labeling_assets.settings import Settings

if TYPE_CHECKING:
    from labeling_assets.services.quarantine import Quarantine


@click.group()
def quarantine() -> None:
    """Rows that could not be processed, and why."""


@quarantine.command("list")
@click.option("--day", type=DAY, help="Only this day.")
@click.option("--stage", help="Only this asset, such as product_images.")
@click.option("--retryable", is_flag=True, help="Only rows for which a retry can help.")
@click.option("--limit", default=100, show_default=True, type=click.IntRange(1), help="At most so many rows.")
def list_rows(day: dt.date | None, stage: str | None, *, retryable: bool, limit: int) -> None:
    """List the rows in quarantine, newest day first; ids are shown as Python strings, since they may hold anything."""
    rows = _quarantine().find(day=day, stage=stage, can_retry=True if retryable else None, limit=limit + 1)
    console = output()
    if not rows:
        console.print("No row matches." if day or stage or retryable else "Nothing is in quarantine.")
        return
    for row in rows[:limit]:
        end = f"{row.attempts} attempts{', a retry can help' if row.can_retry else ''}"
        console.print(f"[bold]{row.day}[/] {row.stage} [bold]{escape(repr(row.product_id))}[/], {end}")
        console.print(f"    [red]{row.error_class}[/] {escape(row.message)}")
    if len(rows) > limit:
        console.print(f"These are {limit} rows; there are more, which --limit shows.")


@quarantine.command()
@click.argument("product_id")
def show(product_id: str) -> None:
    """Show all that is known of one product in quarantine."""
    rows = _quarantine().find(product_id=product_id)
    if not rows:
        output(is_error=True).print(f"{product_id!r} is not in quarantine.", markup=False)
        sys.exit(1)
    for row in rows:
        table = plain_table()
        table.show_header = False
        for name, value in vars(row).items():
            table.add_row(name, escape(str(value)))
        output().print(table)


@quarantine.command()
@click.option("--day", type=DAY, help="Only this day.")
@click.option("--product", "product_id", help="Only this product.")
@click.option("--stage", help="Only rows of this asset.")
@click.option("--all", "everything", is_flag=True, help="Also rows for which a retry is not expected to help.")
def retry(day: dt.date | None, product_id: str | None, stage: str | None, *, everything: bool) -> None:
    """Try rows in quarantine again: forget what is remembered of their image and label, and run their days.

    Without options, rows for which a retry can help. Naming a product tries it whatever its reason.
    """
    from labeling_assets import instance, runs
    from labeling_assets.cli.run import materialize
    from labeling_assets.services.retry import forget_outcomes

    settings = instance.prepare(Settings.load())
    can_retry = None if everything or product_id else True
    rows = _quarantine().find(day=day, stage=stage, product_id=product_id, can_retry=can_retry)
    if not rows:
        output().print("No row matches.")
        return
    forget_outcomes(settings, rows)
    days = sorted({str(row.day) for row in rows})
    known = runs.known_days(settings, dt.date.fromisoformat(days[0]), dt.date.fromisoformat(days[-1]))
    statistics = materialize(settings, [each for each in known if each in days], None)
    still = {(str(record["day"]), record["product_id"], record["stage"]) for record in statistics.failed_records}
    healed = sum((str(row.day), row.product_id, row.stage) not in still for row in rows)
    output().print(f"{healed} of {len(rows)} rows left the quarantine.")
    if any(not result["is_success"] for result in statistics.days):
        sys.exit(1)


def _quarantine() -> Quarantine:
    """The quarantine of this home; listing it needs no Dagster."""
    from labeling_assets.embedded import stack
    from labeling_assets.services.connect import Services
    from labeling_assets.services.postgres import migrate
    from labeling_assets.services.quarantine import Quarantine

    engine = Services(stack.start(Settings.load())).product_database.engine
    migrate(engine)
    return Quarantine(engine)
