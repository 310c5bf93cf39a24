"""Labels shared among near duplicates, with a real ledger and a server that speaks Ollama's protocol."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any

import pytest
import sqlalchemy as sa
from PIL import Image

from labeling_assets.errors import InvalidReplyError, ModelRunnerError
from labeling_assets.products.images import ImageFacts
from labeling_assets.products.labels import Label
from labeling_assets.services.images.history import ImageHistory, Remembered
from labeling_assets.services.ledger import LabelLedger
from labeling_assets.services.near_duplicates import NearDuplicates
from labeling_assets.services.vision.label_sharing import label_sharing
from labeling_assets.services.vision.labeler import Labeler
from labeling_assets.services.vision.ollama import OllamaVisionModel
from labeling_assets_tests.standins.ollama import OllamaServer
from labeling_assets_tests.standins.replies import Fault

BITS = 6
BASE = 0x0F0F_3C3C_5A5A_9696
FLAT = "8000000000000000"
Outcomes = dict[str, Any]


def jpeg(number: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (64 + number, 64)).save(buffer, "JPEG")
    return buffer.getvalue()


JPEGS = dict(sorted((hashlib.sha256(body).hexdigest(), body) for body in map(jpeg, range(12))))
SHAS = list(JPEGS)
"""In the order in which images become representatives."""


def flipped(*bits: int) -> str:
    number = BASE
    for bit in bits:
        number ^= 1 << bit
    return f"{number:016x}"


FAR = flipped(*range(32))
TWO_GROUPS = {
    SHAS[0]: flipped(),
    SHAS[1]: flipped(1, 2),
    SHAS[2]: flipped(40, 41, 42),
    SHAS[3]: FAR,
    SHAS[4]: flipped(*range(31)),
}


@pytest.fixture
def server(running_server: OllamaServer) -> OllamaServer:
    running_server.renew(slots=4)
    return running_server


@pytest.fixture
def new_labeler(server: OllamaServer, engine: sa.Engine) -> Iterator[Callable[..., Labeler]]:
    models: list[OllamaVisionModel] = []

    def make(slots: int = 4) -> Labeler:
        models.append(OllamaVisionModel([server.url], "qwen2.5vl:latest", slots, 20.0, first_wait_seconds=0.001))
        return Labeler(models[-1], LabelLedger(engine))

    yield make
    for model in models:
        model.close()


def remember(engine: sa.Engine, images: Mapping[str, str]) -> None:
    """As images that were fetched."""
    sizes = {name: 100 for name in ImageFacts.__dataclass_fields__ if name not in ("format", "phash")}
    facts = {sha: ImageFacts(format="JPEG", phash=phash, **sizes) for sha, phash in images.items()}
    ImageHistory(engine).remember({f"http://host/{sha}": Remembered(sha256=sha, facts=facts[sha]) for sha in images})


def label(labeler: Labeler, engine: sa.Engine, images: Mapping[str, str]) -> Outcomes:
    remember(engine, images)
    outcomes = list(label_sharing(labeler, images, JPEGS.__getitem__, NearDuplicates(engine, BITS)))
    assert sorted(sha for sha, _ in outcomes) == sorted(images)
    return dict(outcomes)


def sources(outcomes: Outcomes) -> dict[str, str]:
    """Who took whose label, by their numbers."""
    return {
        f"{SHAS.index(sha)}": f"{SHAS.index(each.shared_from)}"
        for sha, each in sorted(outcomes.items())
        if isinstance(each, Label) and each.shared_from
    }


def test_one_image_of_each_group_is_asked_about_and_the_others_take_its_label(new_labeler, engine, server):
    labeler = new_labeler()
    outcomes = label(labeler, engine, TWO_GROUPS)
    assert sources(outcomes) == {"1": "0", "2": "0", "4": "3"}
    assert sorted(server.model.stats.images) == [SHAS[0], SHAS[3]]
    assert outcomes[SHAS[1]].labels == outcomes[SHAS[0]].labels
    counts = labeler.counts
    assert (counts.rows, counts.distinct, counts.model_calls, counts.shared) == (5, 5, 2, 3)


def test_a_second_run_asks_nothing_and_shares_the_same(new_labeler, engine, server):
    first = label(new_labeler(), engine, TWO_GROUPS)
    labeler = new_labeler()
    second = label(labeler, engine, dict(reversed(TWO_GROUPS.items())))
    assert sources(second) == sources(first)
    assert (labeler.counts.model_calls, labeler.counts.ledger_hits, labeler.counts.shared) == (0, 2, 3)


@pytest.mark.parametrize("finished", range(5))
def test_a_run_that_stops_half_way_goes_on_as_it_would_have(new_labeler, engine, server, finished):
    remember(engine, TWO_GROUPS)
    outcomes = label_sharing(new_labeler(1), TWO_GROUPS, JPEGS.__getitem__, NearDuplicates(engine, BITS))
    assert len(list(islice(outcomes, finished))) == finished
    outcomes.close()
    assert sources(label(new_labeler(), engine, TWO_GROUPS)) == {"1": "0", "2": "0", "4": "3"}
    assert server.model.stats.images == {SHAS[0]: 1, SHAS[3]: 1}


def test_an_image_of_another_day_gives_its_label(new_labeler, engine, server):
    label(new_labeler(), engine, {SHAS[9]: flipped(7)})
    outcomes = label(new_labeler(), engine, TWO_GROUPS)
    assert sources(outcomes) == {"0": "9", "1": "9", "2": "9", "4": "3"}
    assert server.model.stats.images == {SHAS[9]: 1, SHAS[3]: 1}


def test_the_nearest_labeled_image_gives_its_label(new_labeler, engine, server):
    images = {SHAS[0]: flipped(), SHAS[1]: flipped(*range(4)), SHAS[2]: flipped(*range(7))}
    assert sources(label(new_labeler(), engine, images)) == {"1": "2"}
    assert sources(label(new_labeler(), engine, images)) == {"1": "2"}


def test_an_image_keeps_the_label_that_it_has(new_labeler, engine, server):
    own = dict(new_labeler().label_all(TWO_GROUPS, JPEGS.__getitem__))
    outcomes = label(new_labeler(), engine, TWO_GROUPS)
    assert sources(outcomes) == {}
    assert {sha: each.labels for sha, each in outcomes.items()} == {sha: each.labels for sha, each in own.items()}
    assert server.model.stats.calls == 5


@pytest.mark.parametrize(("fault", "error"), [("no_json", InvalidReplyError), ("broken", ModelRunnerError)])
def test_where_a_representative_gets_no_label_the_next_image_is_asked_about(new_labeler, engine, server, fault, error):
    server.model.faults = [Fault(fault, images=(SHAS[0],))]
    outcomes = label(new_labeler(), engine, TWO_GROUPS)
    assert isinstance(outcomes[SHAS[0]], error)
    assert sources(outcomes) == {"2": "1", "4": "3"}
    assert set(server.model.stats.images) == {SHAS[0], SHAS[1], SHAS[3]}


def test_a_group_of_which_no_image_can_be_labeled_is_refused_as_a_whole(new_labeler, engine, server):
    server.model.faults = [Fault("no_json", images=tuple(SHAS[:3]))]
    outcomes = label(new_labeler(), engine, TWO_GROUPS)
    assert {type(outcomes[sha]) for sha in SHAS[:3]} == {InvalidReplyError}
    assert sources(outcomes) == {"4": "3"}
    again = label(new_labeler(), engine, TWO_GROUPS)
    assert {sha: type(each) for sha, each in again.items()} == {sha: type(each) for sha, each in outcomes.items()}


def test_blank_images_share_nothing(new_labeler, engine, server):
    assert sources(label(new_labeler(), engine, dict.fromkeys(SHAS[:4], FLAT))) == {}
    assert server.model.stats.calls == 4


def test_nothing_to_label_asks_nothing(new_labeler, engine, server):
    assert label(new_labeler(), engine, {}) == {}
    assert server.model.stats.requests == 0
