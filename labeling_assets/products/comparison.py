"""Scores of two labelers on the same images: where they agree, who is right where the truth is known, what each costs.

Pure arithmetic on labels. Which images are compared is in `stratified_sample.py`, how they are labeled in
`services/comparison.py`, how the result looks in `comparison_page.py`.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from labeling_assets.products.cost import Prices
from labeling_assets.products.labels import ProductLabels
from labeling_assets.products.records import LABEL_FIELDS, LABEL_LISTS


@dataclass(frozen=True)
class Answer:
    """What one side said of one image, whenever it was asked.

    Attributes:
        labels: The fifteen fields; None where there is no usable label.
        error: Why there is none: class and message; empty where there is one.
        parse_step: How the reply was parsed; None where there is no usable label.
        model_calls: Requests made, the re-ask included.
        prompt_tokens: Tokens read in all of them.
        output_tokens: Tokens written in all of them.
        seconds: Time that all of them took.
    """

    labels: ProductLabels | None
    error: str = ""
    parse_step: str | None = None
    model_calls: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class ComparedImage:
    """One image with what both sides said of it.

    Attributes:
        sha256: Its name in the image store.
        title: Title of a product that shows it.
        stratum: The kind of product that it stands for.
        a: What side A said.
        b: What side B said.
        truth: What is right; None where nobody knows.
    """

    sha256: str
    title: str
    stratum: str
    a: Answer
    b: Answer
    truth: ProductLabels | None = None

    @property
    def agreement(self) -> float:
        """Mean of the fields' agreement, 0 to 1; 0 where a side has no usable label."""
        if self.a.labels is None or self.b.labels is None:
            return 0.0
        return sum(agreement(field, self.a.labels, self.b.labels) for field in LABEL_FIELDS) / len(LABEL_FIELDS)


@dataclass(frozen=True)
class Quality:
    """How right a side is in one field, over all images of which the truth is known; each number 0 to 1.

    Attributes:
        precision: Share of what the side said that is right.
        recall: Share of what is right that the side said.
        f1: Harmonic mean of the two.

    All are 1 where nothing was to be said and nothing was, and 0 where only one of the two is so.
    """

    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class FieldScore:
    """How two sides compare in one field; each number 0 to 1, and 0 where there are no images to tell it from.

    Attributes:
        field: Name of the field.
        agreement: Mean Jaccard index of what both said, over the images that both labeled.
        exact: Share of these images on which both said the same, in any order.
        flip_rate: Share of these images on which what comes first, and is shown first, is another.
        a: How right side A is; None where no truth is known.
        b: How right side B is; None where no truth is known.
    """

    field: str
    agreement: float
    exact: float
    flip_rate: float
    a: Quality | None
    b: Quality | None


@dataclass(frozen=True)
class SideScore:
    """What one side delivered and what it took, whenever that was paid.

    Attributes:
        valid: Images with a usable label.
        validity: Their share, 0 to 1.
        parse_steps: Images by how the reply was parsed.
        errors: Images without a usable label, by class of the error.
        model_calls: Requests made, re-asks included.
        prompt_tokens: Tokens read.
        output_tokens: Tokens written.
        seconds: Time of all requests, added up.
        cost: Of tokens and seconds, in the currency of the prices.
        f1: Mean of the fields' F1; None where no truth is known.
    """

    valid: int
    validity: float
    parse_steps: dict[str, int]
    errors: dict[str, int]
    model_calls: int
    prompt_tokens: int
    output_tokens: int
    seconds: float
    cost: float
    f1: float | None


@dataclass(frozen=True)
class Comparison:
    """The scores of two sides on a sample.

    Attributes:
        images: Images compared.
        labeled_by_both: Of these, images with a usable label of both sides.
        with_truth: Of these, images of which the truth is known.
        agreement: Mean of the fields' agreement.
        flip_rate: Mean of the fields' flip rates.
        fields: One score a field, in the order of the label.
        a: Side A.
        b: Side B.
    """

    images: int
    labeled_by_both: int
    with_truth: int
    agreement: float
    flip_rate: float
    fields: tuple[FieldScore, ...]
    a: SideScore
    b: SideScore


