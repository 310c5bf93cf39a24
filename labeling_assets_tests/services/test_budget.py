"""A budget is never overspent, whatever calls cost and however many are at work; and what was paid for is kept."""

from __future__ import annotations

import hashlib
import itertools
import queue
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

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
    ModelTimeoutError,
    ServiceUnavailableError,
)
from labeling_assets.products.cost import SECONDS_AN_HOUR, Prices
from labeling_assets.products.labels import Label
from labeling_assets.services.ledger import LabelLedger
from labeling_assets.services.ledger_use import LedgerUse
from labeling_assets.services.vision.budget import (
    CALLS_PER_IMAGE,
    Budget,
    StoppedError,
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


def test_a_thread_that_waited_makes_no_call_when_the_labeler_stops() -> None:
    budget = Budget(CALLS_PER_IMAGE * WORST, A_SECOND, WORST)
    is_begun, is_stopping = threading.Event(), threading.Event()

    def second() -> None:
        is_begun.set()
        with budget.image(Used(), is_stopping.is_set):
            pytest.fail("a call was made")

    with ThreadPoolExecutor(1) as pool:
        with budget.image(Used()):
            waiting = pool.submit(second)
            is_begun.wait()
            is_stopping.set()
        error = waiting.exception()
    assert error is None or isinstance(error, StoppedError)


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
