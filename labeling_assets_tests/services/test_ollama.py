"""What is particular to Ollama: options, checks, and the stand-in's faithfulness through the real client."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import httpx
import pytest
from PIL import Image

from labeling_assets.errors import ConfigurationError
from labeling_assets.products.labels import LABEL_SCHEMA
from labeling_assets.products.prompt import build_prompt, build_reask_prompt
from labeling_assets.services.vision.ollama import MIN_CONTEXT_TOKENS, OllamaVisionModel, context_tokens
from labeling_assets.services.vision.tokens import OUTPUT_TOKENS, image_tokens
from labeling_assets_tests.standins.ollama import OllamaServer
from labeling_assets_tests.standins.replies import Fault

if TYPE_CHECKING:
    import ollama

MODEL = "qwen2.5vl:latest"

REQUEST = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}]}


def response_error() -> type[Exception]:
    """The client's error; the module is loaded late, as everywhere."""
    import ollama

    return ollama.ResponseError


@pytest.fixture
def server(running_server: OllamaServer) -> OllamaServer:
    """A server of which nothing was asked yet."""
    running_server.renew()
    return running_server


@pytest.fixture
def client(server: OllamaServer) -> Iterator[ollama.Client]:
    import ollama

    with ollama.Client(server.url, timeout=10) as client:
        yield client


@pytest.fixture(scope="module")
def image() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (512, 512), "white").save(buffer, "JPEG")
    return buffer.getvalue()


def test_every_request_has_the_same_options_so_that_the_model_is_loaded_once(server, image):
    model = OllamaVisionModel([server.url], MODEL, 1, 10)
    for prompt in (build_prompt(), build_reask_prompt("text: Field required"), build_prompt()):
        model.ask(image, prompt, LABEL_SCHEMA)
    expected = {"temperature": 0, "seed": 0, "num_predict": OUTPUT_TOKENS, "num_ctx": MIN_CONTEXT_TOKENS}
    assert server.model.stats.options == [expected] * 3
    assert server.model.stats.loads == 1
    model.close()


@pytest.mark.parametrize(
    ("width_px", "height_px", "tokens"),
    [(512, 512, 1026), (28, 28, 1026), (1008, 1008, 1298), (1092, 784, 1094)],
)
def test_image_tokens_follow_the_measured_formula(width_px, height_px, tokens):
    assert image_tokens(width_px, height_px) == tokens


@pytest.mark.parametrize(("prompt_chars", "tokens"), [(0, 4096), (5000, 4096), (5500, 5120), (12_000, 7168)])
def test_the_context_is_the_smallest_multiple_in_which_everything_fits(prompt_chars, tokens):
    assert context_tokens("x" * prompt_chars) == tokens


def test_a_longer_prompt_raises_the_context_once_and_for_all(server, image):
    model = OllamaVisionModel([server.url], MODEL, 1, 10)
    for prompt in ("short", "word " * 2000, "short"):
        model.ask(image, prompt, LABEL_SCHEMA)
    assert [options["num_ctx"] for options in server.model.stats.options] == [4096, 6144, 6144]
    model.close()


@pytest.mark.parametrize("chars", [5_200, 5_365, 5_370, 5_375, 5_380])
def test_a_second_prompt_with_the_fault_does_not_load_the_model_again(server, image, chars):
    longest_fault = "trademark_level: Input should be 'No TM', 'Slight TM', 'TM Resemblance' or 'Direct TM'"
    added = len(build_reask_prompt(longest_fault)) - len(build_prompt())
    model = OllamaVisionModel([server.url], MODEL, 1, 10)
    for length in (chars, chars + added, chars):
        model.ask(image, "x" * length, LABEL_SCHEMA)
    assert server.model.stats.loads == 1
    model.close()


def test_the_context_that_is_set_is_used(server, image):
    model = OllamaVisionModel([server.url], MODEL, 1, 10, context_tokens=8192)
    model.ask(image, build_prompt(), LABEL_SCHEMA)
    assert server.model.stats.options[0]["num_ctx"] == 8192
    model.close()


def test_a_context_that_is_too_small_stops_the_step_instead_of_failing_every_row(server, image):
    model = OllamaVisionModel([server.url], MODEL, 1, 10, context_tokens=2048)
    with pytest.raises(ConfigurationError, match=r"LABELING_VISION_CONTEXT_TOKENS is 2048; .* need 4096"):
        model.ask(image, build_prompt(), LABEL_SCHEMA)
    assert server.model.stats.calls == 0
    model.close()


def test_a_model_without_tag_is_the_latest(server):
    model = OllamaVisionModel([server.url], "qwen2.5vl", 1, 10)
    model.check()
    assert model.name == MODEL
    assert model.digest == server.model.digest_of(MODEL)
    model.close()


def test_the_check_tells_the_command_that_mends_a_missing_model(server):
    model = OllamaVisionModel([server.url], "qwen2.5vl:72b", 1, 10)
    with pytest.raises(ConfigurationError) as raised:
        model.check()
    assert raised.value.remedy == f"Run `OLLAMA_HOST={server.url} ollama pull qwen2.5vl:72b`."
    model.close()


def test_the_check_of_a_server_that_is_down_tells_how_to_start_it():
    model = OllamaVisionModel(["http://127.0.0.1:9"], MODEL, 1, 10)
    with pytest.raises(ConfigurationError, match="ollama serve"):
        model.check()
    model.close()


def test_a_model_that_does_not_read_images_fails_the_check(server):
    model = OllamaVisionModel([server.url], "llama3.2", 1, 10)
    with pytest.raises(ConfigurationError, match=r"does not read images \(capabilities: completion\).*qwen2.5vl"):
        model.check()
    model.close()


