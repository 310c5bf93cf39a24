"""Vision models behind an OpenAI-compatible API: vLLM, SGLang and others, over httpx.

One form of request fits them all: `/chat/completions` with the image as a data URI and `response_format: json_schema`.
The context size is the server's own; Ollama is better reached by `ollama.py`, which can set it.
"""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import httpx

from labeling_assets.errors import ConfigurationError, LabelError
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
    excerpt,
    status_error,
    transport_errors,
    unreachable,
)
from labeling_assets.services.vision.tokens import OUTPUT_TOKENS, request_tokens


class OpenAIVisionModel:
    """A vision model on one or more OpenAI-compatible servers; see `VisionModel` for what its methods promise.

    Args:
        base_urls: Addresses up to and with `/v1`.
        model: Name of the model as the servers list it.
        api_key: Sent as a bearer token; empty: none is sent.
        slots_per_host: Requests that each server is given at once; 0: found while it is asked.
        timeout_seconds: Deadline of one request.
        first_wait_seconds: Longest wait before a failed request is repeated; it doubles with each attempt.
        pacing: Rate limit of all servers together; default: none.

    Raises:
        ConfigurationError: An address cannot be read, or the key cannot be sent.
    """

    def __init__(
        self,
        base_urls: Sequence[str],
        model: str,
        api_key: str,
        slots_per_host: int,
        timeout_seconds: float,
        first_wait_seconds: float = FIRST_WAIT_SECONDS,
        pacing: Pacing | None = None,
    ) -> None:
        for url in base_urls:
            if not url.startswith(("http://", "https://")):
                raise ConfigurationError(
                    f"{url!r} is no address of a server.", "LABELING_OPENAI_BASE_URL takes http://host:8000/v1."
                )
        if not re.fullmatch("[!-~]*", api_key):  # no header carries it, and the error that says so would show it
            raise ConfigurationError(
                "The API key contains a blank, a line break or another character that no key has.",
                "Set LABELING_OPENAI_API_KEY to the key alone.",
            )
        self._model = model
        self._key = api_key
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        urls = [url.rstrip("/") for url in base_urls]
        self._pool = EndpointPool(urls, slots_per_host, self._probe, pacing or Pacing(), first_wait_seconds)
        self._digest = ""
        self._open = ExitStack()
        self._clients = {
            url: self._open.enter_context(
                httpx.Client(headers=self._headers, **client_options(url, self._pool.slots, timeout_seconds))
            )
            for url in self._pool.urls
        }

    @property
    def name(self) -> str:
        """Name of the model as the servers list it."""
        return self._model

    @property
    def digest(self) -> str:
        """`openai:` and what the server tells of the model: its id, and root and parent where it has them.

        Root is what vLLM loaded, parent the base model of an adapter. The API tells no digest of the weights and the
        address is left out, so that a move keeps the labels: when the weights change, serve them under another name.
        The first access makes the check of `check`.

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
        """Make sure that the servers list the same model; one may be down, but not all.

        The API does not tell whether it reads images.

        Raises:
            ConfigurationError: It is not so; the remedy is what to mend.
        """
        digests = self._pool.check_each(self._check_server)
        if len(set(digests.values())) > 1:
            listed = ", ".join(f"{url}: {digest}" for url, digest in digests.items())
            raise ConfigurationError(
                f"The servers hold different models as {self._model!r} ({listed}).", "Serve the same model on each."
            )
        self._digest = next(iter(digests.values()))

    def _probe(self, url: str) -> None:
        """Make sure that a server that failed is up again and still has the same model.

        Raises:
            TransientError: It is not so.
        """
        try:
            digest = self._check_server(url, PROBE_TIMEOUT_SECONDS)
        except ConfigurationError as error:
            raise unreachable(url, "no probe either") from error
        if self._digest not in ("", digest):
            raise unreachable(url, f"it does not hold {self._model!r} as the run began with it")

    def _check_server(self, url: str, timeout_seconds: float = CHECK_TIMEOUT_SECONDS) -> str:
        """The digest of the model on one server."""
        try:
            with transport_errors(url):
                response = self._clients[url].get(f"{url}/models", timeout=timeout_seconds)
            if not response.is_success:
                raise self._status_error(url, response)
            listed = {model["id"]: model for model in response.json()["data"]}
        except (TransientError, LabelError, ValueError, KeyError, TypeError) as error:
            raise ConfigurationError(
                f"No OpenAI-compatible server answers at {url}.", "Start it, or set LABELING_OPENAI_BASE_URL."
            ) from error
        if self._model not in listed:
            names = excerpt(", ".join(map(str, listed)), self._key)
            raise ConfigurationError(
                f"{url} has no model {self._model!r}; it has: {names}.", "Set LABELING_VISION_MODEL to one of them."
            )
        told = listed[self._model]
        parts = dict.fromkeys(str(told[part]) for part in ("id", "root", "parent") if told.get(part))
        return f"openai:{'@'.join(parts)}"

    def ask(self, image_jpeg: bytes, prompt: str, schema: Mapping[str, Any]) -> VisionReply:
        """Ask `prompt` about one image at temperature 0; the schema is enforced where the server can.

        Args:
            image_jpeg: A JPEG.
            prompt: The prompt; it should contain the schema.
            schema: JSON schema of the reply.

        Raises:
            ContextOverflowError: Image and prompt do not fit.
            ModelRunnerError: The model server broke on this image, twice, or refuses it.
            ModelTimeoutError: No reply within the deadline, twice.
            ServiceUnavailableError: No server answers, or all stay busy.
            ConfigurationError: The model is gone, or the key is refused.
        """
        image_url = f"data:image/jpeg;base64,{base64.b64encode(image_jpeg).decode()}"
        content = [{"type": "image_url", "image_url": {"url": image_url}}, {"type": "text", "text": prompt}]
        body = {
            "model": self._model,
            "temperature": 0,
            "max_tokens": OUTPUT_TOKENS,
            "messages": [{"role": "user", "content": content}],
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "label", "strict": True, "schema": dict(schema)},
            },
        }

        def request(url: str) -> VisionReply:
            started = time.perf_counter()
            with transport_errors(url):
                response = self._clients[url].post(f"{url}/chat/completions", json=body)
            if not response.is_success:
                raise self._status_error(url, response)
            return _reply(url, response, time.perf_counter() - started)

        return self._pool.call(request, request_tokens(prompt))

    def _status_error(self, url: str, response: httpx.Response) -> Exception:
        return status_error(
            response.status_code,
            _told(response),
            url=url,
            model=self._model,
            missing_remedy="Set LABELING_VISION_MODEL to a model that the server lists under /models.",
            key=self._key,
            retry_after=response.headers.get("Retry-After"),
        )

    def close(self) -> None:
        """Close all connections."""
        self._open.close()


def _told(response: httpx.Response) -> str:
    """The message of an error; the whole body where it is not of the OpenAI form."""
    try:
        return str(response.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return response.text


def _reply(url: str, response: httpx.Response, seconds: float) -> VisionReply:
    try:
        body = response.json()
        choice, usage = body["choices"][0], body.get("usage") or {}
        text = choice["message"].get("content")
        if not isinstance(text, str | None):
            raise TypeError("the content is no text")
        return VisionReply(
            text=text or "",
            is_cut_off=choice.get("finish_reason") == "length",
            prompt_tokens=int(usage.get("prompt_tokens") or 0),
            output_tokens=int(usage.get("completion_tokens") or 0),
            seconds=seconds,
        )
    except (ArithmeticError, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise unreachable(url, "its answer is not of the OpenAI form") from error
