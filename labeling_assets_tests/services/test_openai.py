"""What is particular to OpenAI-compatible servers: the key, the list of models, the digest."""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler

import pytest

from labeling_assets.errors import ConfigurationError, LabelingError
from labeling_assets.products.labels import LABEL_SCHEMA
from labeling_assets.products.prompt import build_prompt
from labeling_assets.services.vision.openai import OpenAIVisionModel
from labeling_assets_tests.standins.ollama import OllamaServer
from labeling_assets_tests.standins.serving import serving

MODEL = "qwen2.5vl:latest"
KEY = "sk-a-secret-key"


@pytest.fixture(scope="module")
def running_server() -> Iterator[OllamaServer]:
    with OllamaServer(api_key=KEY) as server:
        yield server


@pytest.fixture
def server(running_server: OllamaServer) -> OllamaServer:
    """A server of which nothing was asked yet."""
    running_server.renew()
    return running_server


@pytest.fixture
def repeating_server() -> Iterator[Callable[[int, bool], str]]:
    """Starts servers that refuse every request and repeat its key; returns the address."""
    with ExitStack() as running:

        def start(status: int, is_of_the_form: bool) -> str:
            class Handler(BaseHTTPRequestHandler):
                def do_GET(self) -> None:
                    self.rfile.read(int(self.headers.get("Content-Length", 0)))
                    told = f"no access with {self.headers['Authorization'].removeprefix('Bearer ')}"
                    body = json.dumps({"error": {"message": told}} if is_of_the_form else {"detail": told}).encode()
                    self.send_response(status)
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)

                def do_POST(self) -> None:
                    self.do_GET()

                def log_message(self, *_: object) -> None:
                    pass

            return f"{running.enter_context(serving(Handler))}/v1"

        yield start


def test_the_key_is_sent(server):
    model = OpenAIVisionModel([f"{server.url}/v1/"], MODEL, KEY, 1, 10)
    model.check()
    assert model.ask(b"\xff\xd8", build_prompt(), LABEL_SCHEMA).text
    model.close()


@pytest.mark.parametrize("key", ["", "sk-wrong"])
def test_a_wrong_key_stops_the_step_and_is_not_told(server, key):
    model = OpenAIVisionModel([f"{server.url}/v1"], MODEL, key, 1, 10)
    for call in (model.check, lambda: model.ask(b"\xff\xd8", build_prompt(), LABEL_SCHEMA)):
        with pytest.raises(ConfigurationError, match="API key") as raised:
            call()
        assert "sk-" not in str(raised.value)
    model.close()


@pytest.mark.parametrize("key", ["hf_aBcD1234", "gsk_x-y.z", "0123456789abcdef" * 2])
@pytest.mark.parametrize("status", [400, 401, 404, 500, 502, 503])
@pytest.mark.parametrize("is_of_the_form", [True, False])
def test_a_key_that_the_server_repeats_is_not_told(repeating_server, key, status, is_of_the_form):
    model = OpenAIVisionModel([repeating_server(status, is_of_the_form)], MODEL, key, 1, 10, 0.0)
    for call in (model.check, lambda: model.ask(b"\xff\xd8", build_prompt(), LABEL_SCHEMA)):
        with pytest.raises(LabelingError) as raised:
            call()
        assert key not in "".join(traceback.format_exception(raised.value))
    model.close()


def test_the_check_of_a_missing_model_lists_what_there_is(server):
    model = OpenAIVisionModel([f"{server.url}/v1"], "absent", KEY, 1, 10)
    with pytest.raises(
        ConfigurationError, match=r"it has: qwen2.5vl:latest, llama3.2:latest\. Set LABELING_VISION_MODEL"
    ):
        model.check()
    model.close()


def test_the_digest_is_what_the_server_tells_and_not_where_it_stands(server):
    with OllamaServer(api_key=KEY) as elsewhere:
        models = [OpenAIVisionModel([f"{host}/v1"], MODEL, KEY, 1, 10) for host in (server.url, elsewhere.url)]
        assert models[0].digest == models[1].digest == f"openai:{MODEL}@{server.model.digest_of(MODEL)}"
        for model in models:
            model.close()


def test_something_else_at_the_address_fails_the_check(server):
    model = OpenAIVisionModel([f"{server.url}/elsewhere"], MODEL, KEY, 1, 10)
    with pytest.raises(ConfigurationError):
        model.check()
    model.close()


def test_an_address_without_scheme_is_refused():
    with pytest.raises(ConfigurationError, match="LABELING_OPENAI_BASE_URL"):
        OpenAIVisionModel(["host:8000/v1"], MODEL, "", 1, 10)


@pytest.mark.parametrize("key", ["hf_secret\n", " hf_secret", "hf_sec\0ret", "hf_sécret"])
def test_a_key_that_cannot_be_sent_is_refused_without_repeating_it(key):
    with pytest.raises(ConfigurationError, match="LABELING_OPENAI_API_KEY") as raised:
        OpenAIVisionModel(["http://host:8000/v1"], MODEL, key, 1, 10)
    assert "hf_" not in "".join(traceback.format_exception(raised.value))
