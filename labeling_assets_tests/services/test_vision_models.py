"""What holds for every vision model, and for every one over HTTP, against the stand-in server."""

from __future__ import annotations

import contextlib
import io
import socket
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest
from PIL import Image

from labeling_assets.errors import (
    ConfigurationError,
    ContextOverflowError,
    LabelError,
    LabelingError,
    ModelRunnerError,
    ModelTimeoutError,
    ServiceUnavailableError,
)
from labeling_assets.products.labels import LABEL_SCHEMA, parse_reply
from labeling_assets.products.prompt import build_prompt
from labeling_assets.services.vision import VisionModel
from labeling_assets.services.vision.concurrency import MAX_FOUND_SLOTS
from labeling_assets.services.vision.embedded import EmbeddedVisionModel
from labeling_assets.services.vision.ollama import OllamaVisionModel
from labeling_assets.services.vision.openai import OpenAIVisionModel
from labeling_assets.services.vision.pacing import Pacing
from labeling_assets.services.vision.server_errors import (
    BUSY_ATTEMPTS,
    RUNNER_ATTEMPTS,
    TIMEOUT_ATTEMPTS,
    UNREACHABLE_ATTEMPTS,
)
from labeling_assets_tests.standins.ollama import OllamaServer
from labeling_assets_tests.standins.replies import Fault
from labeling_assets_tests.standins.serving import serving

MakeModel = Callable[..., VisionModel]
KEY = "sk-a-secret-key"


def jpeg(number: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (64 + number, 64)).save(buffer, "JPEG")
    return buffer.getvalue()


def ask(model: VisionModel, number: int = 0) -> Any:
    return model.ask(jpeg(number), build_prompt(), LABEL_SCHEMA)


