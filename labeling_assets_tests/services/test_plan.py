"""`labeling plan` on a real database: what it counts, what it cannot know, and that it asks nobody."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from click.testing import CliRunner, Result
from pydantic import SecretStr

from labeling_assets.cli import cli
from labeling_assets.errors import ConfigurationError, InvalidImageError
from labeling_assets.products.images import ImageFacts
from labeling_assets.products.labels import SCHEMA_VERSION, ProductLabels
from labeling_assets.products.prompt import PROMPT_VERSION
from labeling_assets.products.queries import SOURCE_COLUMNS
from labeling_assets.products.records import LABEL_LISTS
from labeling_assets.services.connect import close_services
from labeling_assets.services.images.fetcher import Validators
from labeling_assets.services.images.history import ImageHistory, Remembered
from labeling_assets.services.ledger import LabelKey, LabelLedger, LedgerEntry
from labeling_assets.services.plan import Plan, plan_days
from labeling_assets.settings import Settings
from labeling_assets_tests.standins.ollama import OllamaServer

ZONE = Settings().zone
MONDAY, TUESDAY = dt.date(2026, 3, 2), dt.date(2026, 3, 3)
TABLE = "ai_craw.product_marketing_summary"
FACTS = ImageFacts(
    size_bytes=100,
    width_px=64,
    height_px=64,
    format="JPEG",
    phash="0" * 16,
    model_size_bytes=90,
    model_width_px=64,
    model_height_px=64,
)
NOWHERE = "http://127.0.0.1:9"
LABELS = ProductLabels.model_validate(
    {name: ["x"] for name in LABEL_LISTS} | {"trademark_level": "No TM", "main_subject": "a cat", "text": ""}
)


def sha(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


@dataclass
class Shop:
    """A source table, what is remembered of its images, and a ledger."""

    engine: sa.Engine
    settings: Settings
    digest: str

    def add(self, id_: str, url: str, day: dt.date = MONDAY, second: int = 0) -> None:
        at = dt.datetime.combine(day, dt.time(12, 0, second), ZONE)
        with self.engine.begin() as connection:
            connection.execute(
                sa.text(f"insert into {TABLE} (product_id, image, published_at) values (:id, :url, :at)"),
                {"id": id_, "url": url, "at": at},
            )

    def fetched(self, url: str, content: str) -> None:
        ImageHistory(self.engine).remember({url: Remembered(Validators(), sha(content), FACTS)})

    def labeled(self, content: str, digest: str | None = None, prompt: str = PROMPT_VERSION, **changes: Any) -> None:
        values = {"model_calls": 1, "prompt_tokens": 2_000, "output_tokens": 300, "seconds": 2.0} | changes
        entry = LedgerEntry("qwen2.5vl:latest", LABELS, None, None, "direct", **values)
        LabelLedger(self.engine).put(sha(content), LabelKey(digest or self.digest, prompt, SCHEMA_VERSION), entry)

    def plan(self, first: dt.date = MONDAY, last: dt.date = MONDAY, **settings: Any) -> Plan:
        return plan_days(self.settings.model_copy(update=settings), first, last)


@pytest.fixture(scope="module")
def ollama() -> Iterator[OllamaServer]:
    with OllamaServer() as server:
        yield server


@pytest.fixture
def shop(engine: sa.Engine, postgres_url: str, ollama: OllamaServer) -> Iterator[Shop]:
    ollama.renew(slots=4)
    columns = ", ".join(f"{name} {kind}" for name, kind in SOURCE_COLUMNS.items())
    with engine.begin() as connection:
        connection.execute(sa.text("create schema ai_craw"))
        connection.execute(sa.text(f"create table {TABLE} ({columns})"))
    settings = Settings(
        postgres_url=SecretStr(postgres_url),
        vision_backend="ollama",
        ollama_hosts=(ollama.url,),
        vision_slots=4,
        price_output_tokens=10.0,
    )
    yield Shop(engine, settings, ollama.model.digest_of("qwen2.5vl:latest"))
    close_services()


def test_images_are_counted_by_content_and_unknown_urls_one_by_one(shop: Shop) -> None:
    """Seven rows: one product twice, two URLs of one known content, one labeled, one unusable, two never fetched."""
    shop.add("twice", "http://h/old", second=0)
    shop.add("twice", "http://h/labeled", second=1)
    shop.add("same 1", "http://h/1")
    shop.add("same 2", " http://h/2 ")
    shop.add("broken", "http://h/broken")
    shop.add("new 1", "http://h/new")
    shop.add("new 2", "http://h/new")
    shop.add("new 3", "http://h/newer")
    shop.fetched("http://h/1", "one picture")
    shop.fetched("http://h/2", "one picture")
    shop.fetched("http://h/labeled", "labeled")
    ImageHistory(shop.engine).remember({"http://h/broken": Remembered(error=InvalidImageError("no image"))})
    shop.labeled("labeled")
    content = shop.plan().total.content
    assert (content.rows, content.products, content.images) == (8, 7, 5)
    assert (content.never_fetched, content.unusable, content.ledger_hits) == (2, 1, 1)
    assert content.to_label == 3


def test_an_image_of_two_days_counts_for_the_first(shop: Shop) -> None:
    for day in (MONDAY, TUESDAY):
        shop.add(f"known {day}", "http://h/known", day)
        shop.add(f"unknown {day}", "http://h/unknown", day)
    shop.fetched("http://h/known", "known")
    plan = shop.plan(MONDAY, TUESDAY)
    assert [each.content.to_label for each in plan.days] == [2, 0]
    assert [each.content.of_earlier_days for each in plan.days] == [0, 2]
    assert plan.total.content.to_label == 2


def test_no_image_is_fetched_and_no_model_is_asked(shop: Shop, ollama: OllamaServer) -> None:
    shop.add("a", f"{NOWHERE}/a.jpg")
    assert shop.plan().total.content.never_fetched == 1
    assert ollama.model.stats.requests == 0


def test_estimates_are_of_labels_of_the_model_and_prompt_in_use(shop: Shop) -> None:
    shop.add("a", "http://h/a")
    for number in range(11):
        shop.labeled(f"ours {number}", output_tokens=100 * number, model_calls=1 + (number == 0))
    shop.labeled("other prompt", prompt="0", output_tokens=100_000)
    plan = shop.plan()
    use, cost = plan.use, plan.total.estimate.cost
    assert use is not None
    assert cost is not None
    assert (use.images, use.source, round(use.calls, 3)) == (11, "this model and prompt", round(12 / 11, 3))
    assert (use.output_tokens.low, use.output_tokens.mean, use.output_tokens.high) == (100, 500, 900)
    assert (round(cost.low, 6), round(cost.mean, 6), round(cost.high, 6)) == (0.001, 0.005, 0.009)


@pytest.mark.parametrize(
    ("labels", "source"),
    [
        ([("d0", "0", 10), (None, "0", 20)], "this model with other prompts"),
        ([("d0", "0", 10)], "other models"),
    ],
)
def test_where_there_is_none_labels_of_other_prompts_and_models_do(
    shop: Shop, labels: list[tuple[str | None, str, int]], source: str
) -> None:
    for number, (digest, prompt, tokens) in enumerate(labels):
        shop.labeled(f"label {number}", digest, prompt, output_tokens=tokens)
    use = shop.plan().use
    assert use is not None
    assert (use.source, use.output_tokens.mean) == (source, labels[-1][2])


def test_labels_without_tokens_tell_nothing_of_a_model_that_reads_some(shop: Shop) -> None:
    """Such as those of the embedded labeler, from which a shop comes to its first priced model."""
    shop.add("a", "http://h/a")
    for number in range(3):
        shop.labeled(f"embedded {number}", "embedded", prompt_tokens=0, output_tokens=0)
    plan = shop.plan()
    assert (plan.use, plan.total.estimate.cost, plan.total.estimate.calls) == (None, None, 1)
    shop.labeled("of another model", "d0", output_tokens=100)
    use = shop.plan().use
    assert use is not None
    assert (use.images, use.source, use.output_tokens.mean) == (1, "other models", 100)


def test_a_model_that_counts_no_tokens_is_judged_by_its_own_labels(shop: Shop) -> None:
    shop.labeled("ours", prompt="0", prompt_tokens=0, output_tokens=0, seconds=7.0)
    shop.labeled("of another model", "d0")
    use = shop.plan().use
    assert use is not None
    assert (use.source, use.seconds.mean) == ("this model with other prompts", 7.0)


def test_where_the_slots_are_to_be_found_hours_are_those_of_one_request_at_a_time_to_each_server(shop: Shop) -> None:
    shop.add("a", "http://h/a")
    shop.labeled("seen before", seconds=3_600.0)
    hours = [shop.plan(vision_slots=slots).total.estimate.hours for slots in (4, 0)]
    assert [spread.mean for spread in hours if spread] == [0.25, 1.0]
    plan = shop.plan(vision_slots=0, ollama_hosts=(*shop.settings.ollama_hosts, NOWHERE))
    assert (plan.slots, plan.are_slots_known) == (2, False)


def test_hits_are_counted_by_the_name_of_a_model_that_does_not_answer(shop: Shop) -> None:
    shop.add("a", "http://h/a")
    shop.fetched("http://h/a", "a")
    shop.labeled("a", "an older digest")
    assert shop.plan().total.content.ledger_hits == 0
    plan = shop.plan(ollama_hosts=(NOWHERE,))
    assert plan.total.content.ledger_hits == 1
    assert (plan.version.model, plan.version.model_digest) == ("qwen2.5vl:latest", "")
    assert NOWHERE in plan.problem


def test_days_in_the_wrong_order_are_refused(shop: Shop) -> None:
    with pytest.raises(ConfigurationError, match="is after"):
        shop.plan(TUESDAY, MONDAY)


def run(shop: Shop, home: Path, *arguments: str, **settings: str) -> Result:
    environment = {
        "LABELING_HOME": str(home),
        "LABELING_POSTGRES_URL": shop.settings.postgres_url.get_secret_value() if shop.settings.postgres_url else "",
        "LABELING_MILVUS_URI": NOWHERE,
        "LABELING_VISION_BACKEND": "ollama",
        "LABELING_OLLAMA_HOSTS": shop.settings.ollama_hosts[0],
    } | {f"LABELING_{name}": value for name, value in settings.items()}
    arguments = ("plan", "--start", str(MONDAY), "--end", str(TUESDAY), *arguments)
    return CliRunner().invoke(cli, list(arguments), env=environment)


def test_the_command_prints_a_table_and_writes_json(shop: Shop, home: Path) -> None:
    shop.add("a", "http://h/a")
    shop.labeled("seen before")
    result = run(shop, home, "--json", str(home / "plan.json"), PRICE_OUTPUT_TOKENS="1000")
    assert result.exit_code == 0, result.output
    for text in ("2026-03-02", "to label", "0.30", "never fetched", "Estimated from 1 labels of this model and prompt"):
        assert text in result.output
    written = json.loads((home / "plan.json").read_text())
    assert written["total"]["content"]["to_label"] == 1
    assert [day["day"] for day in written["days"]] == ["2026-03-02", "2026-03-03"]
    assert written["total"]["estimate"]["cost"]["mean"] == 0.3


def test_the_command_says_that_slots_are_to_be_found(shop: Shop, home: Path) -> None:
    shop.add("a", "http://h/a")
    shop.labeled("seen before")
    assert "the slots are to be found" in run(shop, home, VISION_SLOTS="0").output
    assert "the slots are to be found" not in run(shop, home, VISION_SLOTS="2").output


def test_the_command_says_what_it_cannot_know(shop: Shop, home: Path) -> None:
    shop.add("a", "http://h/a")
    result = run(shop, home, OLLAMA_HOSTS=NOWHERE)
    assert result.exit_code == 0, result.output
    assert "nothing is known of tokens, hours and cost" in result.output
    assert "digest is not known" in result.output
    assert "cost" not in result.output.splitlines()[1]
