"""What labels cost: tokens at the prices of a hosted model, seconds at the price of one's own GPU."""

from __future__ import annotations

from dataclasses import dataclass

TOKENS_OF_A_PRICE = 1_000_000
SECONDS_AN_HOUR = 3600


@dataclass(frozen=True)
class Prices:
    """Prices of a vision model, in any one currency; what costs nothing is 0.

    Attributes:
        prompt_tokens: Of a million tokens read.
        output_tokens: Of a million tokens written.
        gpu_hour: Of an hour of one request: its slot's share of the GPU that serves the model.
    """

    prompt_tokens: float = 0.0
    output_tokens: float = 0.0
    gpu_hour: float = 0.0

    def cost(self, prompt_tokens: float, output_tokens: float, seconds: float) -> float:
        """The cost of so many tokens, and of so many GPU-seconds."""
        tokens = prompt_tokens * self.prompt_tokens + output_tokens * self.output_tokens
        return tokens / TOKENS_OF_A_PRICE + seconds * self.gpu_hour / SECONDS_AN_HOUR


NO_PRICES = Prices()
