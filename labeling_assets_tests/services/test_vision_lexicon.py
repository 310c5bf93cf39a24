"""The lexicon of the embedded vision model: its table, and the search that forgives what OCR does to words."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labeling_assets.products.labels import MAX_ITEM_CHARS
from labeling_assets.products.records import LABEL_LISTS, TrademarkLevel
from labeling_assets.services.vision.lexicon import _UNREADABLE_LETTERS, _words, fold, lexicon_bytes, load_lexicon

TABLE = tomllib.loads(lexicon_bytes().decode())
PHRASES = [
    (field, value, phrase.strip())
    for field, values in TABLE["words"].items()
    for value, line in values.items()
    for phrase in line.split(",")
]


def found_in(*lines: str) -> dict[str, list[str]]:
    return load_lexicon().find(lines)


class TestLexiconTable:
    def test_every_field_is_a_label_field(self):
        assert set(TABLE["words"]) <= {*LABEL_LISTS, "trademark_level"}
        assert set(TABLE["words"]["trademark_level"]) <= set(get_args(TrademarkLevel))

    def test_every_value_fits_a_label(self):
        assert all(len(value) <= MAX_ITEM_CHARS for _, value, _ in PHRASES)

    def test_no_phrase_stands_twice_under_one_value(self):
        assert len(PHRASES) == len(set(PHRASES))

    def test_rules_follow_from_values_that_the_table_has(self):
        for rule in TABLE["implied"]:
            values = {value.strip() for value in rule["values"].split(",")}
            assert values <= set(TABLE["words"][rule["field"]]), rule
            assert set(rule) - {"field", "values"} <= set(LABEL_LISTS)

    def test_every_phrase_is_found_as_written(self):
        lost = [item for item in PHRASES if item[1] not in found_in(item[2].upper()).get(item[0], [])]
        assert lost == []

    def test_a_phrase_is_found_without_the_letters_that_ocr_cannot_read(self):
        for field, value, phrase in PHRASES:
            read = "".join(char for char in _words(phrase) if char not in _UNREADABLE_LETTERS)
            if len(read.replace(" ", "")) >= 5:
                assert value in found_in(read).get(field, []), (field, value, phrase)


class TestLexiconSearch:
    @pytest.mark.parametrize(
        ("lines", "field", "values"),
        [
            (("DOG MOM",), "image_recipient", ["Dog lover"]),
            (("Best mother-in-law",), "image_recipient", ["Mother-in-law"]),
            (("I'd rather be fishing",), "image_recipient", ["Fisherman"]),
            (("B0SS LADY",), "image_recipient", ["Boss"]),
            (("Grandrna",), "image_recipient", ["Grandma"]),
            (("Teacber life",), "image_recipient", ["Teacher"]),
            (("MerryChristmas",), "occasion", ["Christmas"]),
            (("Chrstmas time",), "occasion", ["Christmas"]),
            (("HappyFather’sDay",), "occasion", ["Father's Day"]),
            (("Tt sum vy",), "occasion", ["Tết", "Lunar New Year"]),
            (("Ngày Nhà giáo", "20/11"), "occasion", ["Teacher's Day"]),
            (("Gia đình là số một",), "image_recipient", ["Family"]),
            (("Mom and Dad",), "image_recipient", ["Mom", "Dad"]),
            (("Dad and Mom",), "image_recipient", ["Dad", "Mom"]),
            (("The Dogfather",), "trademark_level", ["TM Resemblance"]),
            (("Est. 2020", "12.06.2024"), "personalization_type", ["Established year", "Custom date", "Custom year"]),
            (("The Miller Family",), "personalization_type", ["Custom name"]),
            (("Mr & Mrs Nguyen",), "personalization_type", ["Custom name"]),
        ],
    )
    def test_words_give_values(self, lines: Sequence[str], field: str, values: list[str]):
        assert found_in(*lines)[field] == values

    @pytest.mark.parametrize(
        ("lines", "field"),
        [
            (("Love me or leave me",), "image_recipient"),
            (("I would rather rest",), "image_recipient"),
            (("The reason is laughter",), "image_recipient"),
            (("20.11.2020",), "occasion"),
            (("Ba ba black sheep",), "image_recipient"),
            (("Let us go",), "trademark_level"),
            (("2020 vision 12345",), "occasion"),
        ],
    )
    def test_other_words_give_nothing(self, lines: Sequence[str], field: str):
        assert field not in found_in(*lines)

    def test_folding_drops_accents_apostrophes_and_look_alikes(self):
        assert fold("Đặng’s  M0THER!") == fold("dangs mother")
        assert fold("2020") == "2020"

    @given(st.lists(st.text(max_size=60), max_size=8))
    def test_any_text_is_searched(self, lines: list[str]):
        for field, values in load_lexicon().find(lines).items():
            assert values
            assert len(values) == len(set(values)), field
