"""The Markdown description: complete in both languages, safe with outside text."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labeling_assets.products.description import EMBEDDED_FIELDS, describe, embedding_text
from labeling_assets.products.labels import ProductLabels
from labeling_assets.products.records import LABEL_LISTS

EMPTY: dict[str, Any] = {
    **{field: [] for field in LABEL_LISTS},
    "trademark_level": "No TM",
    "main_subject": "",
    "text": "",
}
HEADINGS = {
    "vi": ["Thông tin cơ bản", "Đối tượng và mục đích", "Phân loại", "Thiết kế và trưng bày", "Tóm tắt"],
    "en": ["Basic information", "Audience and purpose", "Classification", "Design and display", "Summary"],
}


def description_of(language: str = "en", title: str | None = "A title", **changed: Any) -> str:
    labels = ProductLabels.model_validate(EMPTY | changed)
    return describe(
        labels, title=title, name_store="A store", platform="Website", id_sanpham="SP_1a2b", language=language
    )


@pytest.mark.parametrize("language", ["vi", "en"])
def test_the_sections_stand_in_order(language):
    assert re.findall(r"^## (.+)$", description_of(language), re.MULTILINE) == HEADINGS[language]


@pytest.mark.parametrize("language", ["vi", "en"])
def test_every_field_of_the_label_and_the_product_is_told(language):
    values = {field: [f"value of {field}"] for field in LABEL_LISTS}
    text = description_of(language, **values, main_subject="a cat", text="Best Mom")
    for value in [*(items[0] for items in values.values()), "a cat", "Best Mom", "No TM"]:
        assert re.search(rf"^- \*\*[^*]+:\*\* {value}$", text.replace("\\", ""), re.MULTILINE)
    for value in ("A title", "A store", "Website", "SP_1a2b"):
        assert f":** {value}\n" in text


def test_the_first_three_items_of_a_list_are_told():
    assert "- **Occasion:** Tết, Wedding, Birthday\n" in description_of(
        occasion=["Tết", "Wedding", "Birthday", "Easter"]
    )


@pytest.mark.parametrize(("language", "line"), [("vi", "- **Dịp:** Unknown"), ("en", "- **Occasion:** Unknown")])
def test_what_is_empty_is_unknown(language, line):
    text = description_of(language, title=None)
    assert line in text
    assert text.endswith("Unknown\n")


def test_the_summary_tells_what_is_known():
    text = description_of(product_type=["Ceramic mug"], occasion=["Tết"])
    assert text.endswith("## Summary\n\nProduct: Ceramic mug; occasion: Tết.\n")


@pytest.mark.parametrize(
    ("title", "shown"),
    [
        ("**bold** and _slanted_", r"\*\*bold\*\* and \_slanted\_"),
        ("[a](http://b) `c` ~~d~~ <e> \\", r"\[a\](http://b) \`c\` \~\~d\~\~ \<e> \\"),
        ("M&M & &lt;b&gt;", r"M&M & \&lt;b\&gt;"),
        ("two\nlines\r\nand\u2028more\x00", "two lines and more"),
        ("SP_1_2", "SP_1_2"),
        ("   ", "Unknown"),
        ("# no heading", "# no heading"),
    ],
)
def test_outside_text_stays_one_line_of_plain_text(title, shown):
    assert f"- **Title:** {shown}\n" in description_of(title=title)


@pytest.mark.parametrize("language", ["fr", ""])
def test_another_language_is_refused(language):
    with pytest.raises(ValueError, match="not in tuple"):
        description_of(language)


@settings(deadline=None)
@given(st.text(), st.text(), st.sampled_from(["vi", "en"]))
def test_no_text_adds_lines_or_sections(title, words, language):
    text = description_of(language, title=title, text=words[:200])
    assert len(text.splitlines()) == len(description_of(language).splitlines())
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == HEADINGS[language]
    text.encode()


LABELED = EMPTY | {
    **{field: [f"one {field}", "two", "three"] for field in LABEL_LISTS},
    "main_subject": "a cat on the moon with a balloon " * 5,
    "text": "Best Mom Ever " * 30,
    "title": "Cốc *sứ* tặng mẹ " * 20,
    "description": "## Heading",
}


def test_the_embedder_reads_recipient_occasion_and_theme_before_it_stops():
    first = " ".join(embedding_text(LABELED).split()[:64])
    assert first.startswith("Cốc *sứ* tặng mẹ")
    for field in ("product_type", "image_recipient", "occasion", "niche_theme"):
        assert f"one {field}" in first


def test_the_embedder_reads_no_id_no_store_and_no_markup():
    product = LABELED | {"id_sanpham": "1234567890123", "name_store": "A store", "platform": "Website"}
    text = embedding_text(product)
    assert text == embedding_text(dict(reversed(product.items())))
    for absent in ("1234567890123", "A store", "Website", "##", "**", "\\", "Unknown"):
        assert absent not in text


@pytest.mark.parametrize("field", [*EMBEDDED_FIELDS, "title"])
def test_another_title_or_label_is_another_text(field):
    other = LABELED | {field: ["something else"] if field in LABEL_LISTS else "something else"}
    assert embedding_text(other) != embedding_text(LABELED)
    assert "something else" in embedding_text(other)


@pytest.mark.parametrize("title", [None, "", " \n", "Mug"])
def test_the_text_for_the_embedder_is_never_blank(title):
    text = embedding_text(EMPTY | {"title": title, "description": "## Heading"})
    assert text == ("Mug" if title == "Mug" else "## Heading")


def test_the_whole_title_is_in_the_text():
    title = " ".join(f"word{number}" for number in range(40))
    text = embedding_text(EMPTY | {"title": title, "description": ""})
    assert sorted(re.findall(r"word\d+", text)) == sorted(title.split())
