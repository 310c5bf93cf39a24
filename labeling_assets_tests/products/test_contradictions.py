"""Contradictions between title and label: what is found, what is left alone, and that true labels are not accused."""

from __future__ import annotations

import datetime as dt
import random
import tomllib
import unicodedata
from importlib import resources
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labeling_assets.embedded.demo.catalogue import build_catalogue
from labeling_assets.products.contradictions import contradicting_rows, find_contradictions
from labeling_assets.products.labels import ProductLabels
from labeling_assets.products.records import LABEL_FIELDS, LABEL_LISTS, LabeledProduct, to_table
from labeling_assets_tests.services.milvus_samples import product

TABLE = tomllib.loads(resources.files("labeling_assets.products").joinpath("title_words.toml").read_text())
PHRASES = sorted(
    {
        phrase.strip()
        for axis in TABLE["axis"]
        for part in ("words", "label_words")
        for phrases in axis.get(part, {}).values()
        for phrase in phrases.split(",")
        if phrase.strip()
    }
)
NOTHING: dict[str, Any] = {name: [] for name in LABEL_LISTS} | {
    "trademark_level": "No TM",
    "main_subject": "",
    "text": "",
}


def fields(title: str | None, **labels: object) -> list[str]:
    return [each.field for each in find_contradictions(title, NOTHING | labels)]


@pytest.mark.parametrize(
    ("title", "field", "values"),
    [
        ("Navy Hoodie for Dad", "color_aesthetic", ["Black"]),
        ("Áo thun đen cao cấp", "color_aesthetic", ["Pastel pink", "White"]),
        ("Best Dad Ever MUG, Birthday Gift", "product_type", ["T-shirt"]),
        ("Cốc sứ in chữ “Mẹ yêu”", "product_type", ["T-shirt"]),
        ("Áo thun Bố là số một", "product_type", ["Ceramic mug"]),
        ("Wooden Plaque | Home decor", "product_type", ["Fleece blanket"]),
        ("Chăn lông in hình", "product_type", ["Hoodie"]),
        ("Christmas Ornament 2025", "product_type", ["Phone case"]),
        ("Canvas wall art", "product_type", ["Tote bag"]),
        ("Gift for Mom", "image_recipient", ["Dad"]),
        ("Quà tặng mẹ", "image_recipient", ["Dad", "Grandpa"]),
        ("Nurse life shirt", "image_recipient", ["Teacher"]),
        ("Dog mom mug", "image_recipient", ["Cat lover"]),
        ("Merry Christmas mug", "occasion", ["Halloween"]),
        ("Chúc Tết sum vầy", "occasion", ["Halloween"]),
        ("Mother's Day Shirt", "occasion", ["Father’s Day"]),
        ("Happy Retirement Mug", "occasion", ["Graduation"]),
    ],
)
def test_a_title_that_says_otherwise_is_found(title: str, field: str, values: list[str]) -> None:
    assert fields(title, **{field: values}) == [field]
    # A title may come with its accents apart.
    assert fields(unicodedata.normalize("NFD", title), **{field: values}) == [field]


