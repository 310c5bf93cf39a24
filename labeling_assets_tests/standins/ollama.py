"""A server that speaks Ollama's HTTP API, and the two OpenAI routes, with slots, latency and faults by setting.

It answers as `ollama serve` does (api/types.go, server/routes.go, server/sched.go of ollama 0.33): same routes, fields,
statuses and error texts. The labels it gives are valid against the request's schema and depend on the image alone, so
that runs can be compared. In a test: `with OllamaServer(slots=4) as server: server.url`. As a process:
`python -m labeling_assets_tests.standins.ollama --port 11434 --slots 4 --latency-ms 200`.

`GET /_stats` tells what was asked; `POST /_faults` with a list of `Fault` fields replaces the faults.
"""

from __future__ import annotations

import argparse
import json
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from labeling_assets_tests.standins.bodies import broken_response, decode_images, error_response, ndjson, read_json
from labeling_assets_tests.standins.model import (
    DEFAULT_CONTEXT_TOKENS,
    ApiError,
    BrokenConnectionError,
    Job,
    SlottedModel,
)
from labeling_assets_tests.standins.replies import Fault

VERSION = "0.33.0"


class OllamaStandIn:
    """The HTTP side: an ASGI application over a `SlottedModel`.

    Args:
        model: The model behind it.
        api_key: Asked for on the OpenAI routes; empty: none.
    """

    def __init__(self, model: SlottedModel, api_key: str = "") -> None:
        self.model = model
        self.api_key = api_key
        self.app = Starlette(
            routes=[
                Route("/", self._root, methods=["GET", "HEAD"]),
                Route("/api/version", self._version),
                Route("/api/tags", self._tags),
                Route("/api/ps", self._ps),
                Route("/api/show", self._show, methods=["POST"]),
                Route("/api/pull", self._pull, methods=["POST"]),
                Route("/api/chat", self._chat, methods=["POST"]),
                Route("/api/generate", self._generate, methods=["POST"]),
                Route("/v1/models", self._openai_models),
                Route("/v1/chat/completions", self._openai_chat, methods=["POST"]),
                Route("/_stats", self._get_stats),
                Route("/_faults", self._set_faults, methods=["POST"]),
            ],
            exception_handlers={ApiError: error_response},
        )

    async def _root(self, _: Request) -> Response:
        return PlainTextResponse("Ollama is running")

    async def _version(self, _: Request) -> Response:
        return JSONResponse({"version": VERSION})

    def _model_info(self, name: str) -> dict[str, Any]:
        details = {"format": "gguf", "family": "qwen25vl", "parameter_size": "8.3B", "quantization_level": "Q4_K_M"}
        return {
            "name": name,
            "model": name,
            "size": 5_969_245_856,
            "digest": self.model.digest_of(name),
            "details": details,
        }

    async def _tags(self, _: Request) -> Response:
        modified = {"modified_at": "2026-08-21T00:00:00Z"}
        return JSONResponse({"models": [self._model_info(name) | modified for name in self.model.models]})

    async def _ps(self, _: Request) -> Response:
        loaded = {"expires_at": "2099-01-01T00:00:00Z", "size_vram": 5_969_245_856}
        models = [
            self._model_info(name) | loaded | {"context_length": options.get("num_ctx", DEFAULT_CONTEXT_TOKENS)}
            for name, options in self.model.loaded.items()
        ]
        return JSONResponse({"models": models})

    async def _show(self, request: Request) -> Response:
        body = await read_json(request)
        name = _tagged(body.get("model") or body.get("name") or "")
        if name not in self.model.models:
            raise ApiError(404, f"model '{name}' not found")
        details = self._model_info(name)["details"]
        return JSONResponse(
            {
                "modelfile": "",
                "template": "",
                "details": details,
                "model_info": {},
                "capabilities": self.model.models[name],
            }
        )

    async def _pull(self, request: Request) -> Response:
        body = await read_json(request)
        name = _tagged(body.get("model") or body.get("name") or "")
        layer = f"sha256:{self.model.digest_of(name)}"
        lines: list[dict[str, Any]] = [{"status": "pulling manifest"}]
        lines += [
            {"status": f"pulling {layer[7:19]}", "digest": layer, "total": 4, "completed": done} for done in range(5)
        ]
        lines += [{"status": text} for text in ("verifying sha256 digest", "writing manifest", "success")]
        self.model.models.setdefault(name, ["completion", "vision"])
        return ndjson(lines) if body.get("stream", True) else JSONResponse(lines[-1])

    async def _chat(self, request: Request) -> Response:
        body = await read_json(request)
        messages = body.get("messages") or []
        prompt = "\n".join(message.get("content", "") for message in messages)
        encoded = [image for message in messages for image in message.get("images") or ()]
        job = _ollama_job(body, prompt, encoded)
        return await self._answer(job, body, request, lambda text: {"message": {"role": "assistant", "content": text}})

    async def _generate(self, request: Request) -> Response:
        body = await read_json(request)
        job = _ollama_job(body, body.get("prompt") or "", body.get("images") or [])
        return await self._answer(job, body, request, lambda text: {"response": text})

    async def _answer(self, job: Job, body: Mapping[str, Any], request: Request, form: Any) -> Response:
        head = {"model": job.model, "created_at": "2026-08-21T00:00:00Z"}
        if not job.prompt and not job.images:
            return JSONResponse(head | form("") | {"done": True, "done_reason": "load"})
        try:
            reply = await self.model.complete(job, request.receive)
        except BrokenConnectionError as fault:
            return broken_response(fault)
        nanoseconds = int(reply.seconds * 1e9)
        tail = {
            "done": True,
            "done_reason": reply.done_reason,
            "total_duration": nanoseconds,
            "prompt_eval_count": reply.prompt_tokens,
            "eval_count": reply.output_tokens,
            "eval_duration": nanoseconds,
        }
        if body.get("stream", True):
            middle = len(reply.text) // 2
            parts = [head | form(part) | {"done": False} for part in (reply.text[:middle], reply.text[middle:])]
            return ndjson([*parts, head | form("") | tail])
        return JSONResponse(head | form(reply.text) | tail)

    def _authorize(self, request: Request) -> None:
        if self.api_key and request.headers.get("authorization") != f"Bearer {self.api_key}":
            raise ApiError(401, "Incorrect API key provided")

    async def _openai_models(self, request: Request) -> Response:
        self._authorize(request)
        models = [
            {
                "id": name,
                "object": "model",
                "created": int(time.time()),
                "owned_by": "vllm",
                "root": self.model.digest_of(name),
            }
            for name in self.model.models
        ]
        return JSONResponse({"object": "list", "data": models})

    async def _openai_chat(self, request: Request) -> Response:
        self._authorize(request)
        body = await read_json(request)
        parts = [part for message in body["messages"] for part in message["content"]]
        prompt = "\n".join(part["text"] for part in parts if part["type"] == "text")
        encoded = [part["image_url"]["url"].partition(",")[2] for part in parts if part["type"] == "image_url"]
        schema = body.get("response_format", {}).get("json_schema", {}).get("schema")
        options = {"num_predict": body.get("max_tokens", -1)}
        job = Job(body["model"], prompt, decode_images(encoded), schema, options)
        try:
            reply = await self.model.complete(job, request.receive)
        except BrokenConnectionError as fault:
            return broken_response(fault)
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": reply.text},
            "finish_reason": reply.done_reason,
        }
        usage = {"prompt_tokens": reply.prompt_tokens, "completion_tokens": reply.output_tokens}
        return JSONResponse(
            {"id": "chatcmpl-1", "object": "chat.completion", "model": job.model, "choices": [choice], "usage": usage}
        )

    async def _get_stats(self, _: Request) -> Response:
        return JSONResponse(vars(self.model.stats))

    async def _set_faults(self, request: Request) -> Response:
        self.model.faults = [Fault(**fault) for fault in await read_json(request)]
        return JSONResponse({"faults": len(self.model.faults)})


