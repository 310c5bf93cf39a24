"""Makes the stand-in understand requests of clients other than ours, as real servers do.

- `"format": "json"` of Ollama names no schema; a real model knows it from the prompt, this one is told it here.
- OpenAI's `content` may be plain text, and `max_completion_tokens` stands for `max_tokens`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class AnyClient:
    """ASGI middleware that rewrites requests before the stand-in reads them.

    Args:
        app: Application of the stand-in.
        schema: Schema of the answers where the request names none.
    """

    def __init__(self, app: ASGIApp, schema: Mapping[str, Any]) -> None:
        self._app = app
        self._schema = schema

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] not in ("/api/chat", "/v1/chat/completions"):
            await self._app(scope, receive, send)
            return
        body = b""
        has_more = True
        while has_more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            has_more = message.get("more_body", False)
        waiting: list[Message] = [
            {
                "type": "http.request",
                "body": self._rewritten(body, is_openai=scope["path"].startswith("/v1/")),
                "more_body": False,
            }
        ]

        async def replay() -> Message:
            return waiting.pop() if waiting else await receive()

        await self._app(scope, replay, send)

    def _rewritten(self, body: bytes, *, is_openai: bool) -> bytes:
        try:
            request = json.loads(body)
        except ValueError:
            return body
        if not isinstance(request, dict):
            return body
        if request.get("format") == "json":
            request["format"] = self._schema
        if "max_completion_tokens" in request:
            request["max_tokens"] = request.pop("max_completion_tokens")
        response_format = request.get("response_format")
        if isinstance(response_format, dict) and response_format.get("type") == "json_object":
            request["response_format"] = {"type": "json_schema", "json_schema": {"schema": self._schema}}
        for message in request.get("messages", ()) if is_openai else ():
            if isinstance(message.get("content"), str):
                message["content"] = [{"type": "text", "text": message["content"]}]
        return json.dumps(request).encode()
