"""Text as a vector without a model: its words, pairs of words and parts of words, hashed into 768 dimensions.

Vectors are sparse sums and not normalised; who needs unit vectors scales them. What a word means belongs elsewhere.
"""

from __future__ import annotations

import collections
import itertools
import math
import re
import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

TEXT_DIMENSIONS = 832

# Words decide; parts of words keep compounds and slips of the pen near; accents tell Vietnamese words apart.
WORD_WEIGHT = 1.0
PARTS_WEIGHT = 0.4
ACCENTED_WORD_WEIGHT = 0.5
WORD_PAIR_WEIGHT = 0.5
NGRAM_RANGE = (2, 4)
POSITIONS_PER_TERM = 6
"""Dimensions that a term is hashed to: two terms that share one of them are still told apart by the others."""
STOP_WORDS = frozenset(
    [
        *("a", "an", "and", "are", "as", "at", "by", "for", "from", "in", "is", "it", "of", "on", "or", "that", "the"),
        *("this", "to", "with", "unknown", "cho", "cua", "va", "la", "voi", "cac", "nhung", "mot"),
    ]
)
TEXT_PARAMETERS = (
    *(TEXT_DIMENSIONS, WORD_WEIGHT, PARTS_WEIGHT, ACCENTED_WORD_WEIGHT, WORD_PAIR_WEIGHT, NGRAM_RANGE),
    *(POSITIONS_PER_TERM, sorted(STOP_WORDS)),
)
"""Everything but code and libraries that decides a text's vector."""

_LAYOUT = re.compile(r"^#{1,6} .*$|\*\*[^*\n]*:\*\*", re.MULTILINE)
"""Headings and bold field names of a Markdown description: the same in every text, so they tell none apart."""


def hash_texts(texts: Sequence[str]) -> npt.NDArray[np.float32]:
    """Vectors of texts, none of them blank; float32, shape (len(texts), 832), not normalised.

    A text is the sum of its terms. One that occurs n times counts 1 + ln n, so that a short text matches a long one by
    the terms that they share.
    """
    import numpy as np
    from sklearn.feature_extraction import DictVectorizer

    vectorizer = DictVectorizer(sort=False)
    weights = vectorizer.fit_transform(
        [{term: 1 + math.log(n) for term, n in collections.Counter(_terms(text)).items()} for text in texts]
    )
    vectors: npt.NDArray[np.float32] = (weights @ _term_vectors(vectorizer.feature_names_)).toarray().astype(np.float32)
    return vectors


def _terms(text: str) -> list[str]:
    """Words and pairs of neighbouring words, lower case, with accents."""
    words = _words(text)
    return words + [f"{first} {second}" for first, second in itertools.pairwise(words)]


def _words(text: str) -> list[str]:
    """Words that tell texts apart; of a text that has none, whatever it has."""
    # A lone surrogate cannot be hashed as UTF-8.
    text = unicodedata.normalize("NFC", text.encode("utf-8", "replace").decode().casefold())
    for part in (_LAYOUT.sub(" ", text), text):
        words = [word for word in re.findall(r"[^\W_]+", re.sub(r"['’]", "", part)) if _folded(word) not in STOP_WORDS]
        if words:
            return words
    return text.split()


def _folded(word: str) -> str:
    """A word without accents and without the s of an English plural."""
    decomposed = unicodedata.normalize("NFD", word.replace("đ", "d"))
    plain = "".join(char for char in decomposed if not unicodedata.combining(char)) or word
    is_plural = len(plain) > 3 and plain.endswith("s") and not plain.endswith("ss") and word.isascii()
    return plain[:-1] if is_plural else plain


def _term_vectors(terms: Sequence[str]) -> Any:  # noqa: ANN401 - a scipy sparse array
    """Hashed vectors of words and of pairs of words, sparse, shape (len(terms), 832)."""
    from sklearn.feature_extraction import FeatureHasher
    from sklearn.feature_extraction.text import HashingVectorizer

    folded = [" ".join(map(_folded, term.split(" "))) for term in terms]
    features = []
    for term, plain in zip(terms, folded, strict=True):
        weight = WORD_PAIR_WEIGHT if " " in term else WORD_WEIGHT
        features.append(_positions(plain, weight))
        if not term.isascii():
            features[-1] += _positions(f"accented {term}", ACCENTED_WORD_WEIGHT * weight)
    whole = FeatureHasher(TEXT_DIMENSIONS, input_type="pair").transform(features)
    words = ["" if " " in term else plain for term, plain in zip(terms, folded, strict=True)]
    parts = HashingVectorizer(
        analyzer="char_wb", ngram_range=NGRAM_RANGE, n_features=TEXT_DIMENSIONS, norm="l2", lowercase=False
    )
    return whole + PARTS_WEIGHT * parts.transform(words)


def _positions(term: str, weight: float) -> list[tuple[str, float]]:
    return [(f"{number} {term}", weight / math.sqrt(POSITIONS_PER_TERM)) for number in range(POSITIONS_PER_TERM)]
