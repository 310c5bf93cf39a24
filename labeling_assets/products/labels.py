"""The label of one image: its fifteen fields, the JSON schema that a vision model is given, the reading of its reply.

A reply is outside data: a model may fence its JSON, wrap it in prose, break it, use wrong types or repeat itself until
the token limit. `parse_reply` turns every text into a valid `ProductLabels` or into a `LabelError` whose message names
the fault in few words, fit for asking again. How often to ask again is the labeler's business.
"""

from __future__ import annotations

import json
import re
import unicodedata
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

import json_repair
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError

from labeling_assets.errors import InvalidReplyError, RepetitiveReplyError, TruncatedReplyError
from labeling_assets.products.records import LABEL_FIELDS, LABEL_LISTS, TrademarkLevel

SCHEMA_VERSION = "1"
"""Part of the ledger's key. Raise it when fields or limits change; every image is then asked again."""

MAX_ITEMS = 8
MAX_ITEM_CHARS = 80
MAX_SUBJECT_CHARS = 200
MAX_TEXT_CHARS = 500
MAX_REPLY_CHARS = 20_000
"""Longer replies are refused unread; fifteen full fields take about 10,000 characters."""

ParseStep = Literal["direct", "fenced", "embedded", "repaired"]

_FIELDS = frozenset(LABEL_FIELDS)
_EMPTY_WORDS = {"unknown", "none", "null", "n/a", "na", "nil", "not applicable", "no text", "-", "không có", "không rõ"}
_TRADEMARK_LEVELS = {level.casefold(): level for level in get_args(TrademarkLevel)}
_REPETITIVE_MIN_BYTES = 64
_REPETITIVE_FIELD_RATIO = 4.0
_REPETITIVE_REPLY_RATIO = 8.0
_TAIL_CHARS = 1000
_MAX_BRACKETS_TO_REPAIR = 200


def _clean(value: str) -> str:
    """One line of NFC text without control characters, or the empty string where it says that there is nothing.

    PostgreSQL stores neither NUL nor lone surrogates, and Vietnamese comes composed or decomposed.
    """
    text = "".join(" " if unicodedata.category(char) in ("Cc", "Cs") else char for char in value)
    text = unicodedata.normalize("NFC", " ".join(text.split()))
    return "" if text.strip(".").casefold() in _EMPTY_WORDS else text


def _cut(value: str, max_chars: int) -> str:
    return value[:max_chars].rstrip()


def _clean_list(value: object) -> object:
    """Stripped, distinct items in the order given; the parts of a comma-separated string; nothing for null.

    Too many or too long items are cut, as a server does that enforces the schema. Wrong types are left to pydantic.
    """
    if value is None:
        return []
    if isinstance(value, str):
        value = re.split(r"[,;\n]", value)
    if not isinstance(value, list) or any(not isinstance(item, str) for item in value if item is not None):
        return value
    items = [_cut(_clean(item), MAX_ITEM_CHARS) for item in value if item is not None]
    distinct = {item.casefold(): item for item in reversed(items) if item}
    return list(reversed(distinct.values()))[:MAX_ITEMS]


def _clean_text(max_chars: int) -> Callable[[object], object]:
    def clean(value: object) -> object:
        if value is None:
            return ""
        return _cut(_clean(value), max_chars) if isinstance(value, str) else value

    return clean


def _clean_level(value: object) -> object:
    if isinstance(value, str):
        return _TRADEMARK_LEVELS.get(" ".join(value.replace("_", " ").split()).casefold(), value)
    return value


Item = Annotated[str, StringConstraints(min_length=1, max_length=MAX_ITEM_CHARS)]
Items = Annotated[list[Item], BeforeValidator(_clean_list), Field(max_length=MAX_ITEMS)]


