"""Compares two labelers on a sample of the images that the platform has: draws it, labels it twice, scores it.

Labels go through the ledger on both sides, so what a side has said before is not asked again, and what is asked here is
not asked by the days' runs. A run that is stopped goes on where it was.
"""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from labeling_assets.errors import ConfigurationError, DayError, ImageError, RowError
from labeling_assets.products.comparison import Answer, ComparedImage, compare_answers, worst_first
from labeling_assets.products.cost import Prices
from labeling_assets.products.evaluation import Contender, Evaluation
from labeling_assets.products.labels import SCHEMA_VERSION
from labeling_assets.products.prompt import PROMPT_VERSION, Prompt, packaged_prompt, prompt_of_file, prompt_versions
from labeling_assets.products.stratified_sample import SampledImage, stratified_sample
from labeling_assets.services.day_tables import EXTENSION, day_file, read_day
from labeling_assets.services.images.files import open_root
from labeling_assets.services.images.store import ImageStore
from labeling_assets.services.known_truth import KnownTruth
from labeling_assets.services.ledger import LabelKey, LabelLedger, LedgerEntry
from labeling_assets.services.vision import VisionModel
from labeling_assets.services.vision.labeler import Labeler

IMAGE_STAGE, LABEL_STAGE = "product_images", "qwen_labels"
EMBEDDED = "embedded"

Progress = Callable[[str, int, int], None]
"""Called with the name of a side, the images done and all of them."""


@dataclass(frozen=True)
class SideChoice:
    """What a person names as one side: `MODEL[@PROMPT]`, read by `read_side`.

    Attributes:
        backend: embedded, ollama or openai.
        model: Name of the model on its server; of no meaning to the embedded backend.
        prompt: What it is asked.
    """

    backend: str
    model: str
    prompt: Prompt


@dataclass(frozen=True)
class Side:
    """One side at work: what was chosen, and the model that it stands for."""

    choice: SideChoice
    model: VisionModel

    @property
    def contender(self) -> Contender:
        """Who it is, for the record. Asks the server for the digest of the model."""
        return Contender(self.choice.backend, self.model.name, self.model.digest, self.choice.prompt.version)


@dataclass(frozen=True)
class Sample:
    """Which images are compared.

    Attributes:
        first_day: First business day of which images may be drawn.
        last_day: Last one.
        size: Images at most.
        seed: Another seed draws others.
    """

    first_day: dt.date
    last_day: dt.date
    size: int
    seed: int = 0


def read_side(text: str, backend: str, model: str) -> SideChoice:
    """The side that a text names: `embedded`, `ollama:name`, `openai:name` or a bare name, each with `@prompt`.

    Args:
        text: Before the first `@` the model, by default the one in use; behind it a version or the path of a file.
        backend: The backend in use, which a bare name is of.
        model: The model in use.

    Raises:
        ConfigurationError: Nothing is meant by it; the remedy says what would be.
    """
    named, has_prompt, prompt = text.strip().partition("@")
    chosen, separator, name = named.partition(":")
    if not named:
        chosen, name = backend, model
    elif named == EMBEDDED:
        name = model
    elif not (separator and chosen in ("ollama", "openai")):
        chosen, name = backend, named
        if backend == EMBEDDED:
            raise ConfigurationError(
                f"{named!r} names no model: LABELING_VISION_BACKEND is embedded, which has one model alone.",
                f"Write embedded, ollama:{named} or openai:{named}.",
            )
    elif not name:
        raise ConfigurationError(f"{text!r} names no model.", f"Write {chosen}:NAME, such as ollama:qwen2.5vl:latest.")
    return SideChoice(chosen, name, _prompt(prompt if has_prompt else PROMPT_VERSION))


def _prompt(text: str) -> Prompt:
    if text in prompt_versions():
        return packaged_prompt(text)
    if text and Path(text).expanduser().exists():
        return prompt_of_file(Path(text).expanduser())
    raise ConfigurationError(
        f"Prompt {text!r} is neither a version nor a file.",
        f"Write MODEL@VERSION ({', '.join(prompt_versions())}) or MODEL@path/to/prompt.md.",
    )


def sampled_days(
    first: dt.date | None, last: dt.date | None, today: dt.date, look_back_days: int
) -> tuple[dt.date, dt.date]:
    """First and last day of a sample: those given, else the days that the platform looks back, up to yesterday.

    Raises:
        ConfigurationError: The first is after the last.
    """
    start = first or today - dt.timedelta(days=look_back_days)
    end = last or today - dt.timedelta(days=1)
    if start > end:
        raise ConfigurationError(f"{start} is after {end}.", "Give start and end in the order of time.")
    return start, end


def draw_sample(storage_root: str, sample: Sample) -> list[SampledImage]:
    """Images of the days, stratified by the first product type of their label, else by platform, store and day.

    Raises:
        ConfigurationError: No day in the range has images.
        DayError: The file of a day cannot be read.
    """
    drawn = stratified_sample(_images(storage_root, sample), sample.size, sample.seed)
    if not drawn:
        raise ConfigurationError(
            f"No image is known of the days from {sample.first_day} to {sample.last_day}.",
            "Run these days first (`labeling run`), or give other days.",
        )
    return drawn


