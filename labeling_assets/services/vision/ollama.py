"""Vision models served by one or more Ollama endpoints, through the official client.

Requests are native `/api/chat` calls: the OpenAI form of Ollama has no way to set the context size. Options that decide
how the model is loaded are the same in every request, since Ollama reloads the model when they change.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import httpx

from labeling_assets.errors import ConfigurationError
from labeling_assets.services.vision import VisionReply
from labeling_assets.services.vision.endpoints import (
    CHECK_TIMEOUT_SECONDS,
    FIRST_WAIT_SECONDS,
    PROBE_TIMEOUT_SECONDS,
    EndpointPool,
)
from labeling_assets.services.vision.pacing import Pacing
from labeling_assets.services.vision.request_deadline import client_options
from labeling_assets.services.vision.server_errors import (
    TransientError,
    status_error,
    transport_errors,
    unreachable,
)
from labeling_assets.services.vision.tokens import (
    IMAGE_EDGE_PX,
    OUTPUT_TOKENS,
    image_tokens,
    prompt_tokens,
    request_tokens,
)

if TYPE_CHECKING:
    import ollama

KEEP_ALIVE = "30m"
SEED = 0

RESERVED_TOKENS = 256
"""For the chat template and the sentence that a second request adds, which must not change the context size."""

MIN_CONTEXT_TOKENS = 4096


def context_tokens(prompt: str) -> int:
    """The smallest multiple of 1,024, at least 4,096, in which prompt, image and answer fit, and a second prompt too.

    That is the same prompt with what was wrong with the first reply.
    """
    return max(MIN_CONTEXT_TOKENS, math.ceil((_needed_tokens(prompt) + RESERVED_TOKENS) / 1024) * 1024)


def _needed_tokens(prompt: str) -> int:
    return prompt_tokens(prompt) + image_tokens(IMAGE_EDGE_PX, IMAGE_EDGE_PX) + OUTPUT_TOKENS


class OllamaVisionModel:
    """A vision model on one or more Ollama servers; see `VisionModel` for what its methods promise.

    Args:
        hosts: Addresses of the servers, `http://host:11434`.
        model: Name of the model; without a tag, `latest` is meant.
        slots_per_host: `OLLAMA_NUM_PARALLEL` of each server; 0: found while it is asked.
        timeout_seconds: Deadline of one request.
        context_tokens: Context size asked for; 0: the smallest in which everything fits.
        first_wait_seconds: Longest wait before a failed request is repeated; it doubles with each attempt.
        pacing: Rate limit of all servers together; default: none.

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
        first_wait_seconds: float = FIRST_WAIT_SECONDS,
        pacing: Pacing | None = None,
    ) -> None:
        self._model = model if ":" in model.rpartition("/")[2] else f"{model}:latest"
        self._pool = EndpointPool(hosts, slots_per_host, self._probe, pacing or Pacing(), first_wait_seconds)
        self._context_setting = context_tokens
        self._context_tokens = 0
        self._sizing = threading.Lock()
        self._digest = ""
        self._open = ExitStack()
        self._clients = {
            host: self._open.enter_context(_client(host, self._pool.slots, timeout_seconds)) for host in self._pool.urls
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
        """Slots of all servers together; where they are to be found, the most that are tried."""
        return self._pool.slots

    def check(self) -> None:
        """Make sure that the servers have the same model, and that it reads images; one may be down, but not all.

        Raises:
            ConfigurationError: It is not so; the remedy is the command that mends it.
        """
        digests = self._pool.check_each(self._check_host)
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
            digest = self._listed_digest(client)
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

    def _listed_digest(self, client: ollama.Client) -> str:
        """The digest of the model as a server lists it; empty where it does not."""
        return {model.model: model.digest for model in client.list().models}.get(self._model) or ""

    def _probe(self, host: str) -> None:
        """Make sure that a server that failed is up again and still has the same model; loads nothing.

        Raises:
            TransientError: It is not so.
        """
        with _client(host, 1, PROBE_TIMEOUT_SECONDS) as client:
            try:
                with _check_errors(host):
                    digest = self._listed_digest(client)
            except ConfigurationError as error:
                raise unreachable(host, "no probe either") from error
        if not digest or self._digest not in ("", digest):
            raise unreachable(host, f"it does not hold {self._model!r} in the version that the run began with")

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

        return self._pool.call(request, request_tokens(prompt))

    def _context_for(self, prompt: str) -> int:
        """The context size of every request, sized at the first; only a prompt that does not fit makes it grow."""
        with self._sizing:
            if self._context_tokens < _needed_tokens(prompt):
                needed = context_tokens(prompt)
                if 0 < self._context_setting < needed:
                    raise ConfigurationError(
                        f"LABELING_VISION_CONTEXT_TOKENS is {self._context_setting}; "
                        f"prompt, image and answer need {needed}.",
                        "Raise it, or leave it unset.",
                    )
                self._context_tokens = self._context_setting or needed
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
                    key=os.environ.get("OLLAMA_API_KEY", ""),  # the client sends it by itself
                    retry_after=_retry_after(error),
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


def _retry_after(error: ollama.ResponseError) -> str | None:
    """The header of this name; the client's error does not have it, but the one that it was made of."""
    answer = error.__context__
    return answer.response.headers.get("Retry-After") if isinstance(answer, httpx.HTTPStatusError) else None


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
