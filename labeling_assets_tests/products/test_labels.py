"""Reading replies: every text becomes a valid label or a named fault."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from labeling_assets.errors import InvalidReplyError, LabelError, RepetitiveReplyError, TruncatedReplyError
from labeling_assets.products.labels import (
    LABEL_SCHEMA,
    MAX_ITEM_CHARS,
    MAX_ITEMS,
    MAX_REPLY_CHARS,
    MAX_TEXT_CHARS,
    SCHEMA_VERSION,
    ProductLabels,
    parse_reply,
)
from labeling_assets.products.records import LABEL_FIELDS, LABEL_LISTS, LabeledProduct

VALID: dict[str, Any] = {
    **{field: ["Mom", "Dad"] for field in LABEL_LISTS},
    "trademark_level": "No TM",
    "main_subject": "sleeping orange cat",
    "text": "Ông nội tuyệt vời nhất",
}
SCHEMA_SHA256 = "dc10bb680426ad0e856342f32be6dcb7c49065fadd43d39a7dda0859f42104ad"

JSON_PARTS = [
    "{",
    "}",
    "[",
    "]",
    '"',
    ",",
    ":",
    '"text"',
    '"occasion"',
    " ",
    "a",
    "\\",
    "\n",
    "null",
    "```json",
    "\x00",
    "'",
]

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=120),
    lambda inner: st.lists(inner, max_size=12) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=20,
)


def test_the_fields_are_those_of_the_record_in_the_same_order():
    assert tuple(ProductLabels.model_fields) == LABEL_FIELDS
    assert set(LABEL_FIELDS) <= set(LabeledProduct.model_fields)


def test_the_schema_changes_only_with_its_version():
    fingerprint = hashlib.sha256(json.dumps(LABEL_SCHEMA, sort_keys=True).encode()).hexdigest()
    assert (SCHEMA_VERSION, fingerprint) == ("1", SCHEMA_SHA256), "raise SCHEMA_VERSION, then note the new fingerprint"


def test_the_schema_is_flat_and_bounds_every_string_and_list():
    assert "$ref" not in json.dumps(LABEL_SCHEMA)
    assert LABEL_SCHEMA["required"] == list(LABEL_FIELDS)
    for part in LABEL_SCHEMA["properties"].values():
        leaf = part.get("items", part)
        assert leaf["type"] == "string"
        assert "maxLength" in leaf or "enum" in leaf
        assert part["type"] == "string" or part["maxItems"] == MAX_ITEMS


@pytest.mark.parametrize(
    ("form", "step"),
    [
        ("{}", "direct"),
        ("  {}\n", "direct"),
        ("```json\n{}\n```", "fenced"),
        ("```\n{}\n```", "fenced"),
        ("Sure:\n```json\n{}\n```\nBye", "fenced"),
        ("```json\n{}", "fenced"),
        ("Here it is: {} Anything else? {{}}", "embedded"),
        ('{{"result": {}}}', "embedded"),
        ("<think>{{hm}}</think> {}", "embedded"),
        ("{},}}", "embedded"),
    ],
)
def test_a_label_is_found_and_the_step_is_told(form, step):
    parsed = parse_reply(form.format(json.dumps(VALID)))
    assert parsed.step == step
    assert parsed.labels == ProductLabels.model_validate(VALID)


@pytest.mark.parametrize(
    "break_json",
    [
        lambda text: text[:-1],
        lambda text: text.replace('"', "'"),
        lambda text: text.replace("]", ",]", 3),
        lambda text: text.replace('"text"', "text"),
        lambda text: text.replace("sleeping orange", "sleeping\norange"),
        lambda text: "Here: " + text.replace(",", "", 1),
    ],
    ids=["unclosed", "single quotes", "trailing commas", "bare key", "raw newline", "missing comma"],
)
def test_broken_json_is_repaired(break_json):
    parsed = parse_reply(break_json(json.dumps(VALID, ensure_ascii=False)))
    assert parsed.step == "repaired"
    assert parsed.labels == ProductLabels.model_validate(VALID)


@pytest.mark.parametrize(
    ("given_value", "expected"),
    [
        (["  Mom ", "mom", "MOM", "Dad"], ["Mom", "Dad"]),
        (["Unknown", "none", "N/A", "", "  ", "Không có", None, "Dad"], ["Dad"]),
        ("Mom, Dad; Grandma\nAunt", ["Mom", "Dad", "Grandma", "Aunt"]),
        ("unknown", []),
        (None, []),
        ([], []),
        ([str(number) for number in range(20)], [str(number) for number in range(MAX_ITEMS)]),
        (["x" * 200], ["x" * MAX_ITEM_CHARS]),
        (["a\x00b\nc\ud800"], ["a b c"]),
        (["Ông nội", "Ông nội"], ["Ông nội"]),
    ],
)
def test_a_list_is_cleaned(given_value, expected):
    labels = ProductLabels.model_validate(VALID | {"occasion": given_value})
    assert labels.occasion == expected


@pytest.mark.parametrize(
    ("given_value", "expected"),
    [("  BEST\n MOM ", "BEST MOM"), ("None", ""), ("No text.", ""), (None, ""), ("a\x00b", "a b")],
)
def test_a_text_is_cleaned(given_value, expected):
    assert ProductLabels.model_validate(VALID | {"text": given_value}).text == expected


def test_a_long_text_is_cut():
    words = " ".join(hashlib.sha256(str(number).encode()).hexdigest()[:7] for number in range(100))
    assert parse_reply(json.dumps(VALID | {"text": words})).labels.text == words[:MAX_TEXT_CHARS].rstrip()


@pytest.mark.parametrize("level", ["Direct TM", "direct tm", " DIRECT_TM "])
def test_the_trademark_level_is_read_in_any_case(level):
    assert ProductLabels.model_validate(VALID | {"trademark_level": level}).trademark_level == "Direct TM"


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({"occasion": 5}, "occasion: Input should be a valid list"),
        ({"occasion": {"a": 1}}, "occasion: Input should be a valid list"),
        ({"occasion": ["Tết", 7]}, "occasion.1: Input should be a valid string"),
        ({"occasion": [["Tết"]]}, "occasion.0: Input should be a valid string"),
        ({"text": ["a"]}, "text: Input should be a valid string"),
        ({"main_subject": True}, "main_subject: Input should be a valid string"),
        ({"trademark_level": "maybe"}, "trademark_level: Input should be 'No TM'"),
        ({"trademark_level": None}, "trademark_level: Input should be 'No TM'"),
    ],
)
def test_a_wrong_type_is_a_named_fault(changed, fault):
    with pytest.raises(InvalidReplyError, match=f"^{fault}"):
        parse_reply(json.dumps(VALID | changed))


@pytest.mark.parametrize("field", LABEL_FIELDS)
def test_a_missing_field_is_a_named_fault(field):
    with pytest.raises(InvalidReplyError, match=f"^{field}: Field required"):
        parse_reply(json.dumps({name: value for name, value in VALID.items() if name != field}))


def test_other_keys_are_ignored():
    assert parse_reply(json.dumps(VALID | {"confidence": 0.9})).labels == ProductLabels.model_validate(VALID)


@pytest.mark.parametrize(
    "text",
    ["", "I see a mug.", "null", "[]", "{}", '{"a": 1}', "[" * 5000, "{" * 5000, '{"text":' * 5000, '{"a' * 3000],
)
def test_a_reply_without_a_label_is_refused(text):
    with pytest.raises((InvalidReplyError, RepetitiveReplyError)):
        parse_reply(text)


def test_a_reply_without_end_is_refused_unread():
    numbers = " ".join(str(number * 7919) for number in range(MAX_REPLY_CHARS // 4))
    with pytest.raises(InvalidReplyError, match="longer than"):
        parse_reply(numbers + json.dumps(VALID))


def test_a_reply_that_was_cut_off_is_refused_even_when_a_part_of_it_reads_as_a_label():
    with pytest.raises(TruncatedReplyError):
        parse_reply(json.dumps(VALID), is_cut_off=True)


@pytest.mark.parametrize("fragment", ["love ", '"Mom", ', "\\n", "The cat sits on the mat and looks at the moon. "])
@pytest.mark.parametrize("is_cut_off", [True, False])
def test_an_endless_reply_is_repetitive(fragment, is_cut_off):
    start = json.dumps(VALID)[:-30]
    with pytest.raises(RepetitiveReplyError):
        parse_reply(start + fragment * (4000 // len(fragment)), is_cut_off=is_cut_off)


@pytest.mark.parametrize(
    "changed",
    [
        {"text": "LOVE " * 20},
        {"main_subject": "a cat and " * 15},
        {"niche_theme": ["Fishing"] * 30},
        {"niche_theme": ["ha " * 30]},
        {"niche_theme": ["Mom", "Dad"] * 12},
    ],
)
def test_a_field_that_repeats_itself_is_named(changed):
    with pytest.raises(RepetitiveReplyError, match=f"^{next(iter(changed))} repeats"):
        parse_reply(json.dumps(VALID | changed))


@pytest.mark.parametrize(
    "label",
    [
        VALID | {key: ["Mother's Day gift for mom", "Birthday gift for mom"] for key in LABEL_LISTS},
        VALID | {key: ["Unknown"] for key in LABEL_LISTS},
        VALID | {key: [] for key in LABEL_LISTS},
        VALID | {"text": "Ho Ho Ho"},
        VALID | {"text": "LOVE LOVE LOVE LOVE LOVE LOVE"},
        VALID | {"text": "happy birthday to you happy birthday to you happy birthday dear mom"},
    ],
)
@pytest.mark.parametrize("indent", [None, 4])
def test_an_ordinary_label_is_not_repetitive(label, indent):
    assert parse_reply(json.dumps(label, indent=indent)).step == "direct"


@settings(deadline=None)
@given(
    st.lists(st.sampled_from(JSON_PARTS)).map("".join)
    | st.text()
    | st.binary().map(lambda data: data.decode("latin-1"))
)
@example("\ud800{")
@example('{\x00\'```json{"text"\\a```json,')  # breaks json-repair 0.64 with an AssertionError
@example('{"text": NaN, "occasion": 1e999}')
@example("{" + "9" * 5000)
def test_garbage_never_escapes_as_another_error(text):
    with pytest.raises(LabelError):
        parse_reply(text)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(LABEL_FIELDS), st.lists(st.text()) | anything, max_size=4))
def test_any_object_becomes_a_valid_label_or_a_label_error(changed):
    try:
        labels = parse_reply(json.dumps(VALID | changed)).labels
    except LabelError:
        return
    dumped = labels.model_dump()
    assert ProductLabels.model_validate(dumped) == labels
    for field in LABEL_LISTS:
        items = dumped[field]
        assert len({item.casefold() for item in items}) == len(items) <= MAX_ITEMS
        assert all(1 <= len(item) <= MAX_ITEM_CHARS and item == item.strip() for item in items)
    json.dumps(dumped, ensure_ascii=False).encode()
    assert "\\u0000" not in json.dumps(dumped)


@settings(deadline=None)
@given(st.sampled_from(sorted(VALID)), st.integers(0, 400), st.text(max_size=3))
def test_a_damaged_label_never_escapes_as_another_error(field, position, noise):
    text = json.dumps(VALID)
    try:
        parsed = parse_reply(text[:position] + noise + text[position:])
    except LabelError:
        return
    assert isinstance(getattr(parsed.labels, field), list | str)


def test_a_label_cannot_be_made_with_a_field_missing():
    with pytest.raises(ValidationError):
        ProductLabels.model_validate({})
