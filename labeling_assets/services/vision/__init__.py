"""Vision models: what one must offer (`VisionModel`), and a file for each backend.

A backend turns one image and one prompt into one reply. It retries what is transient in its own transport and raises
errors of `labeling_assets.errors`; it neither parses replies nor knows of days, ledgers or other rows (`labeler.py`
does).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class VisionReply:
    """One reply of a vision model.

    Attributes:
        text: What the model wrote, unparsed.
        is_cut_off: Whether the token limit ended the reply (`done_reason: length`).
        prompt_tokens: Tokens read, the image's included; 0 where the server does not tell.
        output_tokens: Tokens written; 0 where the server does not tell.
        seconds: Time from request to reply.
        failed_attempts: Requests before it that stayed without an answer, and on which a server may have worked.
    """

    text: str
    is_cut_off: bool
    prompt_tokens: int
    output_tokens: int
    seconds: float
    failed_attempts: int = 0

    @property
    def has_usage(self) -> bool:
        """Whether the server tells how many tokens it read and wrote."""
        return self.prompt_tokens > 0 and (self.output_tokens > 0 or not self.text)


class VisionModel(Protocol):
    """A model that answers a prompt about an image. Thread-safe: `ask` runs in up to `slots` threads at once."""

    @property
    def name(self) -> str:
        """Name for people, such as `qwen2.5vl:latest`."""

    @property
    def digest(self) -> str:
        """Digest of the weights, or of what else decides the reply; labels are reused only under the same digest."""

    @property
    def slots(self) -> int:
        """Requests that all endpoints together serve at once, at most; as many threads may ask."""

    def check(self) -> None:
        """Make sure that the model can be asked.

        Raises:
            ConfigurationError: Server unreachable, model missing or without vision; the remedy is the command that
                mends it.
        """

    def ask(self, image_jpeg: bytes, prompt: str, schema: Mapping[str, Any]) -> VisionReply:
        """Ask `prompt` about one image; the reply should follow the JSON schema.

        Raises:
            LabelError: This image cannot be answered (`ContextOverflowError`, `ModelRunnerError`, `ModelTimeoutError`).
            ServiceUnavailableError: The server does not answer, also after retries.
            ConfigurationError: The model is gone.
        """

    def close(self) -> None:
        """Release connections."""
