"""Scores of two labelers: bounds, symmetry, and the numbers worked out by hand."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labeling_assets.products.comparison import (
    Answer,
    ComparedImage,
    agreement,
    compare_answers,
    leading_value,
    quality,
    worst_first,
)
from labeling_assets.products.cost import Prices
from labeling_assets.products.evaluation import Contender, Evaluation
from labeling_assets.products.labels import ProductLabels
from labeling_assets.products.records import LABEL_FIELDS, LABEL_LISTS, TrademarkLevel

PHRASES = st.sampled_from(["Mom", "mom", "MOM!", "Dad", "Best friend", "best-friend", "Mẹ", "Me\u0323", "♥", "Ông nội"])


def label(**changes: Any) -> ProductLabels:
    values = {name: ["Mom", "Dad"] for name in LABEL_LISTS}
    return ProductLabels.model_validate(
        values | {"trademark_level": "No TM", "main_subject": "orange cat", "text": "Best Mom Ever"} | changes
    )


labels = st.fixed_dictionaries(
    {name: st.lists(PHRASES, max_size=4) for name in LABEL_LISTS}
    | {"trademark_level": st.sampled_from(get_args(TrademarkLevel)), "main_subject": st.text(), "text": st.text()}
).map(ProductLabels.model_validate)
answers = st.builds(
    Answer,
    labels=labels,
    parse_step=st.sampled_from(["direct", "repaired"]),
    model_calls=st.integers(1, 2),
    prompt_tokens=st.integers(0, 10_000),
    output_tokens=st.integers(0, 10_000),
    seconds=st.floats(0, 300),
) | st.builds(Answer, labels=st.none(), error=st.just("InvalidReplyError: the reply: no object"))
images = st.lists(
    st.builds(
        ComparedImage,
        sha256=st.text("0123456789abcdef", min_size=64, max_size=64),
        title=st.text(),
        stratum=st.text(),
        a=answers,
        b=answers,
        truth=st.none() | labels,
    ),
    max_size=4,
)


def score(one: ProductLabels | None, other: ProductLabels | None, truth: ProductLabels | None = None) -> Any:
    image = ComparedImage("0" * 64, "", "mug", Answer(one), Answer(other), truth)
    return compare_answers([image], Prices(), Prices())


@given(labels, labels)
def test_agreement_is_symmetric_and_between_0_and_1(one: ProductLabels, other: ProductLabels) -> None:
    for field in LABEL_FIELDS:
        assert agreement(field, one, other) == agreement(field, other, one)
        assert 0 <= agreement(field, one, other) <= 1
        assert agreement(field, one, one) == 1


@settings(max_examples=40)
@given(images)
def test_exchanging_the_sides_exchanges_their_scores_and_keeps_the_agreement(compared: list[ComparedImage]) -> None:
    exchanged = [ComparedImage(each.sha256, each.title, each.stratum, each.b, each.a, each.truth) for each in compared]
    one, other = (compare_answers(each, Prices(), Prices()) for each in (compared, exchanged))
    assert (one.a, one.b) == (other.b, other.a)
    for score, mirrored in zip(one.fields, other.fields, strict=True):
        assert (score.agreement, score.exact, score.flip_rate) == (
            mirrored.agreement,
            mirrored.exact,
            mirrored.flip_rate,
        )
        assert (score.a, score.b) == (mirrored.b, mirrored.a)


@settings(max_examples=40)
@given(images)
def test_every_score_has_its_bounds(compared: list[ComparedImage]) -> None:
    found = compare_answers(compared, Prices(1, 1, 1), Prices())
    assert found.labeled_by_both <= found.images == len(compared)
    for each in found.fields:
        numbers = [each.agreement, each.exact, each.flip_rate]
        for rated in (each.a, each.b):
            numbers += [rated.precision, rated.recall, rated.f1] if rated else []
            assert (rated is not None) == (found.with_truth > 0)
        assert all(0 <= number <= 1 for number in numbers)
        assert each.exact <= each.agreement + 1e-9
    assert 0 <= found.a.validity <= 1
    assert found.a.cost >= 0 == found.b.cost
    assert sum(found.a.parse_steps.values()) == found.a.valid
    assert found.a.valid + sum(found.a.errors.values()) == len(compared)


@given(st.lists(labels, min_size=1, max_size=4))
def test_the_truth_compared_with_itself_is_perfect(truths: list[ProductLabels]) -> None:
    for field in LABEL_FIELDS:
        assert quality(field, [(truth, truth) for truth in truths]).f1 == 1


@given(labels, labels)
def test_f1_lies_between_precision_and_recall(found: ProductLabels, truth: ProductLabels) -> None:
    for field in LABEL_FIELDS:
        rated = quality(field, [(found, truth)])
        if rated.precision + rated.recall:
            assert min(rated.precision, rated.recall) - 1e-9 <= rated.f1 <= max(rated.precision, rated.recall) + 1e-9


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (["Mom"], ["MOM"]),
        (["T-shirt"], ["t shirt"]),
        (["Mẹ"], ["Me\u0323"]),
        (["Mom", "Dad"], ["Dad", "Mom"]),
        ([], ["unknown"]),
    ],
)
def test_case_punctuation_and_order_do_not_count(one: list[str], other: list[str]) -> None:
    assert agreement("occasion", label(occasion=one), label(occasion=other)) == 1


def test_numbers_of_a_list_are_those_worked_out_by_hand() -> None:
    a, b = label(occasion=["Christmas", "Birthday", "Tet"]), label(occasion=["Birthday", "Wedding"])
    truth = label(occasion=["Christmas", "Birthday"])
    occasion = next(each for each in score(a, b, truth).fields if each.field == "occasion")
    assert occasion.agreement == pytest.approx(1 / 4)
    assert (occasion.exact, occasion.flip_rate) == (0, 1)
    assert (occasion.a.precision, occasion.a.recall, occasion.a.f1) == pytest.approx((2 / 3, 1, 4 / 5))
    assert (occasion.b.precision, occasion.b.recall, occasion.b.f1) == pytest.approx((1 / 2, 1 / 2, 1 / 2))


def test_a_text_is_compared_word_by_word_and_flips_as_a_whole() -> None:
    a, b = label(text="BEST MOM ever!"), label(text="Ever Best Mom")
    assert agreement("text", a, b) == 1
    assert leading_value("text", a) != leading_value("text", b)
    assert agreement("text", label(text=""), label(text="")) == 1
    assert agreement("text", label(text=""), b) == 0


def test_a_missing_label_lowers_recall_and_not_the_agreement() -> None:
    found = score(label(), None, label())
    occasion = found.fields[LABEL_FIELDS.index("occasion")]
    assert (occasion.a.f1, occasion.b.precision, occasion.b.recall, occasion.b.f1) == (1, 0, 0, 0)
    assert (found.labeled_by_both, found.agreement, found.flip_rate) == (0, 0, 0)
    assert (found.a.validity, found.b.validity) == (1, 0)


def test_cost_is_that_of_tokens_and_seconds() -> None:
    image = ComparedImage(
        "0" * 64, "", "", Answer(label(), "", "direct", 2, 3_000_000, 500_000, 1800), Answer(label()), None
    )
    found = compare_answers([image], Prices(2, 10, 4), Prices(2, 10, 4))
    assert found.a.cost == pytest.approx(6 + 5 + 2)
    assert (found.a.model_calls, found.a.f1, found.b.cost) == (2, None, 0)


def test_the_least_agreement_comes_first() -> None:
    def compared(name: str, other: ProductLabels | None) -> ComparedImage:
        return ComparedImage(name, "", "", Answer(label()), Answer(other), None)

    same, different, refused = (
        compared("a", label()),
        compared("b", label(text="other")),
        compared("c", None),
    )
    assert [each.sha256 for each in worst_first([same, different, refused])] == ["c", "b", "a"]


@settings(max_examples=40)
@given(images)
def test_an_evaluation_is_json_with_everything_in_it(compared: list[ComparedImage]) -> None:
    evaluation = Evaluation(
        made_at=dt.datetime(2026, 3, 2, tzinfo=dt.UTC),
        a=Contender("ollama", "qwen:7b", "digest", "1"),
        b=Contender("embedded", "embedded-ocr", "other", "1"),
        first_day=dt.date(2026, 3, 1),
        last_day=dt.date(2026, 3, 2),
        seed=3,
        unreadable_images=0,
        images=compared,
        comparison=compare_answers(compared, Prices(), Prices()),
    )
    written = json.loads(json.dumps(evaluation.as_json()))
    assert (written["a"]["name"], written["b"]["name"]) == ("ollama:qwen:7b@1", "embedded@1")
    assert [each["field"] for each in written["fields"]] == list(LABEL_FIELDS)
    assert len(written["compared"]) == len(compared)
    assert not evaluation.is_of_one_side
