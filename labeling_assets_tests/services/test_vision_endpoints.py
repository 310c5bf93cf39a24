"""Which endpoint gets a request, and what becomes of one that fails, with endpoints that are functions."""

from __future__ import annotations

import datetime as dt
import email.utils
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labeling_assets.errors import (
    ConfigurationError,
    ContextOverflowError,
    LabelingError,
    ModelRunnerError,
    ModelTimeoutError,
    ServiceUnavailableError,
)
from labeling_assets.services.pipeline import Pipeline, Ready
from labeling_assets.services.vision import VisionReply
from labeling_assets.services.vision.endpoints import EndpointPool
from labeling_assets.services.vision.pacing import Pacing
from labeling_assets.services.vision.server_errors import (
    MAX_RETRY_AFTER_SECONDS,
    Cause,
    TransientError,
    excerpt,
    retry_after_seconds,
    status_error,
    unreachable,
)

LONG_SECONDS = 3600.0
"""A first wait that no test waits for."""


def reply_of(url: str) -> VisionReply:
    return VisionReply(text=url, is_cut_off=False, prompt_tokens=1400, output_tokens=300, seconds=0.1)


def failure(cause: Cause, max_attempts: int = 1, pause_seconds: float = 0.0) -> TransientError:
    error = ModelTimeoutError("silent") if cause == "silence" else ServiceUnavailableError(f"{cause} at last.")
    return TransientError(error, max_attempts, cause, pause_seconds)


class WatchedPacing(Pacing):
    """A rate limit that remembers what it was told."""

    def __init__(self) -> None:
        super().__init__()
        self.waited: list[int] = []
        self.corrected: list[tuple[int, int]] = []

    def wait(self, tokens: int) -> None:
        self.waited.append(tokens)
        super().wait(tokens)

    def correct(self, estimated_tokens: int, tokens: int) -> None:
        self.corrected.append((estimated_tokens, tokens))
        super().correct(estimated_tokens, tokens)


class Endpoints:
    """Endpoints that fail as they are told, in a pool."""

    def __init__(self, urls: Iterable[str], slots: int = 1, first_wait_seconds: float = LONG_SECONDS) -> None:
        self.asked: list[str] = []
        self.probed: list[str] = []
        self.failures: dict[str, list[TransientError]] = {}
        self.dead: set[str] = set()
        self.pacing = WatchedPacing()
        self.pool = EndpointPool(list(urls), slots, self.probe, self.pacing, first_wait_seconds)

    def probe(self, url: str) -> None:
        self.probed.append(url)
        if url in self.dead:
            raise unreachable(url, "dead")

    def request(self, url: str) -> VisionReply:
        self.asked.append(url)
        if self.failures.get(url):
            raise self.failures[url].pop(0)
        return reply_of(url)

    def call(self) -> str:
        return self.pool.call(self.request, 1).text


@pytest.mark.parametrize("cause", ["outage", "load"])
def test_another_endpoint_takes_the_request_at_once_and_no_attempt_is_spent(cause: Cause) -> None:
    endpoints = Endpoints("ab")
    endpoints.failures["a"] = [failure(cause, max_attempts=1, pause_seconds=LONG_SECONDS)]
    assert [endpoints.call() for _ in range(4)] == ["b"] * 4
    assert endpoints.asked == ["a", "b", "b", "b", "b"], "who failed, or wants to be left alone, is"


def test_an_endpoint_that_failed_gets_a_request_only_after_a_probe() -> None:
    endpoints = Endpoints("ab", first_wait_seconds=0.0)
    endpoints.failures["a"], endpoints.dead = [failure("outage")], {"a"}
    assert [endpoints.call() for _ in range(3)] == ["b"] * 3
    assert endpoints.asked == ["a", "b", "b", "b"]
    assert endpoints.probed == ["a", "a"]
    endpoints.dead.clear()
    assert [endpoints.call() for _ in range(2)] == ["a", "a"]
    assert endpoints.probed == ["a", "a", "a"], "it is in again"


def test_the_rest_of_an_endpoint_doubles_until_it_answers() -> None:
    endpoints = Endpoints("ab", first_wait_seconds=0.01)
    endpoints.failures["a"], endpoints.dead = [failure("outage")], {"a"}
    began = time.monotonic()
    while len(endpoints.probed) < 4:
        endpoints.call()
    assert time.monotonic() - began >= 0.01 + 0.02 + 0.04 + 0.08