@pytest.mark.parametrize(
    ("title", "labels"),
    [
        (None, {"product_type": ["Mug"]}),
        ("", {"product_type": ["Mug"]}),
        ("Navy Hoodie", {"color_aesthetic": ["Blue", "White"]}),
        ("Navy Hoodie", {"color_aesthetic": ["Dark", "Vibrant"]}),
        ("Navy Hoodie", {"color_aesthetic": []}),
        ("Navy Hoodie", {"color_aesthetic": ["Rainbow"]}),
        ("US Navy Veteran Shirt", {"color_aesthetic": ["Black"]}),
        ("Black Cat Mug", {"color_aesthetic": ["Orange"]}),
        ("White Mug with Roses", {"color_aesthetic": ["Pink"]}),
        ("Blue hour print", {"color_aesthetic": ["Orange"], "main_subject": "blue bird"}),
        ("Teal tumbler", {"color_aesthetic": ["Light blue"]}),
        ("Shirt, Hoodie, Mug", {"product_type": ["Hoodie"]}),
        ("Sweatshirt", {"product_type": ["Long sleeve shirt"]}),
        ("World Cup 2026", {"product_type": ["T-shirt"]}),
        ("Poster", {"product_type": ["Wall art"]}),
        ("Mug", {"product_type": ["Contraption"]}),
        ("Contraption", {"product_type": ["Mug"]}),
        ("Gift from Daughter for Dad", {"image_recipient": ["Dad"]}),
        ("Dad Mug, Gift from Daughter", {"image_recipient": ["Dad"]}),
        ("Quà từ con gái tặng bố", {"image_recipient": ["Dad"]}),
        ("Gift for Grandma", {"image_recipient": ["Mom"]}),
        ("Gift for Wife", {"image_recipient": ["Couple"]}),
        ("Nurse shirt", {"image_recipient": ["Mom"]}),
        ("Mother's Day gift", {"image_recipient": ["Dad"]}),
        ("Gift for Mom", {"image_recipient": ["Dad"], "target_audience": ["Moms"]}),
        ("Christmas gift for Dad", {"occasion": ["Father's Day", "Birthday"]}),
        ("Merry Christmas and Happy New Year", {"occasion": ["Tết"]}),
        ("Halloween shirt", {"occasion": ["Any occasion"]}),
        ("Housewarming, wedding, anniversary gift", {"occasion": ["Graduation"]}),
    ],
)
def test_what_may_be_right_is_left_alone(title: str | None, labels: dict[str, object]) -> None:
    assert fields(title, **labels) == []


def test_a_contradiction_tells_what_each_side_says() -> None:
    (found,) = find_contradictions("Navy Hoodie", NOTHING | {"color_aesthetic": ["Black", "Vibrant"]})
    assert (found.title_words, found.label_values) == (("navy",), ("Black",))
    assert str(found) == "title says “navy”, color_aesthetic says “Black”"


def test_several_contradictions_of_one_product_are_all_found() -> None:
    labels = {"product_type": ["T-shirt"], "color_aesthetic": ["Black"], "occasion": ["Halloween"]}
    assert fields("Navy Christmas Mug", **labels) == ["color_aesthetic", "product_type", "occasion"]


def test_words_printed_on_the_product_excuse_a_colour_but_no_recipient() -> None:
    assert fields("I see red", color_aesthetic=["Black"], text="I SEE RED") == []
    assert fields("BEST DAD mug", image_recipient=["Mom"], text="BEST DAD") == ["image_recipient"]


TEXTS = st.one_of(st.text(max_size=40), st.sampled_from(PHRASES), st.lists(st.sampled_from(PHRASES)).map(" ".join))


@given(title=TEXTS, values=st.lists(TEXTS, max_size=3), field=st.sampled_from(LABEL_FIELDS))
def test_no_text_raises(title: str, values: list[str], field: str) -> None:
    find_contradictions(title, NOTHING | {field: values, "text": title})
    find_contradictions(f"from {title}", NOTHING | {"product_type": values, "image_recipient": values})


@pytest.mark.parametrize("title", ["\ud800 mug \x00", "a" * 100_000, "from " * 20_000, "((((" * 1000, "' - \n|"])
def test_garbage_in_a_title_does_no_harm(title: str) -> None:
    find_contradictions(title, NOTHING | {"product_type": ["T-shirt"], "image_recipient": ["Dad"]})


@pytest.mark.parametrize("labels", [{}, {"product_type": None}, {"product_type": [None, 3]}, {"product_type": 7}])
def test_labels_of_another_form_say_nothing(labels: dict[str, object]) -> None:
    assert find_contradictions("Mug", labels) == []


@given(
    values=st.fixed_dictionaries({name: st.lists(TEXTS, max_size=4) for name in LABEL_LISTS}),
    subject=TEXTS,
    choice=st.randoms(use_true_random=False),
)
def test_a_title_made_of_a_labels_own_values_does_not_contradict_it(
    values: dict[str, list[str]], subject: str, choice: random.Random
) -> None:
    labels = NOTHING | values | {"main_subject": subject}
    own = [value for items in values.values() for value in items] + [subject]
    title = ", ".join(choice.sample(own, choice.randint(0, len(own))))
    assert find_contradictions(title, labels) == []


