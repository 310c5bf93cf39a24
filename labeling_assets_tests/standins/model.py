"""The model behind the stand-in: slots, a queue, latency, faults, and what was asked of it. HTTP is in `ollama.py`."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from starlette.types import Receive

from labeling_assets_tests.standins.replies import Fault, FaultKind, write_reply

CHARS_PER_TOKEN = 4
TOKENS_PER_IMAGE = 1026
DEFAULT_CONTEXT_TOKENS = 4096
RUNNER_OPTIONS = ("num_ctx", "num_batch", "num_gpu", "main_gpu", "use_mmap", "num_thread")


class ApiError(Exception):
    """An answer with an HTTP error."""

    def __init__(self, status: int, message: str, retry_after: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.retry_after = retry_after


class BrokenConnectionError(Exception):
    """The connection is to be broken instead of answering."""


@dataclass(frozen=True)
class Job:
    """A request to generate, whichever route it came by."""

    model: str
    prompt: str
    images: tuple[bytes, ...]
    schema: Mapping[str, Any] | None
    options: Mapping[str, Any]

    @property
    def sha(self) -> str:
        """sha256 of the first image, or of the prompt where there is none."""
        return hashlib.sha256(self.images[0] if self.images else self.prompt.encode()).hexdigest()

    @property
    def prompt_tokens(self) -> int:
        """An estimate, as good as any."""
        return len(self.prompt) // CHARS_PER_TOKEN + TOKENS_PER_IMAGE * len(self.images)


@dataclass(frozen=True)
class Reply:
    """What the model wrote."""

    text: str
    done_reason: str
    prompt_tokens: int
    output_tokens: int
    seconds: float


@dataclass
class Stats:
    """What was asked of the server.

    Attributes:
        requests: Requests to generate, those refused at once included.
        calls: Requests that reached the model, faulty answers included.
        busy: Requests refused because the queue was full, or too many came in a minute.
        cancelled: Requests whose client went away.
        max_in_flight: Most requests at work or waiting at once.
        loads: How often the model was loaded: at first, and whenever an option of the runner changed.
        images: Requests that reached the model, by sha256 of the image.
        prompts: The last prompts, newest last.
        options: The last options, newest last.
    """

    requests: int = 0
    calls: int = 0
    busy: int = 0
    cancelled: int = 0
    max_in_flight: int = 0
    loads: int = 0
    images: Counter[str] = field(default_factory=Counter)
    prompts: list[str] = field(default_factory=list)
    options: list[dict[str, Any]] = field(default_factory=list)


class SlottedModel:
    """A model server without its HTTP.

    Args:
        slots: Requests served at once (`OLLAMA_NUM_PARALLEL`).
        latency_seconds: Time of one request in its slot.
        queue_limit: Requests that may wait (`OLLAMA_MAX_QUEUE`).
        faults: What goes wrong; the first one that applies counts.
        models: Capabilities by name; default: a vision model and a text model.
    """

    def __init__(
        self,
        slots: int = 1,
        latency_seconds: float = 0.0,
        queue_limit: int = 512,
        faults: Iterable[Fault] = (),
        models: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self.slots = slots
        self.latency_seconds = latency_seconds
        self.queue_limit = queue_limit
        self.faults = list(faults)
        self.is_echoing = (
            False  # whether errors repeat the image, as servers do that tell what was wrong with the input
        )
        self.models = dict(models or {"qwen2.5vl:latest": ["completion", "vision"], "llama3.2:latest": ["completion"]})
        self.digests: dict[str, str] = {}
        self.retry_after = "0"  # what is told with status 429
        self.stats = Stats()
        self.loaded: dict[str, dict[str, Any]] = {}
        self._tries: Counter[str] = Counter()
        self._in_flight = 0
        self._slots: asyncio.Semaphore | None = None

    def digest_of(self, model: str) -> str:
        """Digest of a model: of its name, or what a test put into `digests`."""
        return self.digests.get(model) or hashlib.sha256(model.encode()).hexdigest()

    async def complete(self, job: Job, receive: Receive) -> Reply:
        """Wait for a slot, then for the model, then fail or answer.

        Args:
            job: What is asked.
            receive: The ASGI channel of the request, which tells when its client goes away.

        Raises:
            ApiError: The answer is an HTTP error.
            BrokenConnectionError: There is to be no proper answer.
        """
        self.stats.requests += 1
        sha = job.sha
        self._tries[sha] += 1
        kind = next((fault.kind for fault in self.faults if fault.applies(sha, self._tries[sha])), None)
        try:
            return await self._queue(job, sha, kind, receive)
        except ApiError as error:
            if self.is_echoing and job.images:
                error.message += f" in request: {base64.b64encode(job.images[0]).decode()}"
            raise

    async def _queue(self, job: Job, sha: str, kind: FaultKind | None, receive: Receive) -> Reply:
        """Refuse at once, or wait for a slot."""
        if job.model not in self.models or kind == "missing":
            raise ApiError(404, f"model '{job.model}' not found")
        if kind == "unauthorized":
            raise ApiError(401, "unauthorized")
        if kind == "busy" or self._in_flight >= self.slots + self.queue_limit:
            self.stats.busy += 1
            raise ApiError(503, "server busy, please try again.  maximum pending requests exceeded")
        if kind == "limited":
            self.stats.busy += 1
            raise ApiError(429, "Rate limit reached for requests", self.retry_after)
        self._in_flight += 1
        self.stats.max_in_flight = max(self.stats.max_in_flight, self._in_flight)
        self._slots = self._slots or asyncio.Semaphore(self.slots)
        try:
            async with self._slots:
                return await self._run(job, sha, kind, receive)
        finally:
            self._in_flight -= 1

    async def _run(self, job: Job, sha: str, kind: FaultKind | None, receive: Receive) -> Reply:
        """One request in its slot."""
        started = time.perf_counter()
        self._record(job, sha)
        context_tokens = int(job.options.get("num_ctx", DEFAULT_CONTEXT_TOKENS))
        if kind == "overflow" or job.prompt_tokens > context_tokens:
            raise ApiError(400, _overflow_text(job.prompt_tokens, context_tokens))
        if kind == "refused":
            raise ApiError(400, "Failed to load image or audio file")
        seconds = None if kind == "hang" else self.latency_seconds
        if await _is_cancelled_within(receive, seconds):
            self.stats.cancelled += 1
            raise ApiError(499, "request canceled")
        if kind == "broken":
            self.loaded.pop(job.model, None)
            raise ApiError(
                500,
                "model runner has unexpectedly stopped, this may be due to resource limitations or an internal error, "
                "check ollama server logs for details",
            )
        if kind in ("close", "page"):
            raise BrokenConnectionError(kind)
        text = write_reply(job.schema, sha, kind)
        limit = int(job.options.get("num_predict", -1))
        is_cut_off = kind == "cut_off" or 0 <= limit * CHARS_PER_TOKEN < len(text)
        text = text[: limit * CHARS_PER_TOKEN] if limit >= 0 else text
        return Reply(
            text,
            "length" if is_cut_off else "stop",
            job.prompt_tokens,
            len(text) // CHARS_PER_TOKEN,
            time.perf_counter() - started,
        )

    def _record(self, job: Job, sha: str) -> None:
        self.stats.calls += 1
        self.stats.images[sha] += 1
        self.stats.prompts = [*self.stats.prompts[-9:], job.prompt]
        self.stats.options = [*self.stats.options[-9:], dict(job.options)]
        runner_options = {name: job.options[name] for name in RUNNER_OPTIONS if name in job.options}
        if self.loaded.get(job.model) != runner_options:
            self.loaded[job.model] = runner_options
            self.stats.loads += 1


async def _is_cancelled_within(receive: Receive, seconds: float | None) -> bool:
    """Wait for `seconds` (None: for ever), or until the client goes away; whether it did."""
    if seconds == 0:
        return False
    try:
        message = await asyncio.wait_for(receive(), seconds)
    except TimeoutError:
        return False
    return bool(message["type"] == "http.disconnect")


def _overflow_text(tokens: int, context_tokens: int) -> str:
    """Ollama passes llama-server's answer through as a string, JSON in JSON."""
    message = (
        f"request ({tokens} tokens) exceeds the available context size ({context_tokens} tokens), try increasing it"
    )
    return json.dumps({"error": {"code": 400, "message": message, "type": "exceed_context_size_error"}})
