"""`labeling relabel`: ask the model again about labels that are doubtful or stale; the stale ones by `stale.py`."""

from __future__ import annotations

import datetime as dt
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click
from rich.markup import escape

from labeling_assets.cli.budgets import budget_option
from labeling_assets.cli.days import DAY
from labeling_assets.cli.output import output
from labeling_assets.cli.stale import relabel_stale
from labeling_assets.errors import ConfigurationError
from labeling_assets.settings import Settings

if TYPE_CHECKING:
    from labeling_assets.services.relabel import ContradictingProduct, Reach

LISTED_PRODUCTS = 100


@click.command()
@click.option("--from-check", is_flag=True, help="Labels that contradict the title of their product.")
@click.option("--stale", is_flag=True, help="Labels of another model, prompt or schema than is in use now.")
@click.option("--day", type=DAY, help="Only this day.")
@click.option("--start", type=DAY, help="First day, YYYY-MM-DD; by default LABELING_LOOK_BACK_DAYS before today.")
@click.option("--end", type=DAY, help="Last day, included; by default yesterday.")
@budget_option
@click.option("--dry-run", is_flag=True, help="List them and do nothing else; costs nothing.")
def relabel(
    day: dt.date | None,
    start: dt.date | None,
    end: dt.date | None,
    budget: float | None,
    *,
    from_check: bool,
    stale: bool,
    dry_run: bool,
) -> None:
    """Label anew what a check found doubtful, or what another model, prompt or schema labeled.

    --from-check forgets the labels that contradict their titles, and runs their days again. A label belongs to an
    image: products that share one are labeled anew together. The model gives the same answer to the same image and
    prompt, so this helps most after the model was mended or changed.

    --stale labels the images of days with stale labels into the ledger, the most viewed first, until all are there or
    --budget is spent. Then it runs the days of which every image has a new label; an image on which the model server
    failed goes into quarantine there. The others keep their old labels, so that no day is half of one and half of the
    other; what was labeled for them is kept, and the next time goes on from there. By default it looks at every labeled
    day from LABELING_FIRST_DAY on.

    Exit code 1 if a day failed.
    """
    from labeling_assets import instance, runs
    from labeling_assets.cli.run import materialize
    from labeling_assets.services.relabel import contradicting_products, forget_labels, labeled_days, reach_of

    if from_check == stale:
        raise click.UsageError("Say which labels: --from-check or --stale.")
    if stale:
        if day and (start or end):
            raise ConfigurationError("--day cannot be given with --start or --end.", "Give one or the other.")
        relabel_stale(day or start, day or end, budget, dry_run=dry_run)
        return
    if budget is not None:
        raise click.UsageError("--budget goes with --stale.")
    settings = Settings.load()
    first, last = _range(settings, day, start, end)
    days = labeled_days(settings, first, last)
    products = contradicting_products(settings, days)
    if not products:
        output().print(f"No label contradicts its title on {len(days)} labeled days from {first} to {last}.")
        return
    reach = reach_of(settings, days, products)
    _show(products, reach)
    if dry_run:
        return
    settings = instance.prepare(settings)
    concerned = {str(each) for each in reach.days}
    known = runs.known_days(settings, reach.days[0], reach.days[-1])
    forgotten = forget_labels(settings, products)
    output().print(f"{forgotten} labels forgotten; {len(concerned)} days are run again.")
    statistics = materialize(settings, [each for each in known if each in concerned], None)
    asked = {(str(each.day), each.id_sanpham) for each in products}
    still = {(str(each.day), each.id_sanpham) for each in contradicting_products(settings, reach.days)}
    quarantined = asked & {(str(record["day"]), record["product_id"]) for record in statistics.failed_records}
    output().print(f"{len(asked - still - quarantined)} of {len(asked)} contradictions are gone.")
    if quarantined:
        output().print(f"{len(quarantined)} products have no label now: `labeling quarantine list` tells why.")
    if any(not result["is_success"] for result in statistics.days):
        sys.exit(1)


def _range(
    settings: Settings, day: dt.date | None, start: dt.date | None, end: dt.date | None
) -> tuple[dt.date, dt.date]:
    if day and (start or end):
        raise ConfigurationError("--day cannot be given with --start or --end.", "Give one or the other.")
    if day:
        return day, day
    today = dt.datetime.now(settings.zone).date()
    first = start or today - dt.timedelta(days=settings.look_back_days)
    last = end or today - dt.timedelta(days=1)
    if first > last:
        raise ConfigurationError(f"{first} is after {last}.", "Give --start and --end in the order of time.")
    return first, last


def _show(products: Sequence[ContradictingProduct], reach: Reach) -> None:
    console = output()
    for product in products[:LISTED_PRODUCTS]:
        console.print(f"[bold]{product.day}[/] [bold]{escape(repr(product.id_sanpham))}[/] {escape(product.title)}")
        for contradiction in product.contradictions:
            console.print(f"    {escape(str(contradiction))}")
    if len(products) > LISTED_PRODUCTS:
        console.print(f"{LISTED_PRODUCTS} of {len(products)} products are listed.")
    images = len({product.image_sha256 for product in products})
    console.print(f"{len(products)} labels contradict the title; {images} images, {len(reach.days)} days.")
    if reach.other_products:
        console.print(f"{reach.other_products} other products show the same images and get the new labels too.")
