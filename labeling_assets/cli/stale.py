"""`labeling stale`, and what `labeling relabel --stale` does: labels of another model, prompt or schema than in use."""

from __future__ import annotations

import datetime as dt
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import click
from rich.markup import escape
from rich.progress import track

from labeling_assets.cli.days import DAY
from labeling_assets.cli.output import output, plain_table
from labeling_assets.errors import BudgetSpentError, ConfigurationError, LabelError, RowError
from labeling_assets.settings import Settings

if TYPE_CHECKING:
    from labeling_assets.products.label_versions import LabelVersion
    from labeling_assets.services.ledger_use import LedgerUse
    from labeling_assets.services.relabel_stale import Answers
    from labeling_assets.services.stale import DayLabels
    from labeling_assets.services.vision.budget import Budget


@click.command()
@click.option("--start", type=DAY, help="First day, YYYY-MM-DD; by default the first that was ever labeled.")
@click.option("--end", type=DAY, help="Last day, included; by default the last.")
def stale(start: dt.date | None, end: dt.date | None) -> None:
    """List who made the labels of each day: model, prompt and schema; and which of them are stale.

    A label is stale when another model, prompt or schema is in use now than when it was made. Reads files alone; the
    model server is asked for the version of its model. `labeling relabel --stale` makes stale labels anew.
    """
    from labeling_assets.services.connect import Services
    from labeling_assets.services.images.files import open_root
    from labeling_assets.services.plan import current_version
    from labeling_assets.services.stale import labeled_days, read_day_labels

    settings = Settings.load()
    current, problem = current_version(Services(settings).vision_model)
    root = open_root(settings.storage_root)
    days = read_day_labels(root, labeled_days(root, start, end))
    _show(days, current, problem)
    if any(day.problem for day in days):
        sys.exit(1)


def _show(days: Sequence[DayLabels], current: LabelVersion, problem: str) -> None:
    console = output()
    if days:
        table = plain_table("Who made the labels", "day", "labels", "model, prompt and schema", "")
        table.columns[1].justify = "right"
        for day in days:
            if day.problem:
                table.add_row(str(day.day), "", f"[red]{escape(day.problem)}[/]", "")
            for version, count in day.counts.items():
                state = "" if current.has_made(version) else "[yellow]stale[/]"
                table.add_row(str(day.day), f"{count:,}", escape(str(version)), state)
        console.print(table)
    console.print(f"In use: {escape(str(current))}.")
    if problem:
        console.print(
            f"[yellow]The model's digest is not known:[/] {escape(problem)} Models are compared by name.",
            soft_wrap=True,
        )
    stale_labels, labels = sum(day.stale(current) for day in days), sum(day.total for day in days)
    stale_days = sum(day.stale(current) > 0 for day in days)
    console.print(f"{stale_labels:,} of {labels:,} labels are stale, on {stale_days} of {len(days)} days.")


def relabel_stale(start: dt.date | None, end: dt.date | None, budget: float | None, *, dry_run: bool) -> None:
    """Make stale labels anew, as far as the budget goes; see the help of `labeling relabel`.

    Raises:
        ConfigurationError: The model is not there.
    """
    from labeling_assets import instance, runs
    from labeling_assets.services.connect import Services
    from labeling_assets.services.images.files import open_root
    from labeling_assets.services.ledger_use import LedgerUse
    from labeling_assets.services.plan import current_version
    from labeling_assets.services.relabel_stale import stale_images
    from labeling_assets.services.stale import labeled_days, read_day_labels

    settings = instance.prepare(Settings.load())
    money = _budget(settings, budget)
    services, root, console = Services(settings), open_root(settings.storage_root), output()
    current, problem = current_version(services.vision_model)
    if problem:
        raise ConfigurationError(problem, "Stale labels are known by the model in use.")
    days = read_day_labels(root, labeled_days(root, start, end))
    _show(days, current, "")
    partitions = set(runs.all_days())
    if strangers := [day for day in days if str(day.day) not in partitions]:
        console.print(
            f"{len(strangers)} days are left out, since no run makes them: they are before LABELING_FIRST_DAY "
            f"{settings.first_day}, or not over.",
            soft_wrap=True,
        )
    images = stale_images(root, [day for day in days if str(day.day) in partitions], current)
    for day, reason in images.problems.items():
        console.print(f"[red]{day} is left out:[/] {escape(reason)}. Run the day: `labeling run`.", soft_wrap=True)
    if not images.by_day:
        return
    answers, ledger = _answers(settings, current), LedgerUse(services.product_database.engine)
    missing = answers.missing(images.phashes)
    asked = answers.to_ask(missing)
    alike = len(missing) - len(asked)
    console.print(
        f"{len(asked):,} images have no label of the version in use yet"
        + (f"; {alike:,} others take the labels of near duplicates." if alike else "."),
        soft_wrap=True,
    )
    if dry_run:
        _show_estimate(settings, ledger, current, len(asked))
        return
    failed = _label(settings, missing, answers, money)
    complete = answers.complete_days(images, missing, failed)
    left = len(images.by_day) - len(complete)
    if left:
        console.print(
            f"{left} days stay as they are: images of them have no new label yet. What was labeled is kept; go on with "
            "the same command. Images that the store has lost are fetched again by `labeling run`.",
            soft_wrap=True,
        )
    if complete:
        _run(settings, complete, money)


