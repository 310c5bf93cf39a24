"""A budget is never overspent, whatever calls cost and however many are at work; and what was paid for is kept."""

from __future__ import annotations

import hashlib
import itertools
import queue
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from labeling_assets.errors import (
    BudgetSpentError,
    ConfigurationError,
    ContextOverflowError,
    InvalidReplyError,
    LabelingError,
    ModelRunnerError,
    ModelTimeoutError,
    ServiceUnavailableError,
)
from labeling_assets.products.cost import SECONDS_AN_HOUR, Prices
from labeling_assets.products.labels import Label
from labeling_assets.services.ledger import LabelLedger
from labeling_assets.services.ledger_use import LedgerUse
from labeling_assets.services.pipeline import Pipeline, Ready
from labeling_assets.services.vision import VisionReply
from labeling_assets.services.vision.budget import (
    CALLS_PER_IMAGE,
    Budget,
    require_prices,
    shared_budget,
    worst_call_cost,
)
from labeling_assets.services.vision.labeler import Labeler
from labeling_assets.services.vision.ollama import OllamaVisionModel
from labeling_assets_tests.services.faulty_image_host import jpeg
from labeling_assets_tests.standins.ollama import OllamaServer
from labeling_assets_tests.standins.replies import Fault

A_SECOND = Prices(gpu_hour=SECONDS_AN_HOUR)
"""A second costs 1."""
WORST = 10.0
CALLS = st.lists(st.floats(0, WORST), min_size=1, max_size=CALLS_PER_IMAGE)


@dataclass
class Used:
    model_calls: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0
    seconds: float = 0.0
    failed_attempts: int = 0
    untold_calls: int = 0

    def call(self, seconds: float) -> None:
        self.model_calls += 1
        self.seconds += seconds


def spend(budget: Budget, *calls: float, error: LabelingError | None = None) -> None:
    used = Used()
    with budget.image(used):
        for seconds in calls:
            used.call(seconds)
        if error:
            used.model_calls += 1
            raise error


@given(
    images=st.lists(CALLS, max_size=40),
    amount=st.floats(0, 300),
    failing=st.sets(st.integers(0, 39)),
    workers=st.integers(1, 6),
)
def test_a_budget_is_never_overspent(images: list[list[float]], amount: float, failing: set[int], workers: int) -> None:
    budget = Budget(amount, A_SECOND, WORST)
    todo: queue.SimpleQueue[tuple[int, list[float]]] = queue.SimpleQueue()
    for item in enumerate(images):
        todo.put(item)
    refused, done, lock = list[int](), list[int](), threading.Lock()

    def work(_: int) -> None:
        while not todo.empty() and not refused:
            try:
                number, calls = todo.get_nowait()
            except queue.Empty:
                return
            error = ModelTimeoutError("no reply") if number in failing else None
            try:
                spend(budget, *calls[: CALLS_PER_IMAGE - (error is not None)], error=error)
            except BudgetSpentError:
                refused.append(number)
            except ModelTimeoutError:
                pass
            else:
                with lock:
                    done.append(number)

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(work, range(workers)))
    rounding = 1e-9 * max(amount, 1)
    assert budget.spent <= amount + rounding
    if refused:
        assert budget.spent > amount - CALLS_PER_IMAGE * WORST - rounding, "money for another image was left"
    else:
        assert len(done) == len([number for number in range(len(images)) if number not in failing])


def test_a_thread_without_money_waits_for_what_others_give_back() -> None:
    budget = Budget(2 * CALLS_PER_IMAGE * WORST - 1, A_SECOND, WORST)
    is_begun, may_end = threading.Event(), threading.Event()

    def first() -> None:
        used = Used()
        with budget.image(used):
            is_begun.set()
            may_end.wait()
            used.call(1.0)

    with ThreadPoolExecutor(2) as pool:
        at_work = pool.submit(first)
        is_begun.wait()
        waiting = pool.submit(spend, budget, 2.0)
        may_end.set()
        at_work.result()
        waiting.result()
    assert budget.spent == 3.0


def test_a_thread_that_waited_makes_no_call_when_its_pipeline_was_stopped() -> None:
    budget = Budget(CALLS_PER_IMAGE * WORST, A_SECOND, WORST)
    is_begun, calls = threading.Event(), list[str]()

    def work(items: Sequence[tuple[str, str]]) -> list[str]:
        is_begun.set()
        with budget.image(Used()):
            calls.append(items[0][0])
        return ["done"]

    pipeline: Pipeline[str, str] = Pipeline(1, Ready, work)
    with budget.image(Used()):
        pipeline.submit(["image"])
        assert is_begun.wait(30)
        pipeline.stop(timeout_seconds=0)
    pipeline.stop()
    assert not calls
    assert budget.spent == 0, "what was not begun costs nothing"


