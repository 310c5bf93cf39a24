"""Finds where a title and the label of its image contradict each other: "Navy Hoodie" and a black T-shirt.

Title and label are compared along the axes of `title_words.toml`, each a question with one answer: which colour, which
product, a woman or a man, which feast. They contradict each other where both answer and no answer is the same. Words
that the table does not have answer nothing, a title that names several products contradicts only when none is right,
and a word that stands anywhere else in the label agrees too. So a contradiction found is nearly always one, and many
are not found. What is done about them is not decided here.
"""

from __future__ import annotations

import functools
import re
import tomllib
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import pyarrow as pa

from labeling_assets.products.records import LABEL_FIELDS, LABEL_LISTS

_ANY, _NONE = "any", "none"
_PARTS = re.compile(r"[,.;:|/()\[\]“”\"–—\n]| - ")
_GIVERS = re.compile(rf"\b(?:from|từ)\b.*?(?=\b(?:for|to|cho|tặng)\b|{_PARTS.pattern}|$)", re.IGNORECASE | re.DOTALL)
"""Who gives: "Gift from Daughter, for Dad" is for Dad."""


@dataclass(frozen=True)
class Contradiction:
    """A question to which title and label give different answers.

    Attributes:
        field: The label field concerned.
        title_words: The words of the title that answer it, as they are compared: lower case, without punctuation.
        label_values: The field's values that answer it otherwise.
    """

    field: str
    title_words: tuple[str, ...]
    label_values: tuple[str, ...]

    def __str__(self) -> str:
        """For people: `title says “navy”, color_aesthetic says “Black”`."""
        return f"title says “{', '.join(self.title_words)}”, {self.field} says “{', '.join(self.label_values)}”"


REMEMBERED_TEXTS = 10_000


def find_contradictions(title: str | None, labels: Mapping[str, Any]) -> list[Contradiction]:
    """The contradictions between a title and a label, at most one an axis.

    Args:
        title: Title of the product, any text.
        labels: The fifteen label fields.
    """
    if not title:
        return []
    composed = unicodedata.normalize("NFC", title)
    found = (axis.contradiction(composed, labels) for axis in _axes())
    return [contradiction for contradiction in found if contradiction]


def contradicting_rows(table: pa.Table) -> Iterator[tuple[dict[str, Any], list[Contradiction]]]:
    """The rows of `qwen_labels` whose label contradicts the title, with the contradictions.

    A row has `id_sanpham`, `title`, `image_sha256` and the label fields.
    """
    columns = ["id_sanpham", "title", "image_sha256", *LABEL_FIELDS]
    for batch in table.select(columns).to_batches(max_chunksize=500):
        for row in batch.to_pylist():
            if contradictions := find_contradictions(row["title"], row):
                yield row, contradictions


class _Words:
    """Phrases and the answers that they give.

    Args:
        tables: Answer → comma-separated phrases, in tables that add up.
    """

    def __init__(self, *tables: Mapping[str, str]) -> None:
        self._answers: dict[str, set[str]] = {}
        for table in tables:
            for answer, phrases in table.items():
                for phrase in filter(None, map(str.strip, phrases.split(","))):
                    self._answers.setdefault(_normalised(phrase), set()).add(answer)
        longest_first = sorted(self._answers, key=lambda phrase: (-len(phrase), phrase))
        self._pattern = re.compile(rf"(?<!\w)({'|'.join(map(re.escape, longest_first))})(?:s|es)?(?!\w)")
        # The answers in a text; the values of labels are few and come again and again.
        self.answers = functools.lru_cache(REMEMBERED_TEXTS)(self._find_answers)

    def find(self, text: str) -> dict[str, set[str]]:
        """The phrases in a text with their answers."""
        matches = (match.group(1) for match in self._pattern.finditer(_normalised(text)))
        return {phrase: self._answers[phrase] - {_NONE} for phrase in matches if self._answers[phrase] != {_NONE}}

    def _find_answers(self, text: str) -> frozenset[str]:
        return frozenset().union(*self.find(text).values())


@dataclass(frozen=True)
class _Axis:
    """One question; its answers are compared with those of no other axis."""

    field: str
    title_words: _Words
    label_words: _Words
    excusing_fields: tuple[str, ...]
    has_givers: bool

    def contradiction(self, title: str, labels: Mapping[str, Any]) -> Contradiction | None:
        said = self.title_words.find(_GIVERS.sub(" | ", title) if self.has_givers else title)
        values = [value for value in _texts(labels.get(self.field)) if self.label_words.answers(value)]
        if not said or not values:
            return None
        in_title = set().union(*said.values())
        in_field = set().union(*map(self.label_words.answers, values))
        if _ANY in in_title | in_field or in_title & (in_field | self._excuses(labels)):
            return None
        return Contradiction(self.field, tuple(said), tuple(values))

    def _excuses(self, labels: Mapping[str, Any]) -> set[str]:
        """Answers that stand elsewhere in the label."""
        texts = [text for field in self.excusing_fields for text in _texts(labels.get(field))]
        return set().union(*map(self.title_words.answers, texts))


def _texts(value: object) -> Sequence[str]:
    """The texts of a label field, be it a list or a text."""
    items = [value] if isinstance(value, str) else value if isinstance(value, Sequence) else []
    return [item for item in items if isinstance(item, str)]


def _normalised(text: str) -> str:
    """Lower-case words parted by single spaces, accents kept; a bar parts what no phrase reaches across."""
    text = re.sub(r"['’‘`´]", "", unicodedata.normalize("NFC", text.casefold()))
    return " | ".join(" ".join(re.sub(r"[\W_]+", " ", part).split()) for part in _PARTS.split(text))


@functools.cache
def _axes() -> tuple[_Axis, ...]:
    table = tomllib.loads(resources.files(__package__).joinpath("title_words.toml").read_text(encoding="utf-8"))
    return tuple(_axis(entry) for entry in table["axis"])


def _axis(entry: Mapping[str, Any]) -> _Axis:
    excusing = [*LABEL_LISTS, "main_subject", *(["text"] if entry.get("is_excused_by_text") else [])]
    return _Axis(
        field=entry["field"],
        title_words=_Words(entry["words"]),
        label_words=_Words(entry["words"], entry.get("label_words", {})),
        excusing_fields=tuple(excusing),
        has_givers=entry.get("has_givers", False),
    )