def compare_answers(images: Sequence[ComparedImage], prices_a: Prices, prices_b: Prices) -> Comparison:
    """The scores of two sides on images that both were asked about."""
    both = [(image.a.labels, image.b.labels) for image in images if image.a.labels and image.b.labels]
    fields = tuple(_field_score(field, both, images) for field in LABEL_FIELDS)
    return Comparison(
        images=len(images),
        labeled_by_both=len(both),
        with_truth=sum(image.truth is not None for image in images),
        agreement=_mean(score.agreement for score in fields),
        flip_rate=_mean(score.flip_rate for score in fields),
        fields=fields,
        a=_side_score([image.a for image in images], [score.a for score in fields], prices_a),
        b=_side_score([image.b for image in images], [score.b for score in fields], prices_b),
    )


def worst_first(images: Iterable[ComparedImage]) -> list[ComparedImage]:
    """The images, those on which the sides agree least first; images without a label of a side lead."""
    return sorted(images, key=lambda image: (image.agreement, image.sha256))


def values_of(field: str, labels: ProductLabels) -> frozenset[str]:
    """What a label says in a field, as a set that does not depend on case, punctuation or order.

    Phrases of a list, the words of `main_subject` and `text`, or the level.
    """
    value = getattr(labels, field)
    if field in LABEL_LISTS:
        return frozenset(_plain(item) for item in value)
    if field == "trademark_level":
        return frozenset((_plain(value),))
    return frozenset(_plain(value).split())


def leading_value(field: str, labels: ProductLabels) -> str:
    """What a label says first in a field: the first phrase of a list, all of a text, the level; empty for nothing."""
    value = getattr(labels, field)
    if field in LABEL_LISTS:
        return _plain(value[0]) if value else ""
    return _plain(value)


def agreement(field: str, one: ProductLabels, other: ProductLabels) -> float:
    """Jaccard index of what two labels say in a field, 0 to 1; 1 where both say nothing."""
    first, second = values_of(field, one), values_of(field, other)
    return len(first & second) / len(first | second) if first | second else 1.0


def quality(field: str, pairs: Iterable[tuple[ProductLabels | None, ProductLabels]]) -> Quality:
    """Precision, recall and F1 in a field, of labels and truths, counted over all of them (micro average).

    A missing label counts as one that says nothing, so that refusing what is hard does not look like quality.
    """
    right = said = true = 0
    for labels, truth in pairs:
        claims = values_of(field, labels) if labels else frozenset[str]()
        facts = values_of(field, truth)
        right, said, true = right + len(claims & facts), said + len(claims), true + len(facts)
    return Quality(
        precision=right / said if said else float(not true),
        recall=right / true if true else float(not said),
        f1=2 * right / (said + true) if said + true else 1.0,
    )


def _field_score(
    field: str, both: Sequence[tuple[ProductLabels, ProductLabels]], images: Sequence[ComparedImage]
) -> FieldScore:
    def rated(side: Callable[[ComparedImage], Answer]) -> Quality | None:
        pairs = [(side(image).labels, image.truth) for image in images if image.truth is not None]
        return quality(field, pairs) if pairs else None

    return FieldScore(
        field=field,
        agreement=_mean(agreement(field, a, b) for a, b in both),
        exact=_mean(values_of(field, a) == values_of(field, b) for a, b in both),
        flip_rate=_mean(leading_value(field, a) != leading_value(field, b) for a, b in both),
        a=rated(lambda image: image.a),
        b=rated(lambda image: image.b),
    )


def _side_score(answers: Sequence[Answer], qualities: Sequence[Quality | None], prices: Prices) -> SideScore:
    valid = sum(answer.labels is not None for answer in answers)
    prompt_tokens = sum(answer.prompt_tokens for answer in answers)
    output_tokens = sum(answer.output_tokens for answer in answers)
    seconds = sum(answer.seconds for answer in answers)
    known = [each.f1 for each in qualities if each is not None]
    return SideScore(
        valid=valid,
        validity=valid / len(answers) if answers else 0.0,
        parse_steps=dict(Counter(answer.parse_step for answer in answers if answer.parse_step).most_common()),
        errors=dict(Counter(answer.error.partition(":")[0] for answer in answers if answer.error).most_common()),
        model_calls=sum(answer.model_calls for answer in answers),
        prompt_tokens=prompt_tokens,
        output_tokens=output_tokens,
        seconds=seconds,
        cost=prices.cost(prompt_tokens, output_tokens, seconds),
        f1=_mean(known) if known else None,
    )


def _mean(numbers: Iterable[float]) -> float:
    values = [float(number) for number in numbers]
    return sum(values) / len(values) if values else 0.0


def _plain(text: str) -> str:
    """The words of a text in one case, or the text itself where it has no words ("♥")."""
    folded = unicodedata.normalize("NFC", text.casefold())
    return " ".join(re.findall(r"\w+", folded)) or folded.strip()
