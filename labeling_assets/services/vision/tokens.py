"""How many tokens a request takes, before it is made: for the context size and for the rate limit."""

from __future__ import annotations

import math

OUTPUT_TOKENS = 1024
"""Limit of a reply (`num_predict`, `max_tokens`), which Ollama leaves unlimited otherwise."""

TYPICAL_OUTPUT_TOKENS = 400
"""A full label takes 200 to 500."""

CHARS_PER_TOKEN = 3
"""Low for English and JSON (nearer 4), so that the estimate is on the safe side."""

IMAGE_EDGE_PX = 512
"""Longest edge of the images that the image store gives to models."""


def prompt_tokens(prompt: str) -> int:
    """Tokens of a prompt without its image, at most."""
    return math.ceil(len(prompt) / CHARS_PER_TOKEN)


def image_tokens(width_px: int, height_px: int) -> int:
    """Tokens that Qwen2.5-VL makes of an image: one for 28 x 28 px, start and end, at least 1,024 since Ollama 0.30.

    Source: ollama llm/llama_server.go (`--image-min-tokens 1024`), transformers `Qwen2VLImageProcessor`.
    """
    return max(1024, round(width_px / 28) * round(height_px / 28)) + 2


def request_tokens(prompt: str) -> int:
    """Tokens that a request with one image takes, read and written, as far as one can tell before."""
    return prompt_tokens(prompt) + image_tokens(IMAGE_EDGE_PX, IMAGE_EDGE_PX) + TYPICAL_OUTPUT_TOKENS
