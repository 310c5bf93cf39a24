"""Finds the label values of `lexicon.toml` in the words that an OCR model read.

OCR makes known mistakes: it loses accents, spaces and some letters, and takes look-alikes for one another. So a phrase
is searched without accents where that is safe, with its unreadable letters optional, and with look-alikes made equal.
The words themselves belong in `lexicon.toml`; reading the picture belongs in `embedded.py`.
"""

from __future__ import annotations

import functools
import re
import tomllib
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

_UNREADABLE_LETTERS = frozenset("ạảấầẩẫậắằẳẵặẹẻẽếềểễệỉịọỏốồổỗộớờởỡợụủứừửữựỳỵỷỹ")
"""Vietnamese letters that the dictionary of PP-OCRv6_rec_small lacks: it drops them, or reads their base letter."""

_LOOK_ALIKES = str.maketrans({"0": "o", "1": "i", "l": "i", "5": "s", "m": "rn"})
_MIN_LETTERS_WITHOUT_ACCENTS = 5
"""Shorter Vietnamese words without accents are English words: bà is "ba", mẹ is "me"."""
_MIN_LETTERS_LEFT = 3
_MIN_LETTERS_WITHOUT_BOUNDARY = 8
"""Phrases this long are also found where OCR lost the space before or after them: "MerryChristmas"."""
_MIN_LETTERS_TO_CORRECT = 7
"""Shorter words have too many neighbours that mean something else: father and rather."""

_MONTH = r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*"
_PERSONALIZATION_PATTERNS = (
    ("Custom date", r"\b\d{1,2}\s?[./-]\s?\d{1,2}\s?[./-]\s?(?:\d{4}|\d{2})\b"),
    ("Custom date", rf"\b{_MONTH}\.? \d{{1,2}},? \d{{4}}\b"),
    ("Custom year", r"\b(?:19|20)\d\d\b"),
    ("Custom name", r"\bthe (?!whole|entire|best|first)[a-z]{3,} family\b"),
    ("Custom name", r"^(?!baby|mom|dad)[a-z]+['’]s first\b"),
    ("Custom name", r"\bmr\.? ?(?:&|and) ?mrs\.? ?[a-z]{2,}"),
    ("Custom coordinates", r"\b\d{1,3}\.\d{2,}\s?°?\s?[nsew]\b"),
)


def _words(text: str) -> str:
    """Lower-case words parted by single spaces, accents kept, apostrophes and punctuation gone."""
    text = re.sub(r"['’‘`´]", "", unicodedata.normalize("NFC", text.casefold()))
    return " ".join(re.sub(r"[\W_]+", " ", text).split())


def _without_accents(words: str) -> str:
    """Words in the letters a to z where they are Latin; đ becomes d."""
    decomposed = unicodedata.normalize("NFD", words.replace("đ", "d"))
    return "".join(char for char in decomposed if not unicodedata.combining(char))


def _equate_look_alikes(words: str) -> str:
    """Words with the letters and digits that OCR confuses made equal; a number stays a number."""
    return " ".join(word if word.isdigit() else word.translate(_LOOK_ALIKES) for word in words.split())


def fold(text: str) -> str:
    """The words of a text without case, accents and punctuation, look-alikes made equal."""
    return _equate_look_alikes(_without_accents(_words(text)))


@dataclass(frozen=True)
class _Phrase:
    values: tuple[str, ...]
    pattern: re.Pattern[str]
    is_folded: bool
    length: int


def _compile(phrase: str, values: tuple[str, ...]) -> _Phrase:
    """The search for one phrase: on folded words where that is safe, else on words with their accents."""
    words = _words(phrase)
    letters = words.replace(" ", "")
    readable = [char for char in letters if char not in _UNREADABLE_LETTERS]
    can_drop = len(readable) >= _MIN_LETTERS_LEFT
    if words.isascii() or (len(letters) >= _MIN_LETTERS_WITHOUT_ACCENTS and can_drop):
        body = _pattern(words, lambda char: _folded(char) + "?" * (char in _UNREADABLE_LETTERS))
        if len(readable) < _MIN_LETTERS_WITHOUT_BOUNDARY:
            plural = "s?" if words.isascii() else ""
            body = rf"(?<![a-z0-9]){body}{plural}(?![a-z0-9])"
        return _Phrase(values, re.compile(_guard_digits(words, body)), is_folded=True, length=len(letters))
    has_accent_left = not "".join(readable).isascii()
    droppable = _UNREADABLE_LETTERS if has_accent_left and can_drop else frozenset()
    # OCR drops ẹ, or reads ę or e.
    body = _pattern(words, lambda char: r"\w?" if char in droppable else char)
    return _Phrase(values, re.compile(rf"(?<!\w){body}(?!\w)"), is_folded=False, length=len(letters))


