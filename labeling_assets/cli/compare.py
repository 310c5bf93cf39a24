"""`labeling compare`: two models or prompts on the same images, before one of them is put to work."""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from labeling_assets.cli.days import DAY
from labeling_assets.cli.output import output, plain_table
from labeling_assets.errors import ConfigurationError
from labeling_assets.settings import Settings

if TYPE_CHECKING:
    from labeling_assets.products.comparison import Quality, SideScore
    from labeling_assets.products.evaluation import Evaluation
    from labeling_assets.services.comparison import Progress as OnProgress
    from labeling_assets.services.comparison import Sample, SideChoice

FILE = click.Path(dir_okay=False, path_type=Path)
SIDE = "MODEL[@PROMPT]"


@click.command()
@click.option("--a", "text_a", metavar=SIDE, required=True, help="One side.")
@click.option("--b", "text_b", metavar=SIDE, required=True, help="The other side.")
@click.option("--sample", "size", required=True, type=click.IntRange(1, 10_000), help="Images, at most.")
@click.option("--seed", default=0, show_default=True, help="Another seed draws other images.")
@click.option("--start", type=DAY, help="First day, YYYY-MM-DD; by default LABELING_LOOK_BACK_DAYS before today.")
@click.option("--end", type=DAY, help="Last day, included; by default yesterday.")
@click.option("--out", "page", type=FILE, help="Write a page with the images side by side here (HTML).")
@click.option("--json", "result", type=FILE, help="Write all that was found here.")
def compare(
    text_a: str,
    text_b: str,
    size: int,
    seed: int,
    start: dt.date | None,
    end: dt.date | None,
    page: Path | None,
    result: Path | None,
) -> None:
    """Label the same images with two models or prompts, and tell where they differ and what each takes.

    MODEL is `embedded`, `ollama:name`, `openai:name`, or a bare name of the backend in use; before `@` it may be left
    out for the model in use. PROMPT is a version or the path of a text file. Images are drawn by product type, the same
    ones every time. What a side has said before is not asked again. In the demo, whose truth is known, both sides are
    also marked right or wrong.
    """
    from labeling_assets.embedded import stack
    from labeling_assets.services.comparison import Sample, read_side, sampled_days

    settings = Settings.load()
    for path in filter(None, (page, result)):
        if not path.parent.is_dir():
            raise ConfigurationError(f"{path.parent} is no folder.", "Make it first, or give another file.")
    choices = [read_side(text, settings.vision_backend, settings.vision_model) for text in (text_a, text_b)]
    first, last = sampled_days(start, end, dt.datetime.now(settings.zone).date(), settings.look_back_days)
    sample = Sample(first, last, size, seed)
    evaluation = _evaluate(stack.start(settings), choices, sample, page, result)
    console = output()
    console.print(_side_table(evaluation))
    console.print(_field_table(evaluation))
    _print_notes(console, evaluation)
    for name, written in (("Page", page), ("Result", result)):
        if written:
            console.print(f"{name}: {written}", markup=False, soft_wrap=True)


def _evaluate(
    settings: Settings, choices: list[SideChoice], sample: Sample, page: Path | None, result: Path | None
) -> Evaluation:
    """Compare, and write the files."""
    from labeling_assets.services.comparison import Side, evaluate
    from labeling_assets.services.connect import Services
    from labeling_assets.services.evaluation_files import local_path, write_page, write_result
    from labeling_assets.services.known_truth import KnownTruth
    from labeling_assets.services.ledger import LabelLedger
    from labeling_assets.services.postgres import migrate

    services = Services(settings)
    migrate(services.product_database.engine)
    a, b = (Side(choice, services.other_vision_model(choice.backend, choice.model)) for choice in choices)
    with _progress(output()) as on_progress:
        evaluation = evaluate(
            a,
            b,
            sample,
            storage_root=settings.storage_root,
            image_store=services.image_store,
            ledger=LabelLedger(services.product_database.engine),
            truth=KnownTruth(settings.home / "demo"),
            prices=settings.prices,
            on_progress=on_progress,
        )
    if page:
        write_page(local_path(page), evaluation, services.image_store)
    if result:
        write_result(local_path(result), evaluation)
    return evaluation


@contextlib.contextmanager
def _progress(console: Console) -> Iterator[OnProgress]:
    """A bar for each side, on a terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("starting")
        yield lambda side, done, total: progress.update(task, description=escape(side), completed=done, total=total)


def _side_table(evaluation: Evaluation) -> Table:
    scores = evaluation.comparison
    title = f"{scores.images} images of the days from {evaluation.first_day} to {evaluation.last_day}"
    table = plain_table(title, "", f"A: {escape(evaluation.a.name)}", f"B: {escape(evaluation.b.name)}")

    def row(name: str, a: str, b: str) -> None:
        table.add_row(name, a, b)

    a, b = scores.a, scores.b
    row("usable labels", _validity(a, scores.images), _validity(b, scores.images))
    row("model calls", f"{a.model_calls:,}", f"{b.model_calls:,}")
    row("tokens read, written", *(f"{side.prompt_tokens:,}, {side.output_tokens:,}" for side in (a, b)))
    row("seconds of the model", f"{a.seconds:,.1f}", f"{b.seconds:,.1f}")
    row("cost", f"{a.cost:,.4f}", f"{b.cost:,.4f}")
    row("how replies were read", _counts(a.parse_steps), _counts(b.parse_steps))
    row("why there is no label", _counts(a.errors), _counts(b.errors))
    if scores.with_truth:
        row("F1, mean of the fields", _share(a.f1), _share(b.f1))
    return table


def _field_table(evaluation: Evaluation) -> Table:
    scores = evaluation.comparison
    table = plain_table("By field, in percent", "field")
    names = ["agree", "same", "flips"]
    if scores.with_truth:
        names += ["A: F1", "prec.", "recall", "B: F1", "prec.", "recall"]
    for name in names:
        table.add_column(name, justify="right")
    for score in scores.fields:
        numbers = [score.agreement, score.exact, score.flip_rate]
        if scores.with_truth:
            numbers += [*_numbers(score.a), *_numbers(score.b)]
        table.add_row(score.field, *(f"{100 * number:.1f}" for number in numbers))
    return table


def _print_notes(console: Console, evaluation: Evaluation) -> None:
    scores = evaluation.comparison
    if evaluation.unreadable_images:
        console.print(f"{evaluation.unreadable_images} images were drawn that the image store does not have.")
    if evaluation.is_of_one_side:
        console.print("Both sides are the same model with the same prompt: only the truth tells something of them.")
    elif not scores.labeled_by_both:
        console.print("No image has a usable label of both sides.")
    if not scores.with_truth:
        console.print("Of none of the images is the truth known.")


def _validity(side: SideScore, images: int) -> str:
    return f"{side.valid:,} of {images:,} ({_share(side.validity)})"


def _numbers(quality: Quality | None) -> tuple[float, float, float]:
    return (quality.f1, quality.precision, quality.recall) if quality else (0.0, 0.0, 0.0)


def _counts(numbers: dict[str, int]) -> str:
    return ", ".join(f"{escape(name)} {number:,}" for name, number in numbers.items()) or "none"


def _share(number: float | None) -> str:
    return "" if number is None else f"{100 * number:.1f} %"