@pytest.mark.parametrize(
    ("error", "spent"),
    [
        (ModelTimeoutError("no reply"), 1 + WORST),
        (ServiceUnavailableError("gone"), 1 + WORST),
        (InvalidReplyError("no JSON"), 1),
        (ContextOverflowError("too long"), 1),
    ],
)
def test_a_call_without_an_answer_counts_with_its_worst_case(error: LabelingError, spent: float) -> None:
    budget = Budget(100, A_SECOND, WORST)
    with pytest.raises(type(error)):
        spend(budget, 1.0, error=error)
    assert budget.spent == spent


def test_every_attempt_without_an_answer_counts_with_its_worst_case() -> None:
    budget = Budget(1000, A_SECOND, WORST)
    with budget.image(used := Used()):
        used.call(1.0)
        used.failed_attempts = 2
    assert budget.spent == 1 + 2 * WORST
    error = ModelRunnerError("broke")
    error.failed_attempts = 2
    with pytest.raises(ModelRunnerError):
        spend(budget, error=error)
    assert budget.spent == 1 + 4 * WORST
    spend(budget, 3.0)
    assert budget.spent == 4 + 4 * WORST, "the worst call stays what it was"


@pytest.mark.parametrize(
    ("prices", "spent"),
    [(Prices(prompt_tokens=1.0), 3 * WORST), (Prices(output_tokens=1.0), 3 * WORST), (A_SECOND, 6.0)],
)
def test_a_reply_that_does_not_tell_its_tokens_counts_with_its_worst_case_where_they_have_a_price(
    prices: Prices, spent: float, caplog: pytest.LogCaptureFixture
) -> None:
    budget = Budget(1000, prices, WORST)
    for _ in range(3):
        with budget.image(used := Used()):
            used.call(2.0)
            used.untold_calls = 1
    assert budget.spent == spent
    told = [record for record in caplog.records if "does not tell the tokens" in record.message]
    assert len(told) == (prices != A_SECOND), "it is told once"


def test_a_call_that_costs_more_than_the_worst_is_the_worst_from_then_on() -> None:
    budget = Budget(100, A_SECOND, WORST)
    spend(budget, 45.0)
    with pytest.raises(BudgetSpentError):
        spend(budget, 1.0)
    assert budget.spent == 45.0


def test_the_error_tells_what_is_spent_and_what_to_do() -> None:
    budget = Budget(25, A_SECOND, WORST)
    spend(budget, 6.0)
    with pytest.raises(BudgetSpentError) as caught:
        spend(budget, 1.0)
    assert not caught.value.can_retry
    for text in ("budget of 25", "6 so far", "may cost 20", "larger budget"):
        assert text in str(caught.value)
    assert "7 images are left" in str(budget.spent_error(7))


def test_a_budget_without_prices_names_the_settings() -> None:
    with pytest.raises(ConfigurationError, match="LABELING_PRICE_GPU_HOUR"):
        require_prices(Prices())
    with pytest.raises(ConfigurationError, match="LABELING_PRICE_PROMPT_TOKENS"):
        shared_budget("nothing has a price", 1.0, Prices(), 300, 0)


@pytest.mark.parametrize("amount", [-1.0, float("nan"), float("inf")])
def test_an_amount_that_is_none_is_refused(amount: float) -> None:
    with pytest.raises(ConfigurationError, match="no amount"):
        shared_budget("odd", amount, A_SECOND, 300, 0)


def test_all_that_spend_under_a_name_share_one_budget() -> None:
    budget = shared_budget("run 1", 100, A_SECOND, 5, 0)
    assert shared_budget("run 1", 100, A_SECOND, 5, 0) is budget
    assert shared_budget("run 2", 100, A_SECOND, 5, 0) is not budget


def test_the_worst_call_fills_the_context_and_takes_as_long_as_it_may() -> None:
    assert worst_call_cost(A_SECOND, 300) == 300
    tokens = Prices(prompt_tokens=1e6, output_tokens=1e6)
    assert worst_call_cost(tokens, 300, 32_768) == 32_768
    assert 4_096 <= worst_call_cost(tokens, 300) < 32_768


# The labeler within a budget

A_TOKEN = Prices(prompt_tokens=1e6)
"""A token read costs 1."""
MODEL = "qwen2.5vl:latest"
PICTURES = {hashlib.sha256(data).hexdigest(): data for data in (jpeg("navy", (64 + n, 64)) for n in range(12))}
IMAGE_WORST = CALLS_PER_IMAGE * worst_call_cost(A_TOKEN, 20)


@pytest.fixture
def server() -> Iterator[OllamaServer]:
    with OllamaServer(slots=4) as server:
        yield server


@pytest.fixture
def model(server: OllamaServer) -> Iterator[OllamaVisionModel]:
    model = OllamaVisionModel([server.url], MODEL, 4, 20.0, first_wait_seconds=0.001)
    yield model
    model.close()


