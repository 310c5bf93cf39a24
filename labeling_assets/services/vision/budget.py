"""Budgets: what calls of a vision model may cost, all of a run's together, and never more.

Nobody knows what a call costs before it is answered. So the most that an image may cost is set aside while it is asked
about, and what it did cost is counted afterwards. An image for which not enough is left waits for those under way,
which mostly cost far less than was set aside for them; when none is under way, the budget is spent. Prices are in
`products/cost.py`; who asks is `labeler.py`.
"""

from __future__ import annotations

import contextlib
import logging
import math
import threading
from collections.abc import Iterator
from typing import Protocol

from labeling_assets.errors import BudgetSpentError, ConfigurationError, LabelError, LabelingError
from labeling_assets.products.cost import Prices
from labeling_assets.products.prompt import build_reask_prompt
from labeling_assets.services.pipeline import StoppedError, raise_if_stopped
from labeling_assets.services.vision.ollama import context_tokens
from labeling_assets.services.vision.tokens import OUTPUT_TOKENS

CALLS_PER_IMAGE = 2
"""At most: a reply that cannot be used is asked for once more."""
PRICE_SETTINGS = "LABELING_PRICE_PROMPT_TOKENS, LABELING_PRICE_OUTPUT_TOKENS or LABELING_PRICE_GPU_HOUR"

logger = logging.getLogger(__name__)


class Use(Protocol):
    """What the replies about one image have used so far.

    Attributes:
        failed_attempts: See `VisionReply`.
        untold_calls: Replies without the number of their tokens.
    """

    model_calls: int
    prompt_tokens: int
    output_tokens: int
    seconds: float
    failed_attempts: int
    untold_calls: int


class Budget:
    """What calls may cost. Thread-safe: labelers at work at once may share one.

    Nothing is overspent as long as no call costs more than the worst one; where one does, that is the worst from then
    on. Requests that are repeated because they stay without an answer are counted when they have: those of the images
    under way may go beyond the amount.

    Attributes:
        amount: In the currency of the prices.
        spent: Of it, so far.

    Args:
        amount: As the attribute.
        prices: Of the model.
        worst_call_cost: The most that one call costs. A request without an answer counts with it, since the server may
            have worked, and may bill; and so does a reply that does not tell its tokens, where tokens have a price.
    """

    def __init__(self, amount: float, prices: Prices, worst_call_cost: float) -> None:
        self.amount = amount
        self.spent = 0.0
        self._prices = prices
        self._worst_call_cost = worst_call_cost
        self._set_aside = 0.0
        self._under_way = 0
        self._has_warned = False
        self._changed = threading.Condition()

    @classmethod
    def unlimited(cls) -> Budget:
        """A budget that is never spent."""
        return cls(math.inf, Prices(), 0.0)

    @contextlib.contextmanager
    def image(self, use: Use) -> Iterator[None]:
        """Ask about one image in the block, once what it may cost is left.

        Args:
            use: Filled in the block.

        Raises:
            BudgetSpentError: It is not left, and nobody is at work who might give something back.
            StoppedError: The pipeline of this thread is stopped.
        """
        set_aside = self._take()
        unanswered = 1
        try:
            yield
            unanswered = 0
        except (LabelingError, StoppedError) as error:
            unanswered = max(error.failed_attempts, int(_may_be_unanswered(error)))
            raise
        finally:
            self._settle(set_aside, use, unanswered)

    def _take(self) -> float:
        with self._changed:
            raise_if_stopped()
            while (cost := self._worst_call_cost * CALLS_PER_IMAGE) > self.amount - self.spent - self._set_aside:
                if not self._under_way:
                    raise self.spent_error()
                self._changed.wait()
                raise_if_stopped()
            self._set_aside += cost
            self._under_way += 1
            return cost

    def _settle(self, set_aside: float, use: Use, unanswered: int) -> None:
        with self._changed:
            cost = self._prices.cost(use.prompt_tokens, use.output_tokens, use.seconds)
            untold = self._untold_calls(use)
            self.spent += cost + (unanswered + use.failed_attempts + untold) * self._worst_call_cost
            told = use.model_calls - untold - bool(unanswered)
            self._worst_call_cost = max(self._worst_call_cost, cost / max(told, 1))
            self._under_way -= 1
            # Sums of rounded numbers do not come back to zero by themselves.
            self._set_aside = self._set_aside - set_aside if self._under_way else 0.0
            self._changed.notify_all()

    def _untold_calls(self, use: Use) -> int:
        """Replies whose cost nobody knows, of which the first is logged."""
        if not (use.untold_calls and (self._prices.prompt_tokens or self._prices.output_tokens)):
            return 0
        if not self._has_warned:
            self._has_warned = True
            logger.warning(
                "The model server does not tell the tokens of its replies (usage), so each counts as the most that a "
                "call may cost: %.3g. Use a server that tells them, or LABELING_PRICE_GPU_HOUR as the only price.",
                self._worst_call_cost,
            )
        return use.untold_calls

    def spent_error(self, images_left: int | None = None) -> BudgetSpentError:
        """The error that says how much is spent.

        Args:
            images_left: Images that have no label yet; None where it is not known.
        """
        left = "" if images_left is None else f"; {images_left} images are left"
        return BudgetSpentError(
            f"The budget of {self.amount:.6g} is spent: {self.spent:.6g} so far, and the next image may cost "
            f"{self._worst_call_cost * CALLS_PER_IMAGE:.3g}{left}.",
            "What is labeled is kept and not paid for again: run again with a larger budget.",
        )


