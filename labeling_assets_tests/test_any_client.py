"""The stand-in answers clients of other libraries as real servers do."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from labeling_assets.products.labels import LABEL_SCHEMA, parse_reply
from labeling_assets_tests.standins.any_client import AnyClient
from labeling_assets_tests.standins.model import SlottedModel
from labeling_assets_tests.standins.ollama import OllamaStandIn

MODEL = "qwen2.5vl:latest"
IMAGE = base64.b64encode(b"any image").decode()
DATA_URI = {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{IMAGE}"}}
TEXT = {"type": "text", "text": "label it"}


@pytest.fixture
def client() -> TestClient:
    return TestClient(AnyClient(OllamaStandIn(SlottedModel()).app, LABEL_SCHEMA))


@pytest.mark.parametrize("wanted", ["json", LABEL_SCHEMA])
def test_ollamas_json_mode_is_answered_as_if_the_prompt_told_the_schema(client: TestClient, wanted: Any) -> None:
    message = {"role": "user", "content": "label it", "images": [IMAGE]}
    body = {"model": MODEL, "messages": [message], "format": wanted, "stream": False}
    reply = client.post("/api/chat", json=body).raise_for_status().json()
    assert parse_reply(reply["message"]["content"]).step == "direct"


def test_openais_json_mode_and_plain_text_are_understood(client: TestClient) -> None:
    messages = [{"role": "system", "content": "be short"}, {"role": "user", "content": [TEXT, DATA_URI]}]
    body = {"model": MODEL, "messages": messages, "response_format": {"type": "json_object"}}
    reply = client.post("/v1/chat/completions", json=body).raise_for_status().json()
    assert parse_reply(reply["choices"][0]["message"]["content"]).step == "direct"


def test_a_token_limit_by_its_newer_name_cuts_the_answer_off(client: TestClient) -> None:
    wanted = {"type": "json_schema", "json_schema": {"schema": LABEL_SCHEMA}}
    messages = [{"role": "user", "content": [TEXT, DATA_URI]}]
    body = {"model": MODEL, "messages": messages, "response_format": wanted, "max_completion_tokens": 2}
    reply = client.post("/v1/chat/completions", json=body).raise_for_status().json()
    assert reply["choices"][0]["finish_reason"] == "length"


@given(body=st.binary() | st.recursive(st.none() | st.text(), st.lists).map(lambda value: json.dumps(value).encode()))
def test_any_body_is_passed_on_or_refused_and_never_breaks_the_middleware(body: bytes) -> None:
    seen: list[bytes] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append((await receive())["body"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    TestClient(AnyClient(app, LABEL_SCHEMA)).post("/api/chat", content=body).raise_for_status()
    assert len(seen) == 1