class ProductLabels(BaseModel):
    """The fifteen fields of a label, cleaned. Every field is required; keys that are not fields are ignored.

    A list has at most 8 distinct items of 1 to 80 characters; "unknown", "none" and the like become nothing. A string
    stands for the list of its comma-separated parts and null for nothing; any other wrong type is an error.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    image_recipient: Items
    target_audience: Items
    usage_purpose: Items
    occasion: Items
    niche_theme: Items
    sentiment_tone: Items
    message_type: Items
    personalization_type: Items
    product_type: Items
    placement_display_context: Items
    design_style: Items
    color_aesthetic: Items
    trademark_level: Annotated[TrademarkLevel, BeforeValidator(_clean_level)]
    main_subject: Annotated[str, BeforeValidator(_clean_text(MAX_SUBJECT_CHARS))]
    text: Annotated[str, BeforeValidator(_clean_text(MAX_TEXT_CHARS))]


def _field_schema(field: str) -> dict[str, Any]:
    if field in LABEL_LISTS:
        item = {"type": "string", "minLength": 1, "maxLength": MAX_ITEM_CHARS}
        return {"type": "array", "items": item, "maxItems": MAX_ITEMS}
    if field == "trademark_level":
        return {"type": "string", "enum": list(get_args(TrademarkLevel))}
    return {"type": "string", "maxLength": MAX_SUBJECT_CHARS if field == "main_subject" else MAX_TEXT_CHARS}


LABEL_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {field: _field_schema(field) for field in LABEL_FIELDS},
    "required": list(LABEL_FIELDS),
    "additionalProperties": False,
}
"""JSON schema of a reply. Flat, every length bounded and without `$ref` or `{}`: grammars made of open schemas let a
model write for ever at temperature 0 (vllm issue 52011)."""


@dataclass(frozen=True)
class ParsedReply:
    """A valid label and the step that found it.

    Attributes:
        labels: The fifteen fields.
        step: direct (the reply is the object), fenced (inside a code fence), embedded (somewhere in the text) or
            repaired (broken JSON, mended).
    """

    labels: ProductLabels
    step: ParseStep


@dataclass(frozen=True)
class Label:
    """The label of one image and who said so.

    Attributes:
        labels: The fifteen fields.
        model: Name of the model.
        digest: Its digest.
        prompt_version: Version of the prompt.
        schema_version: Version of the label schema.
        parse_step: How the reply was parsed: direct, fenced, embedded or repaired.
        prompt_tokens: Tokens read for the label, whenever that was.
        output_tokens: Tokens written for it.
        seconds: Time the model server took for it.
        model_calls: Requests made for it, the re-ask included.
        is_from_ledger: Whether it was paid for earlier.
        shared_from: sha256 of the near duplicate that was labeled in the place of this image; None where it was itself.
    """

    labels: ProductLabels
    model: str
    digest: str
    prompt_version: str
    schema_version: str
    parse_step: str
    prompt_tokens: int
    output_tokens: int
    seconds: float
    model_calls: int
    is_from_ledger: bool
    shared_from: str | None = None


def parse_reply(text: str, *, is_cut_off: bool = False) -> ParsedReply:
    """The label in a reply, by the first step that yields a valid one: direct, fenced, embedded, repaired.

    Args:
        text: What the model wrote.
        is_cut_off: Whether the token limit ended it. Such a reply is refused although a part may read as JSON.

    Raises:
        RepetitiveReplyError: The reply, one of its lists or one of its texts repeats itself.
        TruncatedReplyError: The reply was cut off, and does not repeat itself.
        InvalidReplyError: No step yields a valid label; the message names the fault in few words.
    """
    if _is_repetitive(text[-_TAIL_CHARS:], _REPETITIVE_REPLY_RATIO):
        raise RepetitiveReplyError("the reply repeats the same words over and over")
    if is_cut_off:
        raise TruncatedReplyError("the reply was cut off at the token limit")
    if len(text) > MAX_REPLY_CHARS:
        raise InvalidReplyError(f"the reply is longer than {MAX_REPLY_CHARS} characters")
    faults = []
    for step, candidate in _candidates(text):
        _refuse_repetition(candidate)
        try:
            return ParsedReply(ProductLabels.model_validate(candidate), step)
        except ValidationError as error:
            faults.append(_fault(error))
    raise InvalidReplyError(faults[0] if faults else "the reply holds no JSON object with the fields of a label")


def _is_repetitive(text: str, ratio: float) -> bool:
    """Whether a text says the same over and over: it compresses more than `ratio` times.

    Whisper finds the same fault by the same measure (openai/whisper, `compression_ratio_threshold`). Measured: ordinary
    lists and texts compress 1 to 3 times, a phrase six times in a row more than 4 times; whole replies up to 4.7 times,
    where every field says the same, and endless ones 12 times and more. A loop never ends, so a reply's tail shows it.
    """
    data = " ".join(text.split()).encode(errors="replace")
    return len(data) >= _REPETITIVE_MIN_BYTES and len(data) > ratio * len(zlib.compress(data, 9))


def _candidates(text: str) -> Iterator[tuple[ParseStep, dict[str, Any]]]:
    """Every JSON object that a step finds in the text, in the order of the steps.

    A nested object is a candidate too, so a label inside `{"result": …}` is found.
    """
    decoders: tuple[tuple[ParseStep, Callable[[str], Iterator[Any]]], ...] = (
        ("direct", _direct),
        ("fenced", _fenced),
        ("embedded", _embedded),
        ("repaired", _repaired),
    )
    for step, decode in decoders:
        for value in decode(text):
            if isinstance(value, dict) and not _FIELDS.isdisjoint(value):
                yield step, value


def _direct(text: str) -> Iterator[Any]:
    try:
        yield json.loads(text)
    except (ValueError, RecursionError):
        return


def _fenced(text: str) -> Iterator[Any]:
    for match in re.finditer(r"```(?:[a-zA-Z]+)?\s(.*?)(?:```|\Z)", text, re.DOTALL):
        yield from _direct(match.group(1))


def _embedded(text: str) -> Iterator[Any]:
    decoder = json.JSONDecoder()
    for match in re.finditer(r"\{", text):
        try:
            yield decoder.raw_decode(text, match.start())[0]
        except (ValueError, RecursionError):
            continue


def _repaired(text: str) -> Iterator[Any]:
    """The objects of broken JSON.

    Thousands of open brackets take the library seconds, and no label has them. On some garbage it fails with errors of
    its own (`AssertionError`, `RecursionError` …); whichever it is, there is nothing to repair.
    """
    start = text.find("{")
    if start < 0 or text.count("{") + text.count("[") > _MAX_BRACKETS_TO_REPAIR:
        return
    try:
        value = json_repair.loads(text[start:], skip_json_loads=True)
    except Exception:  # noqa: BLE001 - see above
        return
    yield from value if isinstance(value, list) else [value]


def _refuse_repetition(candidate: dict[str, Any]) -> None:
    for field in LABEL_FIELDS:
        value = candidate.get(field)
        words = [value] if isinstance(value, str) else value if isinstance(value, list) else []
        if _is_repetitive(" ".join(word for word in words if isinstance(word, str)), _REPETITIVE_FIELD_RATIO):
            raise RepetitiveReplyError(f"{field} repeats the same words over and over")


def _fault(error: ValidationError) -> str:
    """The first fault in few words, without the value: `occasion.0: Input should be a valid string`."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