def test_something_else_at_the_address_fails_the_check(server):
    model = OllamaVisionModel([f"{server.url}/elsewhere"], MODEL, 1, 10)
    with pytest.raises(ConfigurationError, match=r"No Ollama server answers .*status 404"):
        model.check()
    model.close()


@pytest.mark.parametrize("address", ["http://host:port", "http://[::1"])
def test_an_address_that_cannot_be_read_is_refused(address):
    with pytest.raises(ConfigurationError, match="LABELING_OLLAMA_HOSTS"):
        OllamaVisionModel([address], MODEL, 1, 10)


def test_no_proxy_stands_between_us_and_loopback(server, image, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    model = OllamaVisionModel([server.url], MODEL, 1, 10)
    model.check()
    assert model.ask(image, build_prompt(), LABEL_SCHEMA).text
    model.close()


def test_the_stand_in_says_that_it_runs(server):
    assert httpx.get(server.url).text == "Ollama is running"
    assert httpx.head(server.url).status_code == 200
    assert httpx.get(f"{server.url}/api/version").json() == {"version": "0.33.0"}


def test_the_stand_in_lists_shows_and_loads_models(client, server):
    assert [model.model for model in client.list().models] == list(server.model.models)
    assert client.show("llama3.2").capabilities == ["completion"]
    assert not client.ps().models
    assert client.generate(MODEL).done_reason == "load"
    client.generate(MODEL, prompt="Say something.", options={"num_ctx": 8192})
    assert client.ps().models[0].context_length == 8192


def test_the_stand_in_pulls_a_model_step_by_step(client):
    steps = [step.status for step in client.pull("llava:13b", stream=True)]
    assert steps[0] == "pulling manifest"
    assert steps[-1] == "success"
    assert client.show("llava:13b").capabilities == ["completion", "vision"]


@pytest.mark.parametrize("is_streamed", [True, False])
def test_the_stand_in_chats_and_generates_streamed_or_not(client, image, is_streamed):
    message = {"role": "user", "content": "Label it.", "images": [image]}
    chat = client.chat(MODEL, [message], format=LABEL_SCHEMA, stream=is_streamed)
    generated = client.generate(MODEL, "Label it.", images=[image], format=LABEL_SCHEMA, stream=is_streamed)
    if is_streamed:
        text = "".join(part.message.content for part in chat)
        assert text == "".join(part.response for part in generated)
    else:
        text = chat.message.content
        assert text == generated.response
        assert chat.done_reason == generated.done_reason == "stop"
    assert text.startswith('{"image_recipient": [')


@pytest.mark.parametrize(
    ("call", "status", "text"),
    [
        (
            lambda client: client.chat("absent", [{"role": "user", "content": "a"}]),
            404,
            "model 'absent:latest' not found",
        ),
        (lambda client: client.show("absent"), 404, "model 'absent:latest' not found"),
        (
            lambda client: client.generate(MODEL, "word " * 9000),
            400,
            "exceeds the available context size (4096 tokens)",
        ),
    ],
)
def test_the_stand_in_fails_as_ollama_does(client, call, status, text):
    with pytest.raises(response_error()) as raised:
        call(client)
    assert raised.value.status_code == status
    assert text in raised.value.error


def test_the_stand_in_refuses_what_its_queue_cannot_hold(client, server):
    server.renew(slots=1, queue_limit=0, faults=[Fault("hang", first_tries=1)])
    with ThreadPoolExecutor(1) as threads:
        hanging = threads.submit(httpx.post, f"{server.url}/api/chat", json=REQUEST, timeout=0.5)
        while not server.model.stats.calls:
            hanging.done()
        with pytest.raises(response_error()) as raised:
            client.generate(MODEL, "another")
        with pytest.raises(httpx.ReadTimeout):
            hanging.result()
    assert raised.value.status_code == 503
    assert raised.value.error == "server busy, please try again.  maximum pending requests exceeded"


def test_a_client_that_goes_away_frees_its_slot_in_the_stand_in(client, server):
    server.renew(slots=1, faults=[Fault("hang", images=(hashlib.sha256(b"Hello").hexdigest(),))])
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{server.url}/api/chat", json=REQUEST, timeout=0.2)
    assert client.generate(MODEL, "another").done_reason == "stop"
    assert server.model.stats.cancelled == 1


def test_the_stand_in_tells_its_statistics_and_takes_faults_over_http(client, server, image):
    faults = [{"kind": "broken", "first_tries": 1}]
    assert httpx.post(f"{server.url}/_faults", json=faults).json() == {"faults": 1}
    with pytest.raises(response_error()):
        client.generate(MODEL, "Label it.", images=[image])
    client.generate(MODEL, "Label it.", images=[image])
    stats = httpx.get(f"{server.url}/_stats").json()
    assert stats["calls"] == 2
    assert list(stats["images"].values()) == [2]


def test_a_fault_takes_its_share_of_the_images():
    shas = [f"{number:064x}" for number in range(2000)]
    hit = [sha for sha in shas if Fault("busy", share=0.05, seed=1).applies(sha, 1)]
    other = [sha for sha in shas if Fault("busy", share=0.05, seed=2).applies(sha, 1)]
    assert 60 < len(hit) < 140
    assert hit != other
    assert not any(Fault("busy", first_tries=1).applies(sha, 2) for sha in shas)
    assert Fault("busy", images=(shas[3],)).applies(shas[3], 9)
    assert not Fault("busy", images=(shas[3],)).applies(shas[4], 1)
