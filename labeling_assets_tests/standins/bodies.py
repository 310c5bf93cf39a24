"""Bodies of requests and responses of the stand-in server, the broken ones too."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from labeling_assets_tests.standins.model import ApiError, BrokenConnectionError


async def read_json(request: Request) -> Any:
    try:
        return json.loads(await request.body())
    except ValueError as error:
        raise ApiError(400, f"invalid request body: {error}") from error


def decode_images(encoded: Sequence[str]) -> tuple[bytes, ...]:
    try:
        return tuple(base64.b64decode(image, validate=True) for image in encoded)
    except binascii.Error as error:
        raise ApiError(400, f"illegal base64 data: {error}") from error


async def error_response(request: Request, error: Exception) -> Response:
    """Ollama tells errors as a string, OpenAI as an object."""
    assert isinstance(error, ApiError)
    is_openai = request.url.path.startswith("/v1/")
    told = {"message": error.message, "code": error.status} if is_openai else error.message
    headers = {"Retry-After": error.retry_after} if error.retry_after else None
    return JSONResponse({"error": told}, error.status, headers)


def ndjson(lines: Sequence[Mapping[str, Any]]) -> Response:
    return Response("".join(f"{json.dumps(line)}\n" for line in lines), media_type="application/x-ndjson")


def broken_response(fault: BrokenConnectionError) -> Response:
    if str(fault) == "page":
        return Response("<html>Sign in to the network</html>", media_type="text/html")

    async def body() -> AsyncIterator[bytes]:
        yield b'{"model":'
        raise fault

    return StreamingResponse(body(), media_type="application/json", headers={"Content-Length": "1000"})