def test_while_all_are_out_a_probe_and_not_a_request_is_an_attempt() -> None:
    endpoints = Endpoints("a", first_wait_seconds=0.0)
    endpoints.failures["a"], endpoints.dead = [failure("outage", max_attempts=10)], {"a"}
    with pytest.raises(ServiceUnavailableError, match="a does not answer"):
        endpoints.call()
    assert endpoints.asked == ["a"]
    assert len(endpoints.probed) == 9


def test_an_endpoint_that_passes_every_probe_and_fails_every_request_is_given_up() -> None:
    endpoints = Endpoints("ab", first_wait_seconds=0.0)
    for url in "ab":
        endpoints.failures[url] = [failure("outage", max_attempts=4) for _ in range(20)]
    with pytest.raises(ServiceUnavailableError):
        endpoints.call()
    assert 4 <= len(endpoints.asked) <= 8


def test_endpoints_that_are_all_busy_spend_the_attempts() -> None:
    endpoints = Endpoints("ab", first_wait_seconds=0.0)
    for url in "ab":
        endpoints.failures[url] = [failure("load", max_attempts=3) for _ in range(9)]
    with pytest.raises(ServiceUnavailableError, match="load at last"):
        endpoints.call()
    assert Counter(endpoints.asked) == {"a": 3, "b": 3}


def test_a_refused_request_is_not_given_up_while_the_endpoint_answers_others() -> None:
    endpoints = Endpoints("a", slots=2, first_wait_seconds=0.0)
    refused = 0

    def request(url: str) -> VisionReply:
        nonlocal refused
        if refused % 2:  # between two refusals another request comes and is answered
            assert endpoints.pool.call(reply_of, 1).text == url
        if refused == 9:
            return reply_of(url)
        refused += 1
        raise failure("load", max_attempts=3)

    assert endpoints.pool.call(request, 1).text == "a"
    assert refused == 9


def test_failures_of_different_causes_spend_attempts_of_their_own() -> None:
    endpoints = Endpoints("a", first_wait_seconds=0.0)
    causes: list[Cause] = ["outage", "load", "outage", "request", "silence"]
    limits = {"outage": 3, "load": 2, "request": 2, "silence": 2}
    endpoints.failures["a"] = [failure(cause, limits[cause]) for cause in causes]
    reply = endpoints.pool.call(endpoints.request, 1)
    assert (reply.text, reply.failed_attempts) == ("a", 2), "an endpoint that is down or busy has not worked"


@pytest.mark.parametrize(
    ("causes", "failed_attempts"),
    [(["request", "request"], 2), (["silence", "request", "silence"], 3), (["outage", "outage"], 0)],
)
def test_an_error_tells_the_attempts_on_which_an_endpoint_may_have_worked(
    causes: list[Cause], failed_attempts: int
) -> None:
    endpoints = Endpoints("a", first_wait_seconds=0.0)
    endpoints.failures["a"] = [failure(cause, 2) for cause in causes]
    with pytest.raises(LabelingError) as raised:
        endpoints.call()
    assert raised.value.failed_attempts == failed_attempts


def test_a_judgement_after_a_failed_attempt_tells_that_one_too() -> None:
    answers: list[Exception] = [ContextOverflowError("too long"), failure("request", 2)]

    def request(url: str) -> VisionReply:
        raise answers.pop()

    with pytest.raises(ContextOverflowError) as raised:
        Endpoints("a", first_wait_seconds=0.0).pool.call(request, 1)
    assert raised.value.failed_attempts == 1


class SlowPacing(Pacing):
    """A rate limit under which nobody's turn comes while a test runs."""

    def __init__(self, when_booked: Callable[[], None]) -> None:
        super().__init__(requests_per_minute=1)
        self.book(1, time.monotonic() + LONG_SECONDS)
        self._when_booked = when_booked

    def wait(self, tokens: int) -> None:
        self._when_booked()
        super().wait(tokens)