def free_url() -> str:
    """An address on loopback where nobody listens."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{unused.getsockname()[1]}"


@pytest.fixture
def server(running_server: OllamaServer) -> OllamaServer:
    """A server of which nothing was asked yet."""
    running_server.renew(slots=2)
    return running_server


@pytest.fixture(params=["ollama", "openai"])
def make_model(request: pytest.FixtureRequest) -> Iterator[MakeModel]:
    """Makes a model of each backend; `hosts` are addresses without path."""
    models: list[VisionModel] = []

    def make(
        *hosts: str,
        model: str = "qwen2.5vl:latest",
        slots: int = 2,
        timeout_seconds: float = 20.0,
        pacing: Pacing | None = None,
    ) -> VisionModel:
        made: VisionModel
        if request.param == "ollama":
            made = OllamaVisionModel(hosts, model, slots, timeout_seconds, 0, 0.001, pacing)
        else:
            urls = [f"{host}/v1" for host in hosts]
            made = OpenAIVisionModel(urls, model, KEY, slots, timeout_seconds, 0.001, pacing)
        models.append(made)
        return made

    yield make
    for made in models:
        made.close()


@pytest.fixture
def answering_server() -> Iterator[Callable[..., str]]:
    """Starts servers that give every request the same answer; returns the address."""
    with ExitStack() as running:

        def start(body: bytes, **headers: str) -> str:
            class Handler(BaseHTTPRequestHandler):
                def handle_one_request(self) -> None:
                    self.raw_requestline = self.rfile.readline()
                    if not self.raw_requestline or not self.parse_request():
                        self.close_connection = True
                        return
                    self.rfile.read(int(self.headers.get("Content-Length", 0)))
                    self.send_response(200)
                    self.send_header("Content-Length", str(len(body)))
                    for name, value in headers.items():
                        self.send_header(name.replace("_", "-"), value)
                    self.end_headers()
                    self.wfile.write(body)

                def log_message(self, *_: object) -> None:
                    pass

            return running.enter_context(serving(Handler))

        yield start


@pytest.fixture(params=["ollama", "openai", "embedded"])
def any_model(request: pytest.FixtureRequest, server: OllamaServer) -> Iterator[VisionModel]:
    """A model of each backend with two slots."""
    model: VisionModel
    if request.param == "embedded":
        model = EmbeddedVisionModel(slots=2)
    elif request.param == "ollama":
        model = OllamaVisionModel([server.url], "qwen2.5vl", 2, 20)
    else:
        model = OpenAIVisionModel([f"{server.url}/v1"], "qwen2.5vl:latest", KEY, 2, 20)
    yield model
    model.close()


def test_every_model_passes_its_check_and_has_a_name_a_digest_and_slots(any_model):
    any_model.check()
    assert any_model.name
    assert any_model.digest == any_model.digest
    assert any_model.slots == 2


def test_every_model_labels_from_as_many_threads_as_it_has_slots_and_the_same_image_the_same(any_model):
    with ThreadPoolExecutor(any_model.slots) as threads:
        replies = list(threads.map(lambda number: ask(any_model, number % 2), range(6)))
    for number, reply in enumerate(replies):
        assert parse_reply(reply.text).step == "direct"
        assert not reply.is_cut_off
        assert min(reply.prompt_tokens, reply.output_tokens) >= 0
        assert reply.seconds > 0
        assert reply.text == replies[number % 2].text


def test_every_model_says_that_what_is_no_image_cannot_be_labeled(any_model, server):
    server.model.faults = [Fault("refused")]
    with pytest.raises(LabelError):
        any_model.ask(b"no image", build_prompt(), LABEL_SCHEMA)


def test_a_reply_comes_with_its_tokens_and_seconds(server, make_model):
    reply = ask(make_model(server.url))
    assert parse_reply(reply.text).step == "direct"
    assert not reply.is_cut_off
    assert reply.prompt_tokens > 1024
    assert reply.output_tokens > 10
    assert reply.seconds > 0


def test_the_same_image_gives_the_same_reply_and_another_one_another(server, make_model):
    model = make_model(server.url)
    first, again, other = ask(model, 1), ask(model, 1), ask(model, 2)
    assert first.text == again.text != other.text


def test_schema_and_prompt_are_both_sent(server, make_model):
    ask(make_model(server.url))
    assert server.model.stats.prompts == [build_prompt()]
    options = server.model.stats.options[0]
    assert options["num_predict"] == 1024


@pytest.mark.parametrize(
    ("fault", "error", "can_retry", "requests"),
    [
        ("missing", ConfigurationError, False, 1),
        ("unauthorized", ConfigurationError, False, 1),
        ("busy", ServiceUnavailableError, True, BUSY_ATTEMPTS),
        ("limited", ServiceUnavailableError, True, BUSY_ATTEMPTS),
        ("broken", ModelRunnerError, True, RUNNER_ATTEMPTS),
        ("refused", ModelRunnerError, True, 1),
        ("overflow", ContextOverflowError, False, 1),
        ("hang", ModelTimeoutError, True, TIMEOUT_ATTEMPTS),
        ("close", ServiceUnavailableError, True, UNREACHABLE_ATTEMPTS),
        ("page", ServiceUnavailableError, True, UNREACHABLE_ATTEMPTS),
    ],
)
def test_each_fault_becomes_its_error_after_its_number_of_requests(
    server, make_model, fault, error, can_retry, requests
):
    server.model.faults = [Fault(fault)]
    with pytest.raises(LabelingError) as raised:
        ask(make_model(server.url, timeout_seconds=0.2 if fault == "hang" else 20))
    assert type(raised.value) is error
    assert raised.value.can_retry is can_retry
    assert server.model.stats.requests == requests


@pytest.mark.parametrize("fault", ["busy", "limited", "broken", "hang", "close", "page"])
def test_a_fault_that_passes_costs_one_more_request(server, make_model, fault):
    server.model.faults = [Fault(fault, first_tries=1)]
    reply = ask(make_model(server.url, timeout_seconds=1 if fault == "hang" else 20))
    assert parse_reply(reply.text).step == "direct"
    assert server.model.stats.requests == 2


def test_a_reply_at_the_token_limit_is_cut_off(server, make_model):
    server.model.faults = [Fault("endless")]
    reply = ask(make_model(server.url))
    assert reply.is_cut_off
    assert reply.output_tokens == 1024


def test_a_server_never_gets_more_requests_than_it_has_slots(server, make_model):
    server.model.latency_seconds = 0.01
    model = make_model(server.url)
    assert model.slots == 2
    with ThreadPoolExecutor(12) as threads:
        replies = list(threads.map(lambda number: ask(model, number), range(24)))
    assert len({reply.text for reply in replies}) > 20
    assert server.model.stats.max_in_flight == 2


def test_the_work_is_spread_over_all_servers(make_model):
    with (
        OllamaServer(slots=2, latency_seconds=0.02) as first,
        OllamaServer(slots=2, latency_seconds=0.02) as second,
    ):
        model = make_model(first.url, second.url)
        assert model.slots == 4
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(lambda number: ask(model, number), range(24)))
        calls = [server.model.stats.calls for server in (first, second)]
        assert sum(calls) == 24
        assert min(calls) >= 6
        assert max(server.model.stats.max_in_flight for server in (first, second)) == 2


def test_a_dead_server_is_left_alone_while_another_one_answers(server, make_model):
    model = make_model(free_url(), server.url)
    for number in range(6):
        assert parse_reply(ask(model, number).text)
    assert server.model.stats.calls == 6


def test_a_server_that_asks_to_be_left_alone_is_while_another_one_answers(server, make_model):
    with OllamaServer(faults=[Fault("limited")]) as limited:
        limited.model.retry_after = "100"
        model = make_model(limited.url, server.url)
        for number in range(6):
            assert parse_reply(ask(model, number).text)
        assert limited.model.stats.requests == 1
        assert server.model.stats.calls == 6


def test_more_slots_than_a_server_has_are_given_up_while_it_refuses(server, make_model):
    server.renew(slots=2, latency_seconds=0.01, queue_limit=0)
    model = make_model(server.url, slots=8)
    with ThreadPoolExecutor(8) as threads:
        replies = list(threads.map(lambda number: ask(model, number), range(60)))
    assert len(replies) == server.model.stats.calls == 60
    assert server.model.stats.busy


def test_slots_that_are_not_set_are_found_while_the_server_is_asked(server, make_model):
    server.renew(slots=4, latency_seconds=0.01)
    model = make_model(server.url, slots=0)
    assert model.slots == MAX_FOUND_SLOTS
    with ThreadPoolExecutor(model.slots) as threads:
        list(threads.map(lambda number: ask(model, number), range(60)))
    assert server.model.stats.calls == 60
    assert 2 <= server.model.stats.max_in_flight <= MAX_FOUND_SLOTS


def test_a_server_that_dies_half_way_loses_nothing(server, make_model):
    server.model.latency_seconds = 0.01
    with ExitStack() as running:
        dying = running.enter_context(OllamaServer(slots=2, latency_seconds=0.01))
        model = make_model(server.url, dying.url)
        with ThreadPoolExecutor(4) as threads:
            replies = [threads.submit(ask, model, number) for number in range(60)]
            for reply in replies[:20]:
                reply.result()
            running.close()
            texts = [reply.result().text for reply in replies]
    assert dying.model.stats.calls
    assert texts == [ask(model, number).text for number in range(60)]


def test_a_server_that_hangs_loses_nothing(server, make_model):
    with OllamaServer(slots=2, faults=[Fault("hang")]) as hanging:
        model = make_model(hanging.url, server.url, timeout_seconds=1.5)
        with ThreadPoolExecutor(4) as threads:
            replies = list(threads.map(lambda number: ask(model, number), range(4)))
        assert len(replies) == server.model.stats.calls == 4
        assert hanging.model.stats.requests


def test_a_server_that_is_back_is_used_again(server, make_model):
    with OllamaServer() as dead:
        url = dead.url
    model = make_model(url, server.url)
    ask(model)
    with OllamaServer(port=int(url.rpartition(":")[2])) as back:
        for number in range(5000):
            ask(model, number % 100)
            if back.model.stats.calls:
                break
        assert back.model.stats.calls


def test_a_server_that_comes_back_with_other_weights_is_not_used(server, make_model):
    with OllamaServer() as dead:
        url = dead.url
        model = make_model(url, server.url)
        model.check()
    ask(model)
    with OllamaServer(port=int(url.rpartition(":")[2])) as back:
        back.model.digests["qwen2.5vl:latest"] = "f" * 64
        for number in range(30):
            assert ask(model, number).text
        assert not back.model.stats.calls


def test_a_run_begins_without_a_server_that_is_down(server, make_model):
    model = make_model(free_url(), server.url)
    model.check()
    assert server.model.digest_of("qwen2.5vl:latest") in model.digest
    assert parse_reply(ask(model).text)


def test_every_request_waits_for_its_turn_under_the_rate_limit(server, make_model):
    turns = []

    class WatchedPacing(Pacing):
        def wait(self, tokens: int) -> None:
            turns.append(server.model.stats.requests)
            super().wait(tokens)

    server.model.faults = [Fault("busy", first_tries=1)]
    ask(make_model(server.url, pacing=WatchedPacing(6000, 60_000_000)))
    assert turns == [0, 1], "a repeated request is one more"


def test_a_server_that_cannot_be_reached_is_unavailable(make_model):
    with pytest.raises(ServiceUnavailableError, match="does not answer"):
        ask(make_model(free_url()))


def test_the_check_passes_and_tells_the_digest(server, make_model):
    model = make_model(server.url, server.url)
    model.check()
    assert server.model.digest_of("qwen2.5vl:latest") in model.digest
    assert model.name == "qwen2.5vl:latest"
    assert model.slots == 2, "an address given twice is one server"


def test_the_digest_is_known_without_a_check(server, make_model):
    checked, unchecked = make_model(server.url), make_model(server.url)
    checked.check()
    assert checked.digest == unchecked.digest


def test_the_check_of_a_server_that_is_down_names_it_and_the_setting(make_model):
    url = free_url()
    with pytest.raises(ConfigurationError, match=f"{url}.*LABELING_(OLLAMA_HOSTS|OPENAI_BASE_URL)"):
        make_model(url).check()


def test_the_check_of_a_missing_model_names_it(server, make_model):
    with pytest.raises(ConfigurationError, match=r"no model 'llava:13b'"):
        make_model(server.url, model="llava:13b").check()


def test_one_server_without_the_model_fails_the_check(server, make_model):
    with (
        OllamaServer(models={"llama3.2:latest": ["completion"]}) as other,
        pytest.raises(ConfigurationError, match=other.url),
    ):
        make_model(server.url, other.url).check()


def test_servers_with_different_weights_fail_the_check(server, make_model):
    with OllamaServer() as other:
        other.model.digests["qwen2.5vl:latest"] = "f" * 64
        with pytest.raises(ConfigurationError, match="different"):
            make_model(server.url, other.url).check()


def test_an_address_with_a_password_is_refused_without_repeating_it(make_model):
    with pytest.raises(ConfigurationError) as raised:
        make_model("http://user:hunter2@127.0.0.1:1")
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize(
    "fault", ["missing", "busy", "limited", "broken", "refused", "overflow", "hang", "close", "page"]
)
def test_neither_the_image_nor_the_key_is_in_an_error(server, make_model, fault):
    server.model.faults = [Fault(fault)]
    server.model.is_echoing = True
    with pytest.raises(LabelingError) as raised:
        ask(make_model(server.url, timeout_seconds=0.2))
    told = "".join(traceback.format_exception(raised.value))
    assert KEY not in told
    assert "/9j/4AAQ" not in told, "a JPEG begins so in base64"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"7",
        b"{}",
        b'{"models": [{}]}',
        b'{"data": [1]}',
        b'{"data": {"id": 1}}',
        b'{"message": 1}',
        b'{"choices": []}',
        b'{"choices": [{"message": null}]}',
        b'{"choices": [{"message": {"content": [{"type": "text", "text": "{}"}]}}]}',
        b'{"choices": [{"message": {"content": 7}}]}',
        b'{"message": {"content": [{"type": "text", "text": "{}"}]}}',
        b'{"choices": [{"message": {"content": "{}"}}], "usage": {"prompt_tokens": 1e999}}',
        b"\xff\xfe",
    ],
)
def test_an_answer_of_another_form_never_escapes_as_another_error(body, answering_server, make_model):
    model = make_model(answering_server(body))
    with pytest.raises(ServiceUnavailableError):
        ask(model)
    with pytest.raises(ConfigurationError):
        model.check()


def test_an_answer_that_cannot_be_unpacked_is_the_endpoints_fault(answering_server, make_model):
    model = make_model(answering_server(b"no gzip", Content_Encoding="gzip"))
    with pytest.raises(ServiceUnavailableError):
        ask(model)
    with pytest.raises(ConfigurationError):
        model.check()


@pytest.fixture
def dripping_server() -> Iterator[str]:
    """A server that answers every request with blanks, one after the other, without end; its address."""
    is_over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(200)
            self.end_headers()
            with contextlib.suppress(ConnectionError):
                while not is_over.wait(0.005):
                    self.wfile.write(b" ")

        def do_POST(self) -> None:
            self.do_GET()

        def log_message(self, *_: object) -> None:
            pass

    with serving(Handler) as url:
        yield url
        is_over.set()


def test_a_reply_that_drips_without_end_ends_at_the_deadline(dripping_server, make_model, monkeypatch):
    for module in ("ollama", "openai"):
        monkeypatch.setattr(f"labeling_assets.services.vision.{module}.PROBE_TIMEOUT_SECONDS", 0.1)
    model = make_model(dripping_server, timeout_seconds=0.1)
    with pytest.raises((ModelTimeoutError, ServiceUnavailableError)):
        ask(model)
