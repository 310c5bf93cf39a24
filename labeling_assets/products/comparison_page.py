"""The page of an evaluation: one HTML file without a script or a request to anywhere, pictures included.

What it shows is decided here, how it looks in `comparison_page.html`. Titles and labels are outside text: the template
escapes all of it, and the page forbids itself to load or run anything.
"""

from __future__ import annotations

import base64
import functools
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from typing import Any, Literal

import jinja2

from labeling_assets.products.comparison import Answer, ComparedImage, agreement, leading_value, values_of
from labeling_assets.products.evaluation import Evaluation
from labeling_assets.products.labels import ProductLabels
from labeling_assets.products.records import LABEL_FIELDS, LABEL_LISTS

SHOWN_IMAGES = 200
"""Those on which the sides agree least; a picture takes about ten kilobytes, and a phone has to open the page."""

Thumbnail = Callable[[str], bytes | None]


@dataclass(frozen=True)
class Value:
    """One phrase, text or level of a label.

    Attributes:
        text: As the label has it.
        is_only_here: Whether the other side has a label that does not say it.
        is_right: Whether the truth says it too; None where it is not known.
    """

    text: str
    is_only_here: bool
    is_right: bool | None


@dataclass(frozen=True)
class Row:
    """One field of one image: what each side says, and the truth.

    Attributes:
        field: Name of the field.
        difference: `same`, `different` (other things, or others first), or `alone` where a side has no label.
        a: What side A says.
        b: What side B says.
        truth: What is right; None where nobody knows.
    """

    field: str
    difference: Literal["same", "different", "alone"]
    a: tuple[Value, ...]
    b: tuple[Value, ...]
    truth: tuple[str, ...] | None


def render_page(evaluation: Evaluation, thumbnail: Thumbnail) -> str:
    """The page of an evaluation, the images with the least agreement first.

    Args:
        evaluation: What was found.
        thumbnail: The JPEG of a small picture for an image's sha256, or None where there is none.
    """
    images = [
        {
            "compared": image,
            "picture": _data_uri(thumbnail(image.sha256)),
            "rows": rows_of(image),
        }
        for image in evaluation.images[:SHOWN_IMAGES]
    ]
    return _template().render(evaluation=evaluation, scores=evaluation.comparison, images=images)


def rows_of(image: ComparedImage) -> list[Row]:
    """The fields of an image as both sides have them, in the order of the label."""
    return [
        Row(
            field=field,
            difference=_difference(field, image.a.labels, image.b.labels),
            a=_values(field, image.a, image.b, image.truth),
            b=_values(field, image.b, image.a, image.truth),
            truth=_texts(field, image.truth) if image.truth else None,
        )
        for field in LABEL_FIELDS
    ]


def _difference(field: str, a: ProductLabels | None, b: ProductLabels | None) -> Literal["same", "different", "alone"]:
    if a is None or b is None:
        return "alone"
    is_same = agreement(field, a, b) == 1 and leading_value(field, a) == leading_value(field, b)
    return "same" if is_same else "different"


def _values(field: str, own: Answer, other: Answer, truth: ProductLabels | None) -> tuple[Value, ...]:
    if own.labels is None:
        return ()
    theirs = values_of(field, other.labels) if other.labels else None
    right = values_of(field, truth) if truth else None
    values = []
    for text in _texts(field, own.labels):
        meant = values_of(field, own.labels.model_copy(update={field: [text] if field in LABEL_LISTS else text}))
        is_only_here = theirs is not None and not meant <= theirs
        values.append(Value(text, is_only_here, None if right is None else meant <= right))
    return tuple(values)


def _texts(field: str, labels: ProductLabels) -> tuple[str, ...]:
    value = getattr(labels, field)
    return tuple(value) if field in LABEL_LISTS else (value,) if value else ()


def _data_uri(jpeg: bytes | None) -> str | None:
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}" if jpeg else None


@functools.cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"share": _share, "amount": _amount}
    return environment.from_string(resources.files(__package__).joinpath("comparison_page.html").read_text("utf-8"))


def _share(number: float | None) -> str:
    return "–" if number is None else f"{100 * number:.1f} %"


def _amount(number: Any) -> str:  # noqa: ANN401 - numbers of any type
    """A count, or a number with two digits behind the point; with four where it is below 1, as costs may be."""
    if isinstance(number, int):
        return f"{number:,}"
    return f"{number:.4f}" if 0 < number < 1 else f"{number:,.2f}"