def _may_be_unanswered(error: LabelingError | StoppedError) -> bool:
    """Whether the last call had no answer, as far as one can tell from how it ended."""
    if isinstance(error, LabelError):
        return error.can_retry  # the others are judgements on an answer, or an answer themselves
    return not isinstance(error, StoppedError)  # of which the last call was not begun


def require_prices(prices: Prices) -> None:
    """Refuse a budget where nothing has a price.

    Raises:
        ConfigurationError: All prices are zero.
    """
    if prices == Prices():
        raise ConfigurationError(
            "A budget is given, and every price of the vision model is 0.", f"Set {PRICE_SETTINGS}."
        )


def worst_call_cost(prices: Prices, timeout_seconds: float, context_size_tokens: int = 0) -> float:
    """The most that a call may cost: a context full of prompt and image, the longest answer, up to the deadline.

    Args:
        prices: Of the model.
        timeout_seconds: Deadline of one request.
        context_size_tokens: LABELING_VISION_CONTEXT_TOKENS; 0: what the prompt needs. The tokens that an image takes
            are those of Qwen2.5-VL; a budget learns of a model that takes more from its first reply.
    """
    size = max(context_size_tokens, context_tokens(build_reask_prompt("")))
    return prices.cost(size - OUTPUT_TOKENS, OUTPUT_TOKENS, timeout_seconds)


def shared_budget(
    spender: str, amount: float, prices: Prices, timeout_seconds: float, context_size_tokens: int
) -> Budget:
    """The one budget of this process for all that spend under a name: the days of a run, and the tries of each.

    Args:
        spender: The name; a budget that is known by it is returned as it is.
        amount: See `Budget`.
        prices: See `Budget`.
        timeout_seconds: See `worst_call_cost`.
        context_size_tokens: See `worst_call_cost`.

    Raises:
        ConfigurationError: The amount is no amount, or nothing has a price.
    """
    if not (math.isfinite(amount) and amount >= 0):
        raise ConfigurationError(f"A budget of {amount} is no amount.", "Give a number of at least 0.")
    require_prices(prices)
    with _one_at_a_time:
        if spender not in _budgets:
            _budgets[spender] = Budget(amount, prices, worst_call_cost(prices, timeout_seconds, context_size_tokens))
        return _budgets[spender]


_budgets: dict[str, Budget] = {}
_one_at_a_time = threading.Lock()