def _tagged(model: str) -> str:
    return model if ":" in model else f"{model}:latest"


def _ollama_job(body: Mapping[str, Any], prompt: str, encoded: Sequence[str]) -> Job:
    schema = body.get("format")
    return Job(
        model=_tagged(body.get("model", "")),
        prompt=prompt,
        images=decode_images(encoded),
        schema=schema if isinstance(schema, dict) else None,
        options=body.get("options") or {},
    )


class OllamaServer:
    """The stand-in on a free port of 127.0.0.1, in a thread of this process, as long as its `with` block lasts.

    Attributes:
        url: Its address.

    Args:
        port: 0: a free one.
        api_key: See `OllamaStandIn`.
        settings: See `SlottedModel`.
    """

    def __init__(self, port: int = 0, api_key: str = "", **settings: Any) -> None:
        self._stand_in = OllamaStandIn(SlottedModel(**settings), api_key)
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(("127.0.0.1", port))
        self._socket.listen(1024)
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        config = uvicorn.Config(self._stand_in.app, log_level="critical", access_log=False, lifespan="off")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self.serve, name="ollama-stand-in", daemon=True)

    @property
    def model(self) -> SlottedModel:
        """The model behind it, whose settings and statistics may be read and changed."""
        return self._stand_in.model

    def renew(self, **settings: Any) -> None:
        """Go on with a new model, as after a restart at the same address."""
        self._stand_in.model = SlottedModel(**settings)

    def serve(self) -> None:
        """Serve until the end, in this thread."""
        self._server.run(sockets=[self._socket])

    def __enter__(self) -> OllamaServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = self._server.force_exit = True
        self._thread.join()
        self._socket.close()


def main() -> None:
    """Run the stand-in as a process."""
    parser = argparse.ArgumentParser(description="A server that speaks Ollama's API.")
    parser.add_argument("--port", type=int, default=0, help="0: a free one, which is printed")
    parser.add_argument("--slots", type=int, default=1)
    parser.add_argument("--latency-ms", type=float, default=0)
    parser.add_argument("--queue-limit", type=int, default=512)
    parser.add_argument("--faults", type=json.loads, default=[], help='JSON: [{"kind": "busy", "share": 0.05, …}, …]')
    arguments = parser.parse_args()
    server = OllamaServer(
        port=arguments.port,
        slots=arguments.slots,
        latency_seconds=arguments.latency_ms / 1000,
        queue_limit=arguments.queue_limit,
        faults=[Fault(**fault) for fault in arguments.faults],
    )
    print(server.url, flush=True)
    server.serve()


if __name__ == "__main__":
    main()