def evaluate(
    a: Side,
    b: Side,
    sample: Sample,
    *,
    storage_root: str,
    image_store: ImageStore,
    ledger: LabelLedger,
    truth: KnownTruth,
    prices: Prices,
    on_progress: Progress | None = None,
) -> Evaluation:
    """Label a sample with both sides and score them. Both models are looked for before either is paid.

    The sides are asked one after the other, so that a server does not change its model between two images.

    Args:
        a: One side.
        b: The other one.
        sample: Which images.
        storage_root: Where the files of the days are.
        image_store: Gives the images.
        ledger: Remembers what both sides say.
        truth: Tells what is right, where it is known.
        prices: Of models behind a server; the embedded one costs nothing.
        on_progress: Told when a side begins and after each image.

    Raises:
        ConfigurationError: A model is not there, or no image is known of the days.
        DayError: The file of a day cannot be read.
        ServiceUnavailableError: A model server, PostgreSQL or the storage does not answer.
    """
    drawn = draw_sample(storage_root, sample)
    for side in (a, b):
        side.model.check()
    answers_a = _answers(a, drawn, ledger, image_store, on_progress)
    answers_b = _answers(b, drawn, ledger, image_store, on_progress)
    images = [
        ComparedImage(
            image.sha256,
            image.title,
            image.stratum,
            answers_a[image.sha256],
            answers_b[image.sha256],
            truth.of(image.url, image.sha256),
        )
        for image in drawn
        if image.sha256 in answers_a and image.sha256 in answers_b
    ]
    if not images:
        raise DayError(
            f"The image store has none of the {len(drawn)} images drawn.", "Materialize product_images of the days."
        )
    return Evaluation(
        made_at=dt.datetime.now(dt.UTC),
        a=a.contender,
        b=b.contender,
        first_day=sample.first_day,
        last_day=sample.last_day,
        seed=sample.seed,
        unreadable_images=len(drawn) - len(images),
        images=worst_first(images),
        comparison=compare_answers(images, _prices_of(a, prices), _prices_of(b, prices)),
    )


def _prices_of(side: Side, prices: Prices) -> Prices:
    return Prices() if side.choice.backend == EMBEDDED else prices


def _answers(
    side: Side,
    drawn: Sequence[SampledImage],
    ledger: LabelLedger,
    image_store: ImageStore,
    on_progress: Progress | None,
) -> dict[str, Answer]:
    """What a side says of each image, by sha256; images that the store cannot give are left out."""
    shas = [image.sha256 for image in drawn]
    name, prompt = side.contender.name, side.choice.prompt
    failed: dict[str, RowError] = {}
    if on_progress:
        on_progress(name, 0, len(shas))
    with contextlib.closing(Labeler(side.model, ledger, prompt).label_all(shas, image_store.model_jpeg)) as outcomes:
        for number, (sha, outcome) in enumerate(outcomes, 1):
            if isinstance(outcome, RowError):
                failed[sha] = outcome
            if on_progress:
                on_progress(name, number, len(shas))
    entries = ledger.get_many(shas, LabelKey(side.model.digest, prompt.version, SCHEMA_VERSION))
    answers = {sha: _answer(entry) for sha, entry in entries.items()}
    for sha, error in failed.items():
        if sha not in answers and not isinstance(error, ImageError):
            answers[sha] = Answer(None, f"{type(error).__name__}: {error.message}")
    return answers


def _answer(entry: LedgerEntry) -> Answer:
    return Answer(
        labels=entry.labels,
        error="" if entry.labels else f"{entry.error_class}: {entry.error_message}",
        parse_step=entry.parse_step,
        model_calls=entry.model_calls,
        prompt_tokens=entry.prompt_tokens,
        output_tokens=entry.output_tokens,
        seconds=entry.seconds,
    )


def _images(storage_root: str, sample: Sample) -> Iterator[SampledImage]:
    """Every image of the days that has one, once for each product that shows it."""
    root = open_root(storage_root)
    folder = root / IMAGE_STAGE
    first, last = f"{sample.first_day}{EXTENSION}", f"{sample.last_day}{EXTENSION}"
    names = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
    days = [name.removesuffix(EXTENSION) for name in names if first <= name <= last and name.endswith(EXTENSION)]
    types: dict[str, str] = {}
    for day in days:
        if day_file(root, LABEL_STAGE, day).exists():
            labels = read_day(root, LABEL_STAGE, day).select(["image_sha256", "product_type"])
            for row in labels.to_pylist():
                if row["image_sha256"] and row["product_type"]:
                    types.setdefault(row["image_sha256"], row["product_type"][0].casefold())
    for day in days:
        columns = ["image_sha256", "title", "image", "platform", "name_store"]
        for row in read_day(root, IMAGE_STAGE, day).select(columns).to_pylist():
            if sha := row["image_sha256"]:
                stratum = types.get(sha) or f"{row['platform']} / {row['name_store']} / {day}"
                yield SampledImage(sha, stratum, row["title"] or "", row["image"])
