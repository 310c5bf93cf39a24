"""The page of an evaluation: complete, safe with text from outside, and without a request to anywhere."""

from __future__ import annotations

import datetime as dt
import re
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labeling_assets.products import comparison_page
from labeling_assets.products.comparison import Answer, ComparedImage, compare_answers, worst_first
from labeling_assets.products.comparison_page import render_page, rows_of
from labeling_assets.products.cost import Prices
from labeling_assets.products.evaluation import Contender, Evaluation
from labeling_assets.products.labels import ProductLabels
from labeling_assets.products.records import LABEL_FIELDS, LABEL_LISTS

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</td></table></body><iframe src=//evil>",
    "{{ 7 * 7 }} {% raw %}",
    "<!-- ",
    "javascript:alert(1)",
    "]]>&lt;b&gt;",
]


class Page(HTMLParser):
    """Elements, attributes and text of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str | None]] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data


def label(**changes: Any) -> ProductLabels:
    values = {name: ["Mom", "Dad"] for name in LABEL_LISTS}
    return ProductLabels.model_validate(
        values | {"trademark_level": "No TM", "main_subject": "orange cat", "text": "Best Mom Ever"} | changes
    )


def image(title: str = "Mug", b: ProductLabels | None = None, **changes: Any) -> ComparedImage:
    values = {
        "sha256": "ab" * 32,
        "title": title,
        "stratum": "mug",
        "a": Answer(label(), "", "direct", 1, 100, 50, 2.0),
        "b": Answer(b or label(), "", "repaired", 1, 100, 50, 2.0),
        "truth": None,
    }
    return ComparedImage(**values | changes)


def evaluation(*images: ComparedImage, model: str = "qwen") -> Evaluation:
    return Evaluation(
        made_at=dt.datetime(2026, 3, 2, tzinfo=dt.UTC),
        a=Contender("ollama", model, "digest", "1"),
        b=Contender("embedded", "", "other", "1"),
        first_day=dt.date(2026, 3, 1),
        last_day=dt.date(2026, 3, 2),
        seed=0,
        unreadable_images=0,
        images=worst_first(images),
        comparison=compare_answers(images, Prices(), Prices()),
    )


def page(*images: ComparedImage, model: str = "qwen") -> Page:
    return Page(render_page(evaluation(*images, model=model), lambda _: b"jpeg"))


PLAIN = page(image())


@pytest.mark.parametrize("text", HOSTILE)
def test_text_from_outside_is_only_text(text: str) -> None:
    shown = page(
        image(text, label(occasion=[text], text=text), stratum=text, truth=label(main_subject=text)),
        image(b=None, a=Answer(None, f"InvalidReplyError: {text}"), sha256="cd" * 32),
        model=text,
    )
    assert set(shown.tags) == set(PLAIN.tags) | {"p"}
    assert {(tag, name) for tag, name, _ in shown.attributes} == {(tag, name) for tag, name, _ in PLAIN.attributes}
    assert text in shown.text


@given(st.text())
def test_no_title_whatever_opens_an_element(title: str) -> None:
    assert page(image(title)).tags == PLAIN.tags


def test_nothing_is_loaded_from_anywhere() -> None:
    html = render_page(evaluation(image(), image(sha256="cd" * 32)), lambda _: b"jpeg")
    shown = Page(html)
    assert "script" not in shown.tags
    assert "link" not in shown.tags
    sources = [value for _, name, value in shown.attributes if name in ("src", "href", "srcset", "action")]
    assert sources
    assert all(str(source).startswith("data:image/jpeg;base64,") for source in sources)
    assert "http:" not in html
    assert "https:" not in html
    assert not re.search(r"url\(|@import", html)
    assert ("meta", "content", "default-src 'none'; img-src data:; style-src 'unsafe-inline'") in shown.attributes


def test_every_field_stands_in_the_table_and_in_each_image() -> None:
    text = PLAIN.text
    assert all(text.count(field.replace("_", " ")) >= 2 for field in LABEL_FIELDS)


def test_differing_fields_and_values_are_marked() -> None:
    compared = image(b=label(occasion=["Mom", "Tet"], niche_theme=["Dad", "Mom"]), truth=label(occasion=["Mom"]))
    rows = {row.field: row for row in rows_of(compared)}
    assert {name for name, row in rows.items() if row.difference == "different"} == {"occasion", "niche_theme"}
    assert [(value.text, value.is_only_here, value.is_right) for value in rows["occasion"].b] == [
        ("Mom", False, True),
        ("Tet", True, False),
    ]
    assert rows["occasion"].truth == ("Mom",)


def test_a_side_without_a_label_shows_why() -> None:
    compared = image(a=Answer(None, "InvalidReplyError: the reply holds no JSON object"))
    assert {row.difference for row in rows_of(compared)} == {"alone"}
    shown = page(compared)
    assert "A has no usable label. InvalidReplyError: the reply holds no JSON object" in shown.text


def test_without_truth_no_score_of_it_is_shown() -> None:
    assert "recall" not in PLAIN.text
    assert "recall" in page(image(truth=label())).text


def test_two_sides_that_are_the_same_are_called_so() -> None:
    own = evaluation(image())
    same = Evaluation(**vars(own) | {"b": own.a})
    assert "Both sides are the same model" in render_page(same, lambda _: None)
    assert "Both sides are the same model" not in render_page(own, lambda _: None)


def test_a_picture_that_is_gone_is_called_so() -> None:
    assert "The picture is gone." in render_page(evaluation(image()), lambda _: None)


def test_only_the_worst_images_are_shown_of_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison_page, "SHOWN_IMAGES", 2)
    shown = page(*(image(f"Title {number}", label(text=f"x{number}"), sha256=f"{number:064}") for number in range(5)))
    assert shown.tags.count("article") == 2
    assert "The first 2 of 5." in shown.text