@pytest.mark.parametrize("wait", ["for its turn", "between attempts", "for an endpoint"])
def test_a_request_that_waits_is_not_made_when_its_pipeline_is_stopped(wait: str) -> None:
    waits, asked = threading.Event(), list[str]()
    pacing = SlowPacing(waits.set) if wait == "for its turn" else Pacing()
    pool = EndpointPool(["a"], 1, lambda _: None, pacing, LONG_SECONDS if wait == "between attempts" else 0.0)

    def request(url: str) -> VisionReply:
        asked.append(url)
        waits.set()
        raise failure("request", 2) if wait == "between attempts" else failure("load", 9, LONG_SECONDS)

    def work(_: Sequence[tuple[str, str]]) -> list[str]:
        return [pool.call(request, 1).text]

    pipeline: Pipeline[str, str] = Pipeline(1, Ready, work)
    pipeline.submit(["image"])
    assert waits.wait(30)
    pipeline.stop()
    assert len(asked) == (wait != "for its turn")


def test_the_pause_that_an_endpoint_asks_for_is_kept_where_there_is_no_other() -> None:
    endpoints = Endpoints("a", first_wait_seconds=0.0)
    endpoints.failures["a"] = [failure("load", max_attempts=2, pause_seconds=0.2)]
    began = time.monotonic()
    assert endpoints.call() == "a"
    assert time.monotonic() - began >= 0.2
    assert not endpoints.probed, "it is busy, not out"


@pytest.mark.parametrize("cause", ["silence", "request"])
def test_a_request_that_may_be_the_cause_itself_spends_an_attempt_and_goes_elsewhere(cause: Cause) -> None:
    endpoints = Endpoints("ab", first_wait_seconds=0.0)
    endpoints.failures["a"] = [failure(cause, max_attempts=2), failure(cause, max_attempts=2)]
    assert endpoints.call() == "b"
    assert endpoints.asked == ["a", "b"]


def test_a_silent_endpoint_is_probed_before_it_is_asked_again() -> None:
    endpoints = Endpoints("a", first_wait_seconds=0.0)
    endpoints.failures["a"] = [failure("silence", max_attempts=2), failure("silence", max_attempts=2)]
    with pytest.raises(ModelTimeoutError):
        endpoints.call()
    assert (endpoints.asked, endpoints.probed) == (["a", "a"], ["a"])


def test_an_endpoint_that_lost_the_model_is_out_and_the_others_go_on() -> None:
    endpoints = Endpoints("ab")

    def request(url: str) -> VisionReply:
        if url == "a":
            raise ConfigurationError("a has no model.")
        return reply_of(url)

    assert [endpoints.pool.call(request, 1).text for _ in range(2)] == ["b", "b"]
    with pytest.raises(ConfigurationError, match="no model"):
        Endpoints("a").pool.call(request, 1)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["outage", "load"]), st.booleans()), max_size=12))
def test_no_request_is_lost_and_no_slot_kept_whichever_endpoints_fail(script: list[tuple[str, Cause, bool]]) -> None:
    endpoints = Endpoints("abc", slots=2, first_wait_seconds=0.0)
    for url, cause, _ in script:
        endpoints.failures.setdefault(url, []).append(failure(cause, max_attempts=20))
    for url, _, is_dead in script:
        if is_dead:
            endpoints.dead.add(url)
        endpoints.call()
        endpoints.dead.discard(url)
    with ThreadPoolExecutor(6) as threads:
        assert len(list(threads.map(lambda _: endpoints.call(), range(12)))) == 12


def test_an_error_of_our_own_making_is_not_tried_again_and_frees_its_slot() -> None:
    endpoints = Endpoints("a")

    def request(url: str) -> VisionReply:
        raise KeyError(url)

    for _ in range(3):
        with pytest.raises(KeyError):
            endpoints.pool.call(request, 1)
    assert endpoints.call() == "a"


def test_the_least_loaded_endpoint_gets_the_next_request() -> None:
    endpoints = Endpoints("abc", slots=3)
    under_way, all_began, may_end = Counter[str](), threading.Event(), threading.Event()
    lock = threading.Lock()

    def request(url: str) -> VisionReply:
        with lock:
            under_way[url] += 1
            if under_way.total() == 9:
                all_began.set()
        may_end.wait(30)
        return reply_of(url)

    with ThreadPoolExecutor(12) as threads:
        replies = [threads.submit(endpoints.pool.call, request, 1) for _ in range(12)]
        assert all_began.wait(30)
        assert under_way == {"a": 3, "b": 3, "c": 3}, "none has more than its slots, three requests wait"
        may_end.set()
        assert len([reply.result() for reply in replies]) == 12