@pytest.fixture(scope="module")
def titles_and_truths() -> list[tuple[str, dict[str, Any]]]:
    """Titles of the demo catalogue, but for the trap whose title says mug whatever it is, and their true labels."""
    pairs = []
    for seed in (1, 7):
        catalogue = build_catalogue(seed, 21, 40, last_day=dt.date(2026, 3, 31))
        hostile = {row for trap in catalogue.traps if trap.name == "hostile product id" for row in trap.row_numbers}
        pairs += [
            (row.title, truth)
            for number, row in enumerate(catalogue.rows)
            if row.title and number not in hostile and (truth := catalogue.truth_of(row))
        ]
    return pairs


def test_true_labels_are_hardly_ever_accused(titles_and_truths: list[tuple[str, dict[str, Any]]]) -> None:
    accused = [title for title, truth in titles_and_truths if find_contradictions(title, truth)]
    assert len(titles_and_truths) > 1500
    assert len(accused) <= 0.005 * len(titles_and_truths), accused


def test_true_labels_are_hardly_ever_accused_where_titles_name_the_colour(
    titles_and_truths: list[tuple[str, dict[str, Any]]],
) -> None:
    accused = [
        title
        for title, truth in titles_and_truths
        if find_contradictions(f"{truth['color_aesthetic'][0]} {title}", truth)
    ]
    assert len(accused) <= 0.01 * len(titles_and_truths), accused


def test_most_labels_of_another_product_are_found(titles_and_truths: list[tuple[str, dict[str, Any]]]) -> None:
    others = [truth for _, truth in titles_and_truths]
    random.Random(3).shuffle(others)
    pairs = [
        (title, other)
        for (title, truth), other in zip(titles_and_truths, others, strict=True)
        if truth["product_type"] != other["product_type"]
    ]
    found = sum(bool(find_contradictions(title, other)) for title, other in pairs)
    assert found > 0.8 * len(pairs)


def test_every_phrase_of_the_table_can_be_found() -> None:
    """Phrases are words of letters and digits: nothing that comparing takes away stands in them."""
    assert [phrase for phrase in PHRASES if not all(word.isalnum() for word in phrase.split(" "))] == []
    assert [phrase for phrase in PHRASES if phrase != unicodedata.normalize("NFC", phrase.casefold())] == []


@pytest.mark.parametrize("axis", TABLE["axis"], ids=lambda axis: f"{axis['field']} {next(iter(axis['words']))}")
def test_every_phrase_gives_its_answer_wherever_it_stands_in_the_table(axis: dict[str, Any]) -> None:
    """Title and label that say the same phrase agree; a phrase of any answer but none contradicts some other one."""
    answers = {name: [each.strip() for each in phrases.split(",")] for name, phrases in axis["words"].items()}
    for name in answers.keys() - {"any", "none"}:
        for phrase in answers[name]:
            contradicted = [
                other
                for other, phrases in answers.items()
                for each in (phrases if other in (name, "any", "none") else phrases[:1])
                if find_contradictions(phrase, NOTHING | {axis["field"]: [each]})
            ]
            assert contradicted, phrase
            assert name not in contradicted, phrase
            assert not {"any", "none"} & set(contradicted), phrase


def test_every_axis_is_of_a_label_field_and_knows_its_answers() -> None:
    for axis in TABLE["axis"]:
        assert axis["field"] in LABEL_LISTS
        assert len(set(axis["words"]) - {"any", "none"}) > 1


def test_the_rows_of_a_table_that_contradict_are_given_with_their_reasons() -> None:
    labels = ProductLabels(**NOTHING | {"product_type": ["T-shirt"]}).model_dump()
    rows = [
        LabeledProduct.model_validate(product(name, title=title, **labels).model_dump())
        for name, title in (("wrong", "Mug"), ("right", "T-shirt"), ("untitled", None))
    ]
    ((row, (contradiction,)),) = contradicting_rows(to_table(rows, LabeledProduct))
    assert (row["id_sanpham"], contradiction.field) == ("wrong", "product_type")
    assert row["image_sha256"] == rows[0].image_sha256
