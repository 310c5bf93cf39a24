"""The arithmetic of a plan."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from labeling_assets.products.cost import Prices
from labeling_assets.products.label_versions import LabelVersion
from labeling_assets.products.plan import DayImages, LabelUse, Spread, estimate, total_of

PRICES = Prices(prompt_tokens=2.0, output_tokens=10.0, gpu_hour=3.6)
USE = LabelUse(
    images=50,
    source="this model and prompt",
    calls=1.1,
    prompt_tokens=Spread(1_000, 2_000, 3_000),
    output_tokens=Spread(100, 200, 300),
    seconds=Spread(1, 2, 3),
)
NUMBERS = st.floats(0, 1e9)


def test_an_estimate_counts_calls_tokens_hours_and_cost() -> None:
    made = estimate(3_600, USE, slots=4, prices=PRICES)
    assert round(made.calls) == 3_960
    assert made.prompt_tokens == Spread(3_600_000, 7_200_000, 10_800_000)
    assert made.output_tokens == Spread(360_000, 720_000, 1_080_000)
    assert made.hours == Spread(0.25, 0.5, 0.75)
    assert made.cost is not None
    assert round(made.cost.mean, 6) == round(7.2 * 2 + 0.72 * 10 + 7_200 * 0.001, 6)
    assert made.cost.low < made.cost.mean < made.cost.high


def test_where_nothing_was_seen_each_image_is_one_call_and_no_more_is_said() -> None:
    made = estimate(7, None, slots=4, prices=PRICES)
    assert (made.calls, made.prompt_tokens, made.hours, made.cost) == (7, None, None, None)


def test_slots_that_are_not_known_are_one() -> None:
    assert estimate(3_600, USE, slots=0, prices=PRICES).hours == Spread(1, 2, 3)


@given(NUMBERS, NUMBERS, NUMBERS)
def test_a_mean_always_lies_within_its_spread(low: float, mean: float, high: float) -> None:
    spread = Spread.of(low, mean, high)
    assert spread.low <= spread.mean <= spread.high


@given(st.lists(st.builds(DayImages, *[st.integers(0, 10**9)] * 8)))
def test_a_total_is_the_sum_of_its_days(days: list[DayImages]) -> None:
    total = total_of(days)
    for name, value in vars(total).items():
        assert value == sum(getattr(day, name) for day in days)


def test_a_label_is_stale_when_model_prompt_or_schema_differ() -> None:
    current = LabelVersion("qwen", "d1", "2", "1")
    assert current.has_made(LabelVersion("another name of it", "d1", "2", "1"))
    for other in (("qwen", "d2", "2", "1"), ("qwen", "d1", "1", "1"), ("qwen", "d1", "2", "2")):
        assert not current.has_made(LabelVersion(*other))


def test_without_a_digest_models_are_compared_by_name() -> None:
    current = LabelVersion("qwen", "", "2", "1")
    assert current.has_made(LabelVersion("qwen", "d1", "2", "1"))
    assert not current.has_made(LabelVersion("llava", "d1", "2", "1"))