def call_cost(model: OllamaVisionModel, ledger: LabelLedger) -> int:
    """What labeling one picture costs, which is the same for all."""
    sha, data = next(iter(PICTURES.items()))
    ((_, label),) = Labeler(model, ledger).label_all([sha], lambda _: data)
    assert isinstance(label, Label)
    return label.prompt_tokens


def test_the_labeler_stops_before_it_overspends_and_goes_on_with_another_budget(
    model: OllamaVisionModel, server: OllamaServer, engine: sa.Engine
) -> None:
    ledger = LabelLedger(engine)
    cost = call_cost(model, ledger)
    rest = list(PICTURES)[1:]
    budget = Budget(4 * cost + IMAGE_WORST, A_TOKEN, IMAGE_WORST / CALLS_PER_IMAGE)
    labeler = Labeler(model, ledger, budget=budget)
    with pytest.raises(BudgetSpentError, match="6 images are left"):
        list(labeler.label_all(PICTURES, PICTURES.__getitem__))
    assert budget.spent == 5 * cost
    known = LedgerUse(engine).known(rest, vars(labeler.key))
    assert len(known) == 5
    assert server.model.stats.calls == 6

    again = Labeler(model, ledger, budget=Budget(100 * IMAGE_WORST, A_TOKEN, IMAGE_WORST / CALLS_PER_IMAGE))
    assert len(dict(again.label_all(PICTURES, PICTURES.__getitem__))) == len(PICTURES)
    assert server.model.stats.calls == len(PICTURES)


def test_images_that_were_never_looked_at_count_as_left_too(
    model: OllamaVisionModel, engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("labeling_assets.services.vision.labeler.LOOKUP_BATCH", 2)
    labeler = Labeler(model, LabelLedger(engine), budget=Budget(0, A_TOKEN, 1))
    with pytest.raises(BudgetSpentError, match="12 images are left"):
        list(labeler.label_all(itertools.chain(PICTURES, PICTURES), PICTURES.__getitem__))


def test_what_the_ledger_knows_needs_no_budget(model: OllamaVisionModel, engine: sa.Engine) -> None:
    ledger = LabelLedger(engine)
    list(Labeler(model, ledger).label_all(PICTURES, PICTURES.__getitem__))
    labeler = Labeler(model, ledger, budget=Budget(0, A_TOKEN, 1))
    assert len(list(labeler.label_all(PICTURES, PICTURES.__getitem__))) == len(PICTURES)


def test_both_replies_of_an_image_that_is_asked_again_are_counted(
    model: OllamaVisionModel, server: OllamaServer, engine: sa.Engine
) -> None:
    server.model.faults = [Fault("no_json", first_tries=1)]
    budget = Budget(1e9, A_TOKEN, IMAGE_WORST / CALLS_PER_IMAGE)
    labeler = Labeler(model, LabelLedger(engine), budget=budget)
    list(labeler.label_all(PICTURES, PICTURES.__getitem__))
    assert labeler.counts.model_calls == 2 * len(PICTURES)
    assert budget.spent == labeler.counts.prompt_tokens


@pytest.mark.parametrize(("first_tries", "attempts", "replies"), [(1, 1, 1), (None, 2, 0)])
def test_requests_that_the_server_broke_on_are_counted_whether_or_not_it_answers_in_the_end(
    model: OllamaVisionModel,
    server: OllamaServer,
    engine: sa.Engine,
    first_tries: int | None,
    attempts: int,
    replies: int,
) -> None:
    server.model.faults = [Fault("broken", first_tries=first_tries)]
    budget = Budget(1e9, A_TOKEN, IMAGE_WORST / CALLS_PER_IMAGE)
    labeler = Labeler(model, LabelLedger(engine), budget=budget)
    list(labeler.label_all(PICTURES, PICTURES.__getitem__))
    assert server.model.stats.requests == (attempts + replies) * len(PICTURES)
    assert budget.spent == labeler.counts.prompt_tokens + attempts * len(PICTURES) * IMAGE_WORST / CALLS_PER_IMAGE


class WithoutUsage(OllamaVisionModel):
    """A model whose server does not tell what it read and wrote."""

    def ask(self, image_jpeg: bytes, prompt: str, schema: Mapping[str, Any]) -> VisionReply:
        return replace(super().ask(image_jpeg, prompt, schema), prompt_tokens=0, output_tokens=0)


def test_a_budget_ends_although_the_server_tells_no_tokens(server: OllamaServer, engine: sa.Engine) -> None:
    model = WithoutUsage([server.url], MODEL, 4, 20.0)
    budget = Budget(5 * IMAGE_WORST, A_TOKEN, IMAGE_WORST / CALLS_PER_IMAGE)
    with pytest.raises(BudgetSpentError):
        list(Labeler(model, LabelLedger(engine), budget=budget).label_all(PICTURES, PICTURES.__getitem__))
    assert server.model.stats.calls == 5 * CALLS_PER_IMAGE - 1, "two calls are set aside for an image"
    model.close()