def _budget(settings: Settings, amount: float | None) -> Budget | None:
    from labeling_assets.services.vision.budget import Budget, worst_call_cost

    if amount is None:
        return None
    worst = worst_call_cost(settings.prices, settings.vision_timeout_seconds, settings.vision_context_tokens)
    return Budget(amount, settings.prices, worst)


def _answers(settings: Settings, current: LabelVersion) -> Answers:
    from labeling_assets.services.connect import Services
    from labeling_assets.services.ledger_use import LedgerUse
    from labeling_assets.services.near_duplicates import NearDuplicates
    from labeling_assets.services.relabel_stale import Answers

    engine, is_shared = Services(settings).product_database.engine, settings.share_labels == "near_duplicates"
    near = NearDuplicates(engine, settings.near_duplicate_bits) if is_shared else None
    return Answers(LedgerUse(engine), current, near)


def _show_estimate(settings: Settings, ledger: LedgerUse, current: LabelVersion, images: int) -> None:
    from labeling_assets.cli.plan import SLOTS_UNKNOWN
    from labeling_assets.products.plan import estimate
    from labeling_assets.services.connect import Services
    from labeling_assets.services.plan import known_slots

    slots, are_slots_known = known_slots(settings, Services(settings).vision_model)
    expected = estimate(images, ledger.seen(current.key), slots, settings.prices)
    told = f"About {expected.calls:,.0f} calls"
    if expected.hours and expected.cost:
        told += f", {expected.hours.mean:,.2f} hours, cost {expected.cost.mean:,.2f}"
        told += f" ({expected.cost.low:,.2f}–{expected.cost.high:,.2f})"
    output().print(f"{told}.")
    if expected.hours and not are_slots_known:
        output().print(SLOTS_UNKNOWN, soft_wrap=True)


def _label(settings: Settings, missing: Mapping[str, str], answers: Answers, budget: Budget | None) -> set[str]:
    """Label images into the ledger, most viewed first, until all are there or the budget is spent.

    Returns:
        Those on which the model server failed, so that a run asks about them again; none when nothing is left for that.
    """
    from labeling_assets.services.connect import Services
    from labeling_assets.services.ledger import LabelLedger
    from labeling_assets.services.vision.labeler import Labeler

    services, console = Services(settings), output()
    labeler = Labeler(services.vision_model, LabelLedger(services.product_database.engine), budget=budget)
    tried: set[str] = set()
    failed: set[str] = set()
    without_label = 0
    try:
        # Where labels are shared and an image gets none, one that it stood for is asked about in the next round.
        while asked := answers.to_ask(missing):
            outcomes = labeler.label_all(asked, services.image_store.model_jpeg)
            hidden = not console.is_terminal
            for sha, outcome in track(
                outcomes, "Labeling", len(asked), console=console, transient=True, disable=hidden
            ):
                tried.add(sha)
                without_label += isinstance(outcome, RowError)
                if isinstance(outcome, LabelError) and outcome.can_retry:
                    failed.add(sha)
            missing = {sha: phash for sha, phash in answers.missing(missing).items() if sha not in tried}
    except BudgetSpentError as error:
        failed.clear()
        console.print(f"[yellow]{escape(str(error))}[/]", soft_wrap=True)
    counts = labeler.counts
    cost = settings.prices.cost(counts.prompt_tokens, counts.output_tokens, counts.model_seconds)
    console.print(f"{counts.model_calls:,} calls, cost {cost:,.4g}; {without_label:,} images without a label.")
    return failed


def _run(settings: Settings, days: Sequence[dt.date], budget: Budget | None) -> None:
    """Run days of which no image is to be asked about, with what is left for what the source has new."""
    from labeling_assets.cli.run import materialize

    rest = None if budget is None else max(budget.amount - budget.spent, 0.0)
    statistics = materialize(settings, list(map(str, days)), budget=rest)
    if any(not day["is_success"] for day in statistics.days):
        sys.exit(1)
