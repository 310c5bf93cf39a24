"""The labeler on a real ledger and a server that speaks Ollama's protocol: every fault, crash and crowd."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from PIL import Image

from labeling_assets.errors import (
    ConfigurationError,
    ContextOverflowError,
    ImageUnavailableError,
    InvalidReplyError,
    LabelError,
    LabelingError,
    ModelRunnerError,
    ModelTimeoutError,
    RepetitiveReplyError,
    ServiceUnavailableError,
    TruncatedReplyError,
)
from labeling_assets.products.labels import SCHEMA_VERSION, Label
from labeling_assets.products.prompt import PROMPT_VERSION
from labeling_assets.services.ledger import LabelKey, LabelLedger
from labeling_assets.services.vision.labeler import Labeler
from labeling_assets.services.vision.ollama import OllamaVisionModel
from labeling_assets.services.vision.openai import OpenAIVisionModel
from labeling_assets.services.vision.server_watch import MAX_FAILURES_IN_A_ROW
from labeling_assets_tests.standins.ollama import OllamaServer
from labeling_assets_tests.standins.replies import Fault

MODEL = "qwen2.5vl:latest"
Outcomes = dict[str, Any]


def jpeg(number: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (64 + number, 64)).save(buffer, "JPEG")
    return buffer.getvalue()


class Images:
    """Images by sha256, as the store gives them; counts what is read."""

    def __init__(self, count: int) -> None:
        self.by_sha = {hashlib.sha256(data).hexdigest(): data for data in map(jpeg, range(count))}
        self.shas = list(self.by_sha)
        self.reads: list[str] = []

    def read(self, sha: str) -> bytes:
        self.reads.append(sha)
        return self.by_sha[sha]


@pytest.fixture
def server(running_server: OllamaServer) -> OllamaServer:
    """A server with four slots of which nothing was asked yet."""
    running_server.renew(slots=4)
    return running_server


@pytest.fixture
def ledger(engine: sa.Engine) -> LabelLedger:
    return LabelLedger(engine)


@pytest.fixture
def new_labeler(server: OllamaServer, ledger: LabelLedger) -> Iterator[Callable[..., Labeler]]:
    """Makes labelers, each with a model of its own, as each run has."""
    models: list[Any] = []

    def make(backend: str = "ollama", slots: int = 4, timeout_seconds: float = 20.0) -> Labeler:
        if backend == "ollama":
            models.append(OllamaVisionModel([server.url], MODEL, slots, timeout_seconds, first_wait_seconds=0.001))
        else:
            models.append(OpenAIVisionModel([f"{server.url}/v1"], MODEL, "", slots, timeout_seconds, 0.001))
        return Labeler(models[-1], ledger)

    yield make
    for model in models:
        model.close()


def label_all(labeler: Labeler, images: Images) -> Outcomes:
    return dict(labeler.label_all(images.shas, images.read))


@pytest.mark.parametrize("backend", ["ollama", "openai"])
def test_every_image_is_labeled_with_its_provenance(new_labeler, server, backend):
    images = Images(10)
    labeler = new_labeler(backend)
    outcomes = label_all(labeler, images)
    assert set(outcomes) == set(images.shas)
    for label in outcomes.values():
        assert isinstance(label, Label)
        assert server.model.digest_of(MODEL) in label.digest
        assert (label.model, label.prompt_version, label.schema_version) == (MODEL, PROMPT_VERSION, SCHEMA_VERSION)
        assert (label.parse_step, label.model_calls, label.is_from_ledger) == ("direct", 1, False)
        assert label.prompt_tokens > 1000
        assert label.output_tokens > 0
        assert label.seconds > 0
    counts = labeler.counts
    assert (counts.rows, counts.distinct, counts.model_calls, counts.ledger_hits) == (10, 10, 10, 0)
    assert counts.prompt_tokens == sum(label.prompt_tokens for label in outcomes.values())
    assert (counts.refused, counts.reasked) == (0, 0)


def test_a_second_run_asks_nothing_and_gives_the_same_labels(new_labeler, server):
    images = Images(10)
    first = label_all(new_labeler(), images)
    images.reads.clear()
    labeler = new_labeler()
    second = label_all(labeler, images)
    assert server.model.stats.calls == 10
    assert not images.reads, "what is in the ledger is not even read"
    assert {sha: label.labels for sha, label in second.items()} == {sha: label.labels for sha, label in first.items()}
    assert all(label.is_from_ledger for label in second.values())
    assert (labeler.counts.model_calls, labeler.counts.ledger_hits, labeler.counts.prompt_tokens) == (0, 10, 0)


def test_the_same_image_on_many_rows_is_asked_about_once(new_labeler, server):
    images = Images(3)
    labeler = new_labeler()
    outcomes = list(labeler.label_all(images.shas * 40, images.read))
    assert sorted(sha for sha, _ in outcomes) == sorted(images.shas)
    assert server.model.stats.calls == 3
    assert (labeler.counts.rows, labeler.counts.distinct) == (120, 3)


def test_nothing_to_label_needs_neither_server_nor_ledger(new_labeler, server):
    labeler = new_labeler()
    assert list(labeler.label_all([], Images(0).read)) == []
    assert server.model.stats.requests == 0


def test_another_digest_is_asked_anew(new_labeler, server):
    images = Images(2)
    label_all(new_labeler(), images)
    server.model.digests[MODEL] = "f" * 64
    assert not any(label.is_from_ledger for label in label_all(new_labeler(), images).values())
    assert server.model.stats.calls == 4


@pytest.mark.parametrize(
    ("fault", "step"),
    [("prose", "embedded"), ("fenced", "fenced"), ("broken_json", "repaired")],
)
def test_a_reply_in_another_form_is_labeled_without_asking_again(new_labeler, server, fault, step):
    images = Images(1)
    server.model.faults = [Fault(fault)]
    (label,) = label_all(new_labeler(), images).values()
    assert label.parse_step == step
    assert server.model.stats.calls == 1
    (again,) = label_all(new_labeler(), images).values()
    assert again.parse_step == step


REPLY_FAULTS = [
    ("cut_off", TruncatedReplyError, "cut off at the token limit"),
    ("endless", RepetitiveReplyError, "repeats the same words"),
    ("echo", RepetitiveReplyError, "text repeats the same words"),
    ("no_json", InvalidReplyError, "no JSON object"),
    ("wrong_types", InvalidReplyError, "image_recipient: Input should be a valid list"),
    ("empty", InvalidReplyError, "no JSON object"),
]


@pytest.mark.parametrize(("fault", "error", "message"), REPLY_FAULTS)
def test_a_bad_reply_is_asked_for_once_more_with_the_fault_named(new_labeler, server, fault, error, message):
    images = Images(2)
    server.model.faults = [Fault(fault, first_tries=1, images=(images.shas[0],))]
    labeler = new_labeler(slots=1)
    outcomes = label_all(labeler, images)
    assert all(isinstance(label, Label) for label in outcomes.values())
    assert outcomes[images.shas[0]].model_calls == 2
    assert message in server.model.stats.prompts[1]
    assert server.model.stats.loads == 1, "the second request is no reason to load the model anew"
    assert (labeler.counts.model_calls, labeler.counts.reasked, labeler.counts.refused) == (3, 1, 0)


@pytest.mark.parametrize(
    ("fault", "error", "message"), [*REPLY_FAULTS, ("overflow", ContextOverflowError, "do not fit")]
)
def test_an_image_that_cannot_be_labeled_is_refused_for_good_and_the_others_go_on(
    new_labeler, server, fault, error, message
):
    images = Images(4)
    bad = images.shas[1]
    server.model.faults = [Fault(fault, images=(bad,))]
    labeler = new_labeler(slots=1)  # so that the first image is answered before the bad one is asked about
    outcomes = label_all(labeler, images)
    assert type(outcomes[bad]) is error
    assert message in str(outcomes[bad])
    assert not outcomes[bad].can_retry
    assert sum(isinstance(label, Label) for label in outcomes.values()) == 3
    assert labeler.counts.refused == 1
    calls = server.model.stats.calls

    server.model.faults = []
    again = label_all(new_labeler(), images)
    assert type(again[bad]) is error, "the refusal is remembered"
    assert str(again[bad]) == str(outcomes[bad])
    assert server.model.stats.calls == calls


def test_a_refusal_that_is_forgotten_is_asked_about_again(new_labeler, server, ledger):
    images = Images(1)
    server.model.faults = [Fault("no_json")]
    label_all(new_labeler(), images)
    server.model.faults = []
    assert ledger.forget(images.shas) == 1
    (label,) = label_all(new_labeler(), images).values()
    assert isinstance(label, Label)


@pytest.mark.parametrize(
    ("fault", "error"), [("broken", ModelRunnerError), ("refused", ModelRunnerError), ("hang", ModelTimeoutError)]
)
def test_an_image_that_breaks_the_server_is_refused_for_now_and_the_others_go_on(new_labeler, server, fault, error):
    images = Images(4)
    bad = images.shas[1]
    server.model.faults = [Fault(fault, images=(bad,))]
    outcomes = label_all(new_labeler(timeout_seconds=0.8 if fault == "hang" else 20), images)
    assert type(outcomes[bad]) is error
    assert outcomes[bad].can_retry
    assert sum(isinstance(label, Label) for label in outcomes.values()) == 3

    server.model.faults = []
    labeler = new_labeler()
    again = label_all(labeler, images)
    assert isinstance(again[bad], Label), "what a retry can mend is not remembered"
    assert (labeler.counts.ledger_hits, labeler.counts.model_calls) == (3, 1)


@pytest.mark.parametrize(
    ("fault", "error", "can_retry"),
    [
        ("missing", ConfigurationError, False),
        ("unauthorized", ConfigurationError, False),
        ("busy", ServiceUnavailableError, True),
        ("close", ServiceUnavailableError, True),
        ("page", ServiceUnavailableError, True),
    ],
)
def test_a_server_that_fails_stops_the_step_and_every_finished_row_is_kept(
    new_labeler, server, ledger, fault, error, can_retry
):
    images = Images(30)
    server.model.latency_seconds = 0.005
    server.model.faults = [Fault(fault, images=(images.shas[10],))]
    labeler = new_labeler()
    with pytest.raises(LabelingError) as raised:
        label_all(labeler, images)
    assert type(raised.value) is error
    assert raised.value.can_retry is can_retry
    server.model.faults = []
    calls = server.model.stats.calls
    again = new_labeler()
    assert all(isinstance(label, Label) for label in label_all(again, images).values())
    assert again.counts.ledger_hits >= 7
    assert again.counts.model_calls < 30
    replies = {sha: count for sha, count in server.model.stats.images.items() if sha != images.shas[10]}
    assert set(replies.values()) == {1}, f"no image was paid for twice ({calls} calls before the failure)"


def test_a_server_that_is_not_there_stops_the_step_at_once(ledger):
    images = Images(3)
    model = OllamaVisionModel(["http://127.0.0.1:9"], MODEL, 2, 5, first_wait_seconds=0.001)
    with pytest.raises(ConfigurationError, match="ollama serve"):
        Labeler(model, ledger)
    assert not images.reads
    model.close()


def test_a_server_that_dies_half_way_leaves_every_finished_row_in_the_ledger(ledger):
    images = Images(200)
    with OllamaServer(slots=2, latency_seconds=0.05) as server:
        model = OllamaVisionModel([server.url], MODEL, 2, 5, first_wait_seconds=0.001)
        labeling = Labeler(model, ledger).label_all(images.shas, images.read)
        done = dict(next(labeling) for _ in range(8))
    with pytest.raises(ServiceUnavailableError):
        list(labeling)
    key = LabelKey(server.model.digest_of(MODEL), PROMPT_VERSION, SCHEMA_VERSION)
    assert set(done) <= set(ledger.get_many(images.shas, key))
    model.close()


def test_a_server_that_breaks_on_every_image_counts_as_unavailable(new_labeler, server):
    images = Images(MAX_FAILURES_IN_A_ROW + 30)
    server.model.faults = [Fault("broken")]
    with pytest.raises(ServiceUnavailableError, match=f"failed on {MAX_FAILURES_IN_A_ROW} images in a row.*log"):
        label_all(new_labeler(slots=1), images)
    assert len(server.model.stats.images) == MAX_FAILURES_IN_A_ROW


@pytest.mark.parametrize("count", [MAX_FAILURES_IN_A_ROW - 1, 3 * MAX_FAILURES_IN_A_ROW])
def test_a_context_that_is_too_small_for_every_image_leaves_no_refusal_that_stays(new_labeler, server, ledger, count):
    images = Images(count)
    server.model.faults = [Fault("overflow")]
    for _ in range(3):
        labeler, outcomes = new_labeler(), Outcomes()
        with contextlib.suppress(ServiceUnavailableError):
            for sha, outcome in labeler.label_all(images.shas, images.read):
                outcomes[sha] = outcome
        assert len(outcomes) >= MAX_FAILURES_IN_A_ROW - 1
        assert all(outcome.can_retry for outcome in outcomes.values())
        assert not ledger.get_many(images.shas, labeler.key)
    server.model.faults = []
    assert all(isinstance(label, Label) for label in label_all(new_labeler(), images).values())


def test_a_context_that_becomes_too_small_half_way_leaves_one_refusal_at_most(new_labeler, server, ledger):
    images = Images(12)
    server.model.faults = [Fault("overflow", images=tuple(images.shas[2:]))]
    labeler = new_labeler(slots=1)
    outcomes = label_all(labeler, images)
    refused = [sha for sha in images.shas[2:] if not outcomes[sha].can_retry]
    assert refused == [images.shas[2]]
    assert set(ledger.get_many(images.shas, labeler.key)) == set(images.shas[:3])


def test_an_image_that_cannot_be_read_concerns_its_row_only(new_labeler):
    images = Images(5)

    def read(sha: str) -> bytes:
        if sha == images.shas[2]:
            raise ImageUnavailableError("gone from the store")
        return images.read(sha)

    outcomes = dict(new_labeler().label_all(images.shas, read))
    assert isinstance(outcomes[images.shas[2]], ImageUnavailableError)
    assert sum(isinstance(label, Label) for label in outcomes.values()) == 4


def test_an_unforeseen_error_stops_everything_and_is_not_hidden(new_labeler):
    images = Images(20)

    def read(sha: str) -> bytes:
        return images.by_sha["no such key"] if sha == images.shas[5] else images.read(sha)

    with pytest.raises(KeyError, match="no such key"):
        dict(new_labeler().label_all(images.shas, read))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("pipeline-")]


@pytest.mark.parametrize("error", [GeneratorExit, KeyboardInterrupt])
def test_stopping_ends_the_threads_and_keeps_what_was_under_way(new_labeler, server, ledger, error):
    images = Images(40)
    server.model.latency_seconds = 0.1
    labeler = new_labeler()
    labeling = labeler.label_all(images.shas, images.read)
    next(labeling)
    if error is GeneratorExit:
        labeling.close()
    else:
        with pytest.raises(KeyboardInterrupt):
            labeling.throw(KeyboardInterrupt())
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("pipeline-")]
    key = LabelKey(server.model.digest_of(MODEL), PROMPT_VERSION, SCHEMA_VERSION)
    assert len(ledger.get_many(images.shas, key)) == server.model.stats.calls < 40


def test_images_are_read_ahead_but_never_many(new_labeler, server):
    images = Images(60)
    server.model.latency_seconds = 0.005
    most_ahead = 0

    def read(sha: str) -> bytes:
        nonlocal most_ahead
        data = images.read(sha)
        most_ahead = max(most_ahead, len(images.reads) - server.model.stats.calls)
        return data

    dict(new_labeler().label_all(images.shas, read))
    assert 1 < most_ahead <= 3 * 4, "one in each slot, one waiting for each, one being read for each"


def test_a_slot_is_never_given_more_than_one_request(new_labeler, server):
    server.model.latency_seconds = 0.05
    label_all(new_labeler(), Images(40))
    assert server.model.stats.max_in_flight == 4


def test_two_runs_at_once_ask_about_each_image_once(new_labeler, server):
    images = Images(40)
    server.model.latency_seconds = 0.01
    labelers = [new_labeler(slots=2) for _ in range(2)]
    results: list[Outcomes] = []
    threads = [threading.Thread(target=lambda it=it: results.append(label_all(it, images))) for it in labelers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert server.model.stats.calls == 40
    assert set(server.model.stats.images.values()) == {1}
    first, second = ({sha: label.labels for sha, label in result.items()} for result in results)
    assert first == second
    assert sum(labeler.counts.model_calls for labeler in labelers) == 40
    assert sum(labeler.counts.ledger_hits for labeler in labelers) == 40


def test_many_slots_work_on_few_database_connections(server, ledger):
    server.renew(slots=48, latency_seconds=0.01)
    images = Images(150)
    model = OllamaVisionModel([server.url], MODEL, 48, 20)
    assert all(isinstance(label, Label) for label in label_all(Labeler(model, ledger), images).values())
    model.close()


LABEL_IN_A_PROCESS = """
import hashlib, io, json, sys
from PIL import Image
from labeling_assets.services.ledger import LabelLedger
from labeling_assets.services.postgres import create_engine
from labeling_assets.services.vision.labeler import Labeler
from labeling_assets.services.vision.ollama import OllamaVisionModel

