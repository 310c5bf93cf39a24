r"""Filter expressions of Milvus. Every outside value enters one through `literal` or `any_of` and nowhere else.

Milvus Lite has no filter templates, and pymilvus escapes nothing in `get(ids=…)` and `delete(ids=…)`, where an id with
quotes reaches other rows; neither is used.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from labeling_assets.errors import ConfigurationError

MAX_VALUES = 1_000
"""Values in one list: milvus-lite 3.2.2 answers 1000 ids in 30 to 150 ms."""
MAX_EXPRESSION_CHARS = 256 * 1024

_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n", "\r": r"\r", "\t": r"\t"})


def literal(value: str) -> str:
    r"""A text as string literal of a filter expression.

    Milvus Lite and a Milvus server both read the escapes `\\`, `\"`, `\n`, `\r` and `\t`. Lite reads no other, so that
    JSON's `\u0001` is an error there; all other characters stand for themselves.

    Raises:
        ConfigurationError: The text is no valid Unicode, as a command line with broken bytes gives.
    """
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ConfigurationError(f"{value!r} is no valid Unicode.", "Give it in UTF-8.") from error
    return f'"{value.translate(_ESCAPES)}"'


def any_of(values: Sequence[str]) -> str:
    """The texts as list of a filter expression."""
    return f"[{', '.join(map(literal, values))}]"


def all_of(conditions: Iterable[str]) -> str:
    """The conditions joined by `and`; the empty expression, which holds for every row, where there is none."""
    return " and ".join(f"({condition})" for condition in conditions if condition)


def in_batches(field: str, values: Iterable[str]) -> Iterator[str]:
    """Expressions `field in […]` that together name every value, each of bounded length."""
    batch: list[str] = []
    length = 0
    for value in map(literal, values):
        if batch and (len(batch) == MAX_VALUES or length + len(value) > MAX_EXPRESSION_CHARS):
            yield f"{field} in [{', '.join(batch)}]"
            batch, length = [], 0
        batch.append(value)
        length += len(value) + 2
    if batch:
        yield f"{field} in [{', '.join(batch)}]"
