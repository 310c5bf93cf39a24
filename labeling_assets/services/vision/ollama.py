"""Vision models served by one or more Ollama endpoints, through the official client.

Requests are native `/api/chat` calls: the OpenAI form of Ollama has no way to set the context size. Options that decide
how the model is loaded are the same in every request, since Ollama reloads the model when they change.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from labeling_assets.errors import ConfigurationError
from labeling_assets.services.vision import VisionReply
from labeling_assets.services.vision.endpoints import (
    CHECK_TIMEOUT_SECONDS,
    EndpointPool,
    TransientError,
    client_options,
    status_error,
    transport_errors,
    unreachable,
)

if TYPE_CHECKING:
    import ollama

OUTPUT_TOKENS = 1024
"""`num_predict`, which Ollama leaves unlimited; a full label takes 200 to 500 tokens."""

KEEP_ALIVE = "30m"
SEED = 0
CHARS_PER_TOKEN = 3
"""Low for English and JSON (nearer 4), so that the estimate is on the safe side."""

RESERVED_TOKENS = 256
"""For the chat template and the sentence that a second request adds, which must not change the context size."""

MIN_CONTEXT_TOKENS = 4096
IMAGE_EDGE_PX = 512
"""Longest edge of the images that the image store gives to models."""


def image_tokens(width_px: int, height_px: int) -> int:
    """Tokens that Qwen2.5-VL makes of an image: one for 28 x 28 px, start and end, at least 1,024 since Ollama 0.30.

    Source: ollama llm/llama_server.go (`--image-min-tokens 1024`), transformers `Qwen2VLImageProcessor`.
    """
    return max(1024, round(width_px / 28) * round(height_px / 28)) + 2


def context_tokens(prompt: str) -> int:
    """The smallest multiple of 1,024, at least 4,096, in which prompt, image and answer fit."""
    prompt_tokens = math.ceil(len(prompt) / CHARS_PER_TOKEN) + RESERVED_TOKENS
    needed = prompt_tokens + image_tokens(IMAGE_EDGE_PX, IMAGE_EDGE_PX) + OUTPUT_TOKENS
    return max(MIN_CONTEXT_TOKENS, math.ceil(needed / 1024) * 1024)


class OllamaVisionModel:
    """A vision model on one or more Ollama servers; see `VisionModel` for what its methods promise.

    Args:
        hosts: Addresses of the servers, `http://host:11434`.
        model: Name of the model; without a tag, `latest` is meant.
        slots_per_host: `OLLAMA_NUM_PARALLEL` of each server.
        timeout_seconds: Deadline of one request.
        context_tokens: Context size asked for; 0: the smallest in which everything fits.
        first_wait_seconds: Wait before a failed request is repeated; it doubles with each attempt.

    Raises:
        ConfigurationError: An address cannot be read.
    """

    def __init__(
        self,
        hosts: Sequence[str],
        model: str,
        slots_per_host: int,
        timeout_seconds: float,
        context_tokens: int = 0,
        first_wait_seconds: float = 0.5,
    ) -> None:
        self._model = model if ":" in model.rpartition("/")[2] else f"{model}:latest"
        self._pool = EndpointPool(hosts, slots_per_host, first_wait_seconds)
        self._context_setting = context_tokens
        self._context_tokens = 0
        self._digest = ""
        self._open = ExitStack()
        self._clients = {
            host: self._open.enter_context(_client(host, slots_per_host, timeout_seconds)) for host in self._pool.urls
        }

    @property
    def name(self) -> str:
        """Name of the model, with its tag."""
        return self._model

    @property
    def digest(self) -> str:
        """Digest that Ollama lists for the model. The first access makes the check of `check`.

        Raises:
            ConfigurationError: See `check`.
        """
        if not self._digest:
            self.check()
        return self._digest

    @property
    def slots(self) -> int:
        """Slots of all servers together."""
        return self._pool.slots

    def check(self) -> None:
        """Make sure that every server is up and has the same model, and that it reads images.

        Raises:
            ConfigurationError: It is not so; the remedy is the command that mends it.
        """
        digests = {host: self._check_host(host) for host in self._pool.urls}
        if len(set(digests.values())) > 1:
            listed = ", ".join(f"{host}: {digest[:12]}" for host, digest in digests.items())
            raise ConfigurationError(
                f"The servers hold different versions of {self._model!r} ({listed}).",
                f"Run `ollama pull {self._model}` on each.",
            )
        self._digest = next(iter(digests.values()))

    def _check_host(self, host: str) -> str:
        """The digest of the model on one server."""
        with _client(host, 1, CHECK_TIMEOUT_SECONDS) as client, _check_errors(host):
            listed = {model.model: model.digest for model in client.list().models}
            digest: str = listed.get(self._model) or ""
            if not digest:
                raise ConfigurationError(f"Ollama at {host} has no model {self._model!r}.", self._pull_command(host))
            capabilities = client.show(self._model).capabilities or []
        if "vision" not in capabilities:
            has = ", ".join(capabilities) or "none told; Ollama before 0.6.4 tells none"
            raise ConfigurationError(
                f"{self._model!r} on {host} does not read images (capabilities: {has}).",
                "Set LABELING_VISION_MODEL to a vision model such as qwen2.5vl:latest.",
            )
        return digest

    def _pull_command(self, host: str) -> str:
        return f"Run `OLLAMA_HOST={host} ollama pull {self._model}`."

    def ask(self, image_jpeg: bytes, prompt: str, schema: Mapping[str, Any]) -> VisionReply:
        """Ask `prompt` about one image at temperature 0; the schema goes to the server's grammar.

        Args:
            image_jpeg: A JPEG of at most 512 x 512 px.
            prompt: The prompt; it should contain the schema, which the grammar does not show to the model.
            schema: JSON schema of the reply.

        Raises:
            ContextOverflowError: Image and prompt do not fit.
            ModelRunnerError: The model server broke on this image, twice.
            ModelTimeoutError: No reply within the deadline, twice.
            ServiceUnavailableError: No server answers, or all stay busy.
            ConfigurationError: The model is gone, or the context size that was set is too small.
        """
        options = {
            "temperature": 0,
            "seed": SEED,
            "num_predict": OUTPUT_TOKENS,
            "num_ctx": self._context_for(prompt),
        }
        messages = [{"role": "user", "content": prompt, "images": [image_jpeg]}]

        def request(host: str) -> VisionReply:
            started = time.perf_counter()
            with self._ask_errors(host):
                response = self._clients[host].chat(
                    self._model,
                    messages,
                    stream=False,
                    format=dict(schema),
                    options=options,
                    keep_alive=KEEP_ALIVE,
                )
            return VisionReply(
                text=response.message.content or "",
                is_cut_off=response.done_reason == "length",
                prompt_tokens=response.prompt_eval_count or 0,
                output_tokens=response.eval_count or 0,
                seconds=time.perf_counter() - started,
            )

        return self._pool.call(request)

    def _context_for(self, prompt: str) -> int:
        """The context size of every request: it may grow with a longer prompt, and never goes back."""
        needed = context_tokens(prompt)
        if self._context_setting and self._context_setting < needed:
            raise ConfigurationError(
                f"LABELING_VISION_CONTEXT_TOKENS is {self._context_setting}; prompt, image and answer need {needed}.",
                "Raise it, or leave it unset.",
            )
        self._context_tokens = max(self._context_tokens, self._context_setting or needed)
        return self._context_tokens

    @contextmanager
    def _ask_errors(self, host: str) -> Iterator[None]:
        import ollama

        with transport_errors(host):
            try:
                yield
            except ollama.ResponseError as error:
                # The client's error holds the whole body, which may repeat the request: it is not chained.
                raise status_error(
                    error.status_code,
                    str(error.error),
                    url=host,
                    model=self._model,
                    missing_remedy=self._pull_command(host),
                ) from None
            except (ValueError, TypeError, AttributeError) as error:
                # The client parses each answer without looking at it; a proxy's page breaks it in these ways.
                raise unreachable(host, "its answer is not Ollama's") from error

    def close(self) -> None:
        """Close all connections."""
        self._open.close()


def _client(host: str, slots: int, timeout_seconds: float) -> ollama.Client:
    import ollama

    try:
        return ollama.Client(host, **client_options(host, slots, timeout_seconds))
    except ValueError:
        raise ConfigurationError(
            f"{host!r} is no address of an Ollama server.", "LABELING_OLLAMA_HOSTS takes http://host:11434."
        ) from None


@contextmanager
def _check_errors(host: str) -> Iterator[None]:
    import ollama

    try:
        with transport_errors(host):
            yield
    except (TransientError, ollama.ResponseError, ValueError, TypeError, AttributeError) as error:
        reason = f"status {error.status_code}" if isinstance(error, ollama.ResponseError) else ""
        raise ConfigurationError(
            f"No Ollama server answers at {host}{f' ({reason})' if reason else ''}.",
            "Start it with `ollama serve`, or set LABELING_OLLAMA_HOSTS.",
        ) from error