def _folded(char: str) -> str:
    """A letter or digit of a word as `fold` writes it."""
    return _without_accents(char).translate(_LOOK_ALIKES)


def _pattern(words: str, piece: Callable[[str], str]) -> str:
    """A regular expression of words, letter by letter, whose spaces are optional; numbers stay as they are."""
    return " ?".join(word if word.isdigit() else "".join(map(piece, word)) for word in words.split())


def _guard_digits(words: str, body: str) -> str:
    """Keep a phrase such as "20 11" from being found inside a longer date."""
    before = r"(?<!\d)(?<!\d )" if words[0].isdigit() else ""
    after = r"(?! ?\d)" if words[-1].isdigit() else ""
    return f"{before}{body}{after}"


class Lexicon:
    """Compiled form of the table.

    Args:
        table: Content of `lexicon.toml`: `words` (field → value → phrases) and `implied` (list of rules).
    """

    def __init__(self, table: Mapping[str, Any]) -> None:
        self._phrases: dict[str, list[_Phrase]] = {}
        for field, values in table["words"].items():
            by_phrase: dict[str, tuple[str, ...]] = {}
            for value, line in values.items():
                by_phrase |= {phrase: (*by_phrase.get(phrase, ()), value) for phrase in _split(line)}
            compiled = [_compile(phrase, its_values) for phrase, its_values in by_phrase.items()]
            self._phrases[field] = sorted(compiled, key=lambda phrase: -phrase.length)
        self._implied = [
            (rule["field"], _split(rule["values"]), {k: v for k, v in rule.items() if k not in ("field", "values")})
            for rule in table["implied"]
        ]
        lines = [line for values in table["words"].values() for line in values.values()]
        words = {
            word for line in lines for phrase in _split(line) if phrase.isascii() for word in _words(phrase).split()
        }
        self._long_words = sorted(word for word in words if len(word) >= _MIN_LETTERS_TO_CORRECT)

    def find(self, lines: Sequence[str]) -> dict[str, list[str]]:
        """The values of each field of the table that the lines speak of, in the order of the words.

        Values that other values imply come after those that were read. A field without values is left out.
        """
        words = _words(" ".join(lines))
        corrected = " ".join(self._corrected(word) for word in _without_accents(words).split())
        folded = _equate_look_alikes(corrected)
        found = {field: _search(phrases, words, folded) for field, phrases in self._phrases.items()}
        for value, pattern in _PERSONALIZATION_PATTERNS:
            if any(re.search(pattern, line, re.IGNORECASE) for line in lines):
                _add(found["personalization_type"], value)
        for field, values, consequences in self._implied:
            if not set(values).isdisjoint(found.get(field, ())):
                for other, value in consequences.items():
                    _add(found.setdefault(other, []), value)
        return {field: values for field, values in found.items() if values}

    def _corrected(self, word: str) -> str:
        """The only long word of the table from which OCR may have made `word` by one wrong or lost letter."""
        if len(word) < _MIN_LETTERS_TO_CORRECT or word in self._long_words:
            return word
        near = [known for known in self._long_words if known[0] == word[0] and _is_one_slip(known, word)]
        return near[0] if len(near) == 1 else word


def _split(line: str) -> list[str]:
    return [part.strip() for part in line.split(",") if part.strip()]


def _add(values: list[str], value: str) -> None:
    if value not in values:
        values.append(value)


def _search(phrases: Sequence[_Phrase], words: str, folded: str) -> list[str]:
    """Values of the phrases found, in the order of the words; what a phrase covers is hidden from shorter ones."""
    texts = {False: words, True: folded}
    position: dict[str, float] = {}
    for phrase in phrases:
        text = texts[phrase.is_folded]
        matches = [match for match in phrase.pattern.finditer(text) if match.group()]
        for match in matches:
            start, end = match.span()
            for value in phrase.values:
                position[value] = min(position.get(value, 1.0), start / len(text))
            text = text[:start] + "\0" * (end - start) + text[end:]
        texts[phrase.is_folded] = text
    return sorted(position, key=lambda value: position[value])


def _is_one_slip(known: str, read: str) -> bool:
    """Whether `read` is `known` with one letter replaced, or one lost."""
    if len(known) == len(read):
        return sum(a != b for a, b in zip(known, read, strict=True)) == 1
    return len(known) == len(read) + 1 and any(known[:i] + known[i + 1 :] == read for i in range(len(known)))


def lexicon_bytes() -> bytes:
    """The table as it lies in the package, for digests."""
    return resources.files(__package__).joinpath("lexicon.toml").read_bytes()


@functools.cache
def load_lexicon() -> Lexicon:
    """The compiled table of the package."""
    return Lexicon(tomllib.loads(lexicon_bytes().decode()))
