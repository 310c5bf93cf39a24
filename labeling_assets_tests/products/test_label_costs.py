"""What labels cost: so many tokens and seconds, a row, a day, and the days of a run."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from labeling_assets.defs.products import reports
from labeling_assets.errors import InvalidReplyError
from labeling_assets.products.assembly import labeled_products
from labeling_assets.products.cost import NO_PRICES, Prices
from labeling_assets.products.labels import Label, ProductLabels
from labeling_assets.products.records import LABEL_FIELDS, ImagedProduct, LabeledProduct, to_table
from labeling_assets.resources import default_resources
from labeling_assets.run_statistics import statistics_of
from labeling_assets.runs import DayResult
from labeling_assets.services.connect import close_services
from labeling_assets.services.vision.labeler import LabelCounts
from labeling_assets.settings import Settings
from labeling_assets_tests.services.milvus_samples import product

PRICES = Prices(prompt_tokens=2.0, output_tokens=8.0, gpu_hour=36.0)
AMOUNTS = st.integers(0, 10**9)


class Model:
    """What the report tells of a model."""

    name, digest, slots = "qwen2.5vl:latest", "d1", 1


def label(*, prompt_tokens: int = 1500, output_tokens: int = 500, seconds: float = 2.0) -> Label:
    values = product().model_dump()
    labels = ProductLabels.model_validate({name: values[name] for name in LABEL_FIELDS})
    return Label(labels, "qwen", "d1", "1", "1", "direct", prompt_tokens, output_tokens, seconds, 1, True)


def imaged(id_sanpham: str, image: str) -> ImagedProduct:
    return ImagedProduct.model_validate(product(id_sanpham, image_sha256=image).model_dump())


def report(records: list[LabeledProduct], rows_in: int, counts: LabelCounts, prices: Prices) -> dict[str, Any]:
    model: Any = Model()
    return reports.labels(records, to_table(records, LabeledProduct), rows_in, model, counts, lambda _: b"", prices)


@given(prompt=AMOUNTS, output=AMOUNTS, seconds=st.floats(0, 1e6))
def test_costs_add_up_and_nothing_costs_nothing(prompt: int, output: int, seconds: float) -> None:
    parts = [PRICES.cost(prompt, 0, 0), PRICES.cost(0, output, 0), PRICES.cost(0, 0, seconds)]
    assert PRICES.cost(prompt, output, seconds) == pytest.approx(sum(parts))
    assert NO_PRICES.cost(prompt, output, seconds) == 0


def test_a_row_has_the_cost_of_its_label_whenever_it_was_paid() -> None:
    products = [imaged("A", "1"), imaged("B", "1"), imaged("C", "2"), imaged("D", "3")]
    outcomes = {"1": label(), "2": label(prompt_tokens=0, output_tokens=0), "3": InvalidReplyError("no JSON")}
    rows, failures = labeled_products(products, outcomes, "en", PRICES)
    assert [row.label_cost for row in rows] == pytest.approx([0.003 + 0.004 + 0.02] * 2 + [0.02])
    assert list(failures) == ["D"]
    unpriced, _ = labeled_products(products, outcomes, "en")
    assert [row.label_cost for row in unpriced] == [0.0] * 3


def test_a_day_tells_what_its_calls_cost_and_what_was_saved() -> None:
    products = [imaged(f"P{number}", str(number % 2)) for number in range(10)]
    rows, _ = labeled_products(products, {"0": label(), "1": label(prompt_tokens=0, output_tokens=0)}, "en", PRICES)
    counts = LabelCounts(model_calls=3, prompt_tokens=3000, output_tokens=1000, model_seconds=5.0)
    told = report(rows, 10, counts, PRICES)
    assert told["cost"] == pytest.approx(0.006 + 0.008 + 0.05)
    assert told["calls_avoided"] == 7
    assert told["cost_saved"] == pytest.approx(7 * (0.027 + 0.02) / 2), "by the mean of the two images"


def test_a_day_without_labels_or_prices_costs_nothing() -> None:
    for told in (report([], 0, LabelCounts(), PRICES), report([], 5, LabelCounts(prompt_tokens=9), NO_PRICES)):
        assert (told["cost"], told["cost_saved"]) == (0.0, 0.0)
        assert {type(told["cost"]), type(told["cost_saved"])} == {float}


def test_the_statistics_of_a_run_add_the_costs_of_its_days(postgres_url: str) -> None:
    costs: list[dict[str, Any]] = [{"qwen_labels": {"cost": 0.5}}, {}, {"qwen_labels": {"cost": 0.25}}]
    days = [DayResult("2026-03-02", "run", True, 1.0, stages) for stages in costs]
    try:
        assert statistics_of(Settings(postgres_url=SecretStr(postgres_url)), days).label_cost == 0.75
    finally:
        close_services()


def test_the_resource_has_the_prices_and_limits_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {
        "PRICE_PROMPT_TOKENS": "2",
        "PRICE_OUTPUT_TOKENS": "8",
        "PRICE_GPU_HOUR": "36",
        "VISION_REQUESTS_PER_MINUTE": "60",
        "VISION_TOKENS_PER_MINUTE": "90000",
    }
    for name, value in values.items():
        monkeypatch.setenv(f"LABELING_{name}", value)
    settings = Settings.load()
    resource = default_resources(settings)["vision_model"]
    prices = Prices(resource.price_prompt_tokens, resource.price_output_tokens, resource.price_gpu_hour)
    assert prices == settings.prices
    assert (prices.prompt_tokens, prices.output_tokens) == (2, 8)
    assert (resource.requests_per_minute, resource.tokens_per_minute) == (60, 90_000)