url, postgres_url, count, slots = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
def jpeg(number):
    buffer = io.BytesIO()
    Image.new("RGB", (64 + number, 64)).save(buffer, "JPEG")
    return buffer.getvalue()
images = {hashlib.sha256(data).hexdigest(): data for data in map(jpeg, range(count))}
model = OllamaVisionModel([url], "qwen2.5vl:latest", slots, 20)
labeler = Labeler(model, LabelLedger(create_engine(postgres_url)))
for sha, label in labeler.label_all(images, images.__getitem__):
    print(json.dumps([sha, label.labels.model_dump()]), flush=True)
"""


def test_kill_9_costs_at_most_the_requests_under_way(server, postgres_url, engine):
    count, slots, kills = 60, 4, 2
    server.model.latency_seconds = 0.03
    command = [sys.executable, "-c", LABEL_IN_A_PROCESS, server.url, postgres_url, str(count), str(slots)]
    for _ in range(kills):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            for _ in range(9):
                assert process.stdout is not None
                process.stdout.readline()
            os.kill(process.pid, signal.SIGKILL)
    last = subprocess.run(command, capture_output=True, text=True, check=True)
    labels = dict(map(json.loads, last.stdout.splitlines()))
    assert len(labels) == count
    assert count <= server.model.stats.calls <= count + kills * slots
    with engine.connect() as connection:
        assert connection.execute(sa.text("select count(*) from labeling.label_ledger")).scalar_one() == count


def test_the_program_ends_although_a_labeling_was_left_open(server, postgres_url, engine):
    left_open = LABEL_IN_A_PROCESS.replace("for sha, label in labeler", "labeling = labeler").replace(
        ":\n    print(json.dumps([sha, label.labels.model_dump()]), flush=True)",
        "\nnext(labeling)\nraise SystemExit(7)",
    )
    command = [sys.executable, "-c", left_open, server.url, postgres_url, "50", "2"]
    assert subprocess.run(command, timeout=60, check=False).returncode == 7


def test_a_label_error_is_what_the_rows_of_an_image_get(new_labeler, server):
    images = Images(1)
    server.model.faults = [Fault("no_json")]
    (outcome,) = label_all(new_labeler(), images).values()
    assert isinstance(outcome, LabelError)
    assert outcome.remedy.startswith("The reason is remembered")