def test_a_request_is_booked_by_estimate_and_corrected_by_the_reply() -> None:
    endpoints = Endpoints("a")
    endpoints.pool.call(endpoints.request, 2500)
    assert endpoints.pacing.waited == [2500]
    assert endpoints.pacing.corrected == [(2500, 1700)]


def test_a_check_goes_on_without_an_endpoint_that_is_down_and_not_without_all() -> None:
    endpoints = Endpoints("ab")

    def check(url: str, down: str) -> str:
        if url in down:
            raise ConfigurationError(f"{url} is down.") from unreachable(url, "down")
        return "digest"

    assert endpoints.pool.check_each(lambda url: check(url, "a")) == {"b": "digest"}
    assert endpoints.call() == "b"
    with pytest.raises(ConfigurationError, match="a is down"):
        endpoints.pool.check_each(lambda url: check(url, "ab"))


def test_a_check_stops_at_an_endpoint_that_is_not_as_it_should_be() -> None:
    def check(url: str) -> str:
        raise ConfigurationError(f"{url} has no model.")

    with pytest.raises(ConfigurationError, match="no model"):
        Endpoints("ab").pool.check_each(check)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, 0),
        ("", 0),
        ("0", 0),
        (" 7 ", 7),
        ("1.5", 1.5),
        ("86400", MAX_RETRY_AFTER_SECONDS),
        ("-3", 0),
        ("soon", 0),
        ("1e9", 0),
        ("Fri, 31 Dec 1999 23:59:59 GMT", 0),
        ("Fri, 31 Dec 1999 23:59:59 -0000", 0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", MAX_RETRY_AFTER_SECONDS),
    ],
)
def test_a_retry_after_header_is_read(header: str | None, seconds: float) -> None:
    assert retry_after_seconds(header) == seconds


def test_a_retry_after_date_is_read() -> None:
    at = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=60)
    assert 0 < retry_after_seconds(email.utils.format_datetime(at, usegmt=True)) <= 60


@given(st.text(max_size=40) | st.datetimes().map(email.utils.format_datetime))
def test_no_retry_after_header_is_out_of_bounds(header: str) -> None:
    assert 0 <= retry_after_seconds(header) <= MAX_RETRY_AFTER_SECONDS


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        ("", "no explanation"),
        ("a\nb\0c.", "a b c"),
        ("a \ud800 b", "a ? b"),
        ("key: Bearer abc123 rest", "key: Bearer … rest"),
        ("sk-12345 is wrong", "sk-… is wrong"),
        ("image " + "QUJD" * 40 + " end", "image … end"),
        ("x y " * 200, ("x y " * 50).strip()),
    ],
)
def test_an_excerpt_is_short_and_holds_no_secret(body, shown):
    assert excerpt(body).strip() == shown


@pytest.mark.parametrize("key", ["hf_aBcD1234", "gsk_x-y.z", "0123456789abcdef" * 2, "two words", "a+b/c=(*)"])
def test_an_excerpt_never_holds_the_key_of_whatever_form(key: str) -> None:
    assert excerpt(f"no access with {key}, or Bearer {key}", key).startswith("no access with …, or Bearer …")
    assert key not in excerpt("x" * 190 + f" {key} {key}", key)


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (400, "This model's maximum context length is 4096 tokens. However, you requested 5000", ContextOverflowError),
        (400, "The decoder prompt (length 5000) is longer than the maximum model length of 4096", ContextOverflowError),
        (500, "request (4165 tokens) exceeds the available context size (4096 tokens)", ContextOverflowError),
        (400, '"qwen" does not support chat', ConfigurationError),
        (400, 'option "num_ctx" must be of type integer', ConfigurationError),
        (403, "forbidden", ConfigurationError),
        (302, "moved", ConfigurationError),
        (413, "too large", ModelRunnerError),
        (429, "slow down", TransientError),
        (502, "bad gateway", TransientError),
        (500, "CUDA error: out of memory", TransientError),
    ],
)
def test_a_status_means_an_error(status, body, error):
    found = status_error(status, body, url="http://host", model="qwen", missing_remedy="pull")
    assert type(found) is error
