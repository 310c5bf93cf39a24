"""`labeling compare` over real PostgreSQL and servers that speak Ollama's and OpenAI's protocol."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click.testing
import pytest
import sqlalchemy as sa
from click.testing import CliRunner

from labeling_assets.cli import cli
from labeling_assets.errors import ConfigurationError
from labeling_assets.products.labels import SCHEMA_VERSION
from labeling_assets.products.prompt import PROMPT_VERSION, build_prompt
from labeling_assets.services.comparison import Sample, draw_sample, read_side
from labeling_assets.services.connect import close_services
from labeling_assets.services.images.files import model_jpeg_path
from labeling_assets.services.ledger import LabelKey, LabelLedger, LedgerEntry
from labeling_assets_tests.services.compared_shop import LABELED_DAY, TODAY, UNLABELED_DAY, ComparedShop, label
from labeling_assets_tests.standins.ollama import OllamaServer
from labeling_assets_tests.standins.replies import Fault

ACTIVE, OTHER = "qwen2.5vl:latest", "other:7b"
VISION = ["completion", "vision"]


@pytest.fixture
def shop(tmp_path: Path, home: Path) -> ComparedShop:
    return ComparedShop(tmp_path / "storage", home)


@pytest.fixture
def ollama() -> Iterator[OllamaServer]:
    with OllamaServer(slots=2, models={ACTIVE: VISION, OTHER: VISION}) as server:
        yield server
    close_services()


Compare = Any


@pytest.fixture
def compare(home: Path, shop: ComparedShop, engine: sa.Engine, postgres_url: str, ollama: OllamaServer) -> Compare:
    """Runs the command in this home; what is not given has a value."""
    environment = {
        "HOME": str(home),
        "STORAGE": str(shop.storage),
        "POSTGRES_URL": postgres_url,
        "MILVUS_URI": "http://127.0.0.1:1",  # never asked
        "VISION_BACKEND": "ollama",
        "OLLAMA_HOSTS": ollama.url,
        "OPENAI_BASE_URL": f"{ollama.url}/v1",
        "VISION_SLOTS": "2",
        "PRICE_PROMPT_TOKENS": "1",
    }

    def run(*arguments: object, a: str = ACTIVE, b: str = OTHER, **changes: str) -> click.testing.Result:
        given = {f"LABELING_{name}": value for name, value in (environment | changes).items()}
        words = ["compare", "--a", a, "--b", b, "--sample", "5", *map(str, arguments)]
        return CliRunner().invoke(cli, words, env=given)

    return run


def entry(**changes: Any) -> LedgerEntry:
    return LedgerEntry("other", label(**changes), None, None, "repaired", 2, 2000, 300, 4.0)


def test_two_models_are_asked_once_about_each_image_and_never_again(compare: Compare, ollama: OllamaServer) -> None:
    first = compare()
    assert first.exit_code == 0, first.output
    assert "5 images of the days" in first.output
    assert "5 of 5 (100.0 %)" in first.output
    assert ollama.model.stats.calls == 10
    assert ollama.model.stats.loads == 2, "the server changes its model once"
    assert compare().output == first.output
    assert ollama.model.stats.calls == 10


def test_scores_page_and_result_tell_what_the_ledger_says(
    compare: Compare, shop: ComparedShop, engine: sa.Engine, ollama: OllamaServer, tmp_path: Path
) -> None:
    ledger = LabelLedger(engine)
    key_a, key_b = (LabelKey(ollama.model.digest_of(name), PROMPT_VERSION, SCHEMA_VERSION) for name in (ACTIVE, OTHER))
    for sha in shop.shas:
        ledger.put(sha, key_a, entry())
        ledger.put(sha, key_b, entry(occasion=["Christmas"] if sha == shop.shas[0] else ["Mom"]))
    page, result = tmp_path / "page.html", tmp_path / "result.json"
    ran = compare("--out", page, "--json", result)
    assert ran.exit_code == 0, ran.output
    assert ollama.model.stats.calls == 0
    found = json.loads(result.read_text())
    assert (found["images"], found["with_truth"], found["labeled_by_both"]) == (5, 1, 5)
    assert (found["a"]["name"], found["b"]["name"]) == (f"ollama:{ACTIVE}@1", f"ollama:{OTHER}@1")
    occasion = next(each for each in found["fields"] if each["field"] == "occasion")
    assert (occasion["agreement"], occasion["flip_rate"]) == (0.8, 0.2)
    assert (occasion["a"]["f1"], occasion["b"]["f1"]) == (1.0, 0.0)
    assert found["a"]["parse_steps"] == {"repaired": 5}
    assert (found["a"]["prompt_tokens"], found["a"]["model_calls"], found["a"]["seconds"]) == (10_000, 10, 20.0)
    assert found["a"]["cost"] == pytest.approx(0.01)
    assert found["compared"][0]["sha256"] == shop.shas[0]
    html = page.read_text()
    assert html.count("data:image/jpeg;base64,") == 5
    assert "&lt;b&gt;Mug&lt;/b&gt; &amp; more" in html
    assert "<b>Mug" not in html
    assert not list(tmp_path.glob(".*")), "nothing unfinished is left"


def test_two_prompts_of_one_model_are_kept_apart(compare: Compare, ollama: OllamaServer, tmp_path: Path) -> None:
    mine = tmp_path / "my prompt.md"
    mine.write_text("Label the picture. {schema}")
    ran = compare(a="@1", b=f"@{mine}")
    assert ran.exit_code == 0, ran.output
    assert ollama.model.stats.calls == 10
    assert {prompt == build_prompt() for prompt in ollama.model.stats.prompts} == {True, False}
    assert sum(prompt.startswith("Label the picture.") for prompt in ollama.model.stats.prompts) == 5


def test_a_server_of_another_kind_can_be_the_other_side(compare: Compare, ollama: OllamaServer) -> None:
    ran = compare(b=f"openai:{ACTIVE}")
    assert ran.exit_code == 0, ran.output
    assert f"openai:{ACTIVE}@1" in ran.output
    assert ollama.model.stats.calls == 10


def test_images_without_a_usable_label_are_counted_and_told(
    compare: Compare, shop: ComparedShop, ollama: OllamaServer
) -> None:
    ollama.model.faults = [Fault("no_json", images=(shop.model_shas[1],))]
    ran = compare()
    assert ran.exit_code == 0, ran.output
    assert "4 of 5 (80.0 %)" in ran.output
    assert "InvalidReplyError 1" in ran.output


def test_images_that_the_store_has_lost_are_left_out(compare: Compare, shop: ComparedShop) -> None:
    (shop.storage / model_jpeg_path(shop.shas[2])).unlink()
    ran = compare()
    assert ran.exit_code == 0, ran.output
    assert "4 images of the days" in ran.output
    assert "1 images were drawn that the image store does not have." in ran.output


def test_one_side_against_itself_is_called_so(compare: Compare, ollama: OllamaServer) -> None:
    ran = compare(b=ACTIVE)
    assert ran.exit_code == 0, ran.output
    assert "Both sides are the same model" in ran.output
    assert ollama.model.stats.calls == 5


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"b": "nowhere:1b"}, "ollama pull nowhere:1b"),
        ({"b": f"{OTHER}@9"}, "Prompt '9' is neither a version nor a file."),
        ({"b": f"{OTHER}@"}, "Prompt '' is neither a version nor a file."),
        ({"b": "openai:"}, "names no model"),
        ({"b": "gpt", "VISION_BACKEND": "embedded"}, "Write embedded, ollama:gpt or openai:gpt."),
        ({"b": "openai:gpt"}, "it has: "),
    ],
)
def test_what_is_not_there_is_told_in_one_line_before_anything_is_paid(
    compare: Compare, ollama: OllamaServer, given: dict[str, str], message: str
) -> None:
    if "VISION_BACKEND" in given:
        given |= {"a": "embedded"}
    ran = compare(**given)
    assert ran.exit_code == 2
    assert message in ran.output
    assert len(ran.output.splitlines()) == 1
    assert ollama.model.stats.calls == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--start", TODAY, "--end", LABELED_DAY), "is after"),
        (("--start", TODAY, "--end", TODAY), "No image is known"),
        (("--out", "/no such folder/page.html"), "is no folder"),
    ],
)
def test_a_question_that_has_no_answer_is_refused(
    compare: Compare, ollama: OllamaServer, arguments: tuple[object, ...], message: str
) -> None:
    ran = compare(*arguments)
    assert ran.exit_code == 2
    assert message in ran.output
    assert ollama.model.stats.calls == 0


def test_images_are_drawn_by_the_product_type_of_their_label_else_by_shop_and_day(shop: ComparedShop) -> None:
    drawn = draw_sample(str(shop.storage), Sample(LABELED_DAY, UNLABELED_DAY, 10))
    assert {image.sha256 for image in drawn} == set(shop.shas)
    assert [image.stratum for image in drawn] == [
        *["Website / Store / " + str(UNLABELED_DAY)] * 2,
        *["mug"] * 2,
        "t-shirt",
    ]
    assert len({image.stratum for image in draw_sample(str(shop.storage), Sample(LABELED_DAY, UNLABELED_DAY, 3))}) == 3


@pytest.mark.parametrize(
    ("text", "backend", "model"),
    [
        ("", "ollama", ACTIVE),
        ("embedded", "embedded", ACTIVE),
        ("llava", "ollama", "llava"),
        ("llava:13b@1", "ollama", "llava:13b"),
        ("ollama:org/llava:13b", "ollama", "org/llava:13b"),
        ("openai:Qwen/Qwen2.5-VL-7B-Instruct@1", "openai", "Qwen/Qwen2.5-VL-7B-Instruct"),
    ],
)
def test_a_side_is_read_as_it_is_meant(text: str, backend: str, model: str) -> None:
    choice = read_side(text, "ollama", ACTIVE)
    assert (choice.backend, choice.model, choice.prompt.version) == (backend, model, PROMPT_VERSION)


def test_a_bare_name_means_nothing_to_the_embedded_backend() -> None:
    with pytest.raises(ConfigurationError, match="names no model"):
        read_side("llava", "embedded", ACTIVE)
