"""Labels that contradict their titles are found in the files, forgotten by the ledger, and made anew by the command."""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from click.testing import CliRunner
from milvus_samples import product
from pydantic import SecretStr
from upath import UPath

from labeling_assets.cli import cli
from labeling_assets.errors import ConfigurationError
from labeling_assets.products.labels import SCHEMA_VERSION, ProductLabels
from labeling_assets.products.prompt import PROMPT_VERSION
from labeling_assets.products.queries import SOURCE_COLUMNS
from labeling_assets.products.records import LABEL_FIELDS, LabeledProduct, to_table
from labeling_assets.services.connect import Services, close_services
from labeling_assets.services.day_tables import read_table, write_table
from labeling_assets.services.ledger import LabelKey, LabelLedger, LedgerEntry
from labeling_assets.services.relabel import contradicting_products, forget_labels, labeled_days, reach_of
from labeling_assets.settings import Settings
from labeling_assets_tests.services.faulty_image_host import content, image_host, jpeg
from labeling_assets_tests.standins.ollama import OllamaServer

ZONE = Settings().zone
DAY = dt.datetime.now(ZONE).date() - dt.timedelta(days=3)
NEXT = DAY + dt.timedelta(days=1)
PHONE_CASE = {"product_type": ["Phone case"]}
ANY_PRODUCT = "Mug, T-shirt, Hoodie, Plaque or Blanket"
"""Agrees with whatever product the stand-in for Ollama sees."""


def labeled(name: str, day: dt.date, title: str | None = ANY_PRODUCT, **changes: Any) -> LabeledProduct:
    return LabeledProduct.model_validate(product(name, day, title=title, **changes).model_dump())


def write_day(storage: Path, day: dt.date, *products: LabeledProduct) -> None:
    write_table(UPath(storage / "qwen_labels" / f"{day}.parquet"), to_table(products, LabeledProduct))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Two days: `wrong` contradicts its title; `twin`, on the next day, has the same image and no title."""
    wrong = labeled("wrong", DAY, **PHONE_CASE)
    write_day(tmp_path, DAY, wrong, labeled("right", DAY, "Phone case", **PHONE_CASE))
    write_day(tmp_path, NEXT, labeled("twin", NEXT, None, image_sha256=wrong.image_sha256, **PHONE_CASE))
    return Settings(storage=str(tmp_path))


def test_products_that_contradict_their_title_are_found_with_the_evidence(settings: Settings) -> None:
    days = labeled_days(settings, DAY - dt.timedelta(days=5), NEXT + dt.timedelta(days=5))
    assert days == [DAY, NEXT]
    (found,) = contradicting_products(settings, days)
    assert (found.day, found.id_sanpham, found.title) == (DAY, "wrong", ANY_PRODUCT)
    assert "Phone case" in str(found.contradictions[0])


def test_every_day_with_one_of_the_images_is_concerned(settings: Settings) -> None:
    products = contradicting_products(settings, [DAY, NEXT])
    reach = reach_of(settings, [DAY, NEXT], products)
    assert (reach.days, reach.other_products) == ([DAY, NEXT], 1)


def test_a_shared_label_is_forgotten_where_it_was_made(tmp_path: Path) -> None:
    """The day of the image that was labeled is concerned as well, and so is its product."""
    wrong = labeled("wrong", DAY, label_shared_from="c" * 64, **PHONE_CASE)
    write_day(tmp_path, DAY, wrong)
    write_day(tmp_path, NEXT, labeled("labeled", NEXT, None, image_sha256="c" * 64, **PHONE_CASE))
    settings = Settings(storage=str(tmp_path))
    (found,) = contradicting_products(settings, [DAY, NEXT])
    assert (found.id_sanpham, found.image_sha256) == ("wrong", "c" * 64)
    assert reach_of(settings, [DAY, NEXT], [found]).days == [DAY, NEXT]


def test_a_storage_without_labels_has_no_days(tmp_path: Path) -> None:
    assert labeled_days(Settings(storage=str(tmp_path / "none")), DAY, NEXT) == []


@pytest.fixture
def ollama() -> Iterator[OllamaServer]:
    with OllamaServer(slots=2) as server:
        yield server
    close_services()


def entry(**changes: Any) -> LedgerEntry:
    values = {name: getattr(product(), name) for name in LABEL_FIELDS} | changes
    return LedgerEntry("qwen", ProductLabels.model_validate(values), None, None, "direct", 1, 10, 10, 1.0)


def key_of(ollama: OllamaServer) -> LabelKey:
    return LabelKey(ollama.model.digest_of("qwen2.5vl:latest"), PROMPT_VERSION, SCHEMA_VERSION)


def test_the_labels_of_exactly_those_images_are_forgotten(
    settings: Settings, engine: sa.Engine, postgres_url: str, ollama: OllamaServer
) -> None:
    given = {"postgres_url": SecretStr(postgres_url), "vision_backend": "ollama", "ollama_hosts": (ollama.url,)}
    settings = settings.model_copy(update=given)
    ledger, key = LabelLedger(engine), key_of(ollama)
    older = LabelKey("an older model", PROMPT_VERSION, SCHEMA_VERSION)
    wrong, right = (str(product(name).image_sha256) for name in ("wrong", "right"))
    for sha, its_key in ((wrong, key), (right, key), (wrong, older)):
        ledger.put(sha, its_key, entry(**PHONE_CASE))
    assert forget_labels(settings, contradicting_products(settings, [DAY])) == 1
    assert set(ledger.get_many([wrong, right], key)) == {right}
    assert set(ledger.get_many([wrong], older)) == {wrong}


def test_nothing_is_forgotten_while_the_model_is_away(
    settings: Settings, engine: sa.Engine, postgres_url: str, ollama: OllamaServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"postgres_url": SecretStr(postgres_url), "vision_backend": "ollama", "ollama_hosts": (ollama.url,)}
    settings = settings.model_copy(update=given)
    ledger, key = LabelLedger(engine), key_of(ollama)
    sha = str(product("wrong").image_sha256)
    ledger.put(sha, key, entry(**PHONE_CASE))
    assert Services(settings).vision_model.digest == key.model_digest  # known from before
    monkeypatch.setattr(ollama.model, "models", {})
    with pytest.raises(ConfigurationError, match="no model"):
        forget_labels(settings, contradicting_products(settings, [DAY]))
    assert set(ledger.get_many([sha], key)) == {sha}


def dry_run(home: Path, storage: str | None, *arguments: str) -> str:
    environment = {"LABELING_HOME": str(home), "LABELING_STORAGE": storage or ""}
    result = CliRunner().invoke(cli, ["relabel", "--from-check", "--dry-run", *arguments], env=environment)
    assert result.exit_code == 0, result.output
    return result.output


def test_a_dry_run_lists_the_evidence_and_starts_nothing(home: Path, settings: Settings) -> None:
    printed = dry_run(home, settings.storage)
    assert "'wrong'" in printed
    assert "product_type says “Phone case”" in printed
    assert "1 other products show the same images" in printed
    assert list(home.iterdir()) == []


@pytest.mark.parametrize("range_", [["--day", str(NEXT)], ["--start", str(NEXT), "--end", str(NEXT)]])
def test_only_the_days_asked_for_are_looked_at(home: Path, settings: Settings, range_: list[str]) -> None:
    assert "No label contradicts its title on 1 labeled days" in dry_run(home, settings.storage, *range_)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--from-check", "--day", str(DAY), "--end", str(DAY)],
        ["--from-check", "--start", str(NEXT), "--end", str(DAY)],
    ],
)
def test_a_command_that_is_not_clear_is_refused(home: Path, arguments: list[str]) -> None:
    result = CliRunner().invoke(cli, ["relabel", *arguments], env={"LABELING_HOME": str(home)})
    assert result.exit_code == 2
    assert list(home.iterdir()) == []


def test_a_wrong_label_is_made_anew_through_the_whole_pipeline(
    home: Path, tmp_path: Path, engine: sa.Engine, postgres_url: str, milvus_uri: str, ollama: OllamaServer
) -> None:
    """The ledger holds a wrong label; the model, asked again, gives another."""
    collection, key, picture = f"c_{uuid.uuid4().hex}", key_of(ollama), jpeg("navy", (80, 64))
    sha = hashlib.sha256(picture).hexdigest()
    ledger = LabelLedger(engine)
    ledger.put(sha, key, entry(**PHONE_CASE))
    write_day(tmp_path, DAY, labeled("wrong", DAY, image_sha256=sha, **PHONE_CASE))
    table = "ai_craw.product_marketing_summary"
    with image_host() as host:
        with engine.begin() as connection:
            connection.execute(sa.text("create schema ai_craw"))
            columns = ", ".join(f"{name} {kind}" for name, kind in SOURCE_COLUMNS.items())
            connection.execute(sa.text(f"create table {table} ({columns})"))
            connection.execute(
                sa.text(
                    f"insert into {table} (product_id, image, title, published_at) values ('wrong', :url, :title, :at)"
                ),
                {
                    "url": host.add("/a.jpg", content(picture)),
                    "title": ANY_PRODUCT,
                    "at": dt.datetime.combine(DAY, dt.time(12), ZONE),
                },
            )
        environment = {
            "HOME": str(home),
            "POSTGRES_URL": postgres_url,
            "MILVUS_URI": milvus_uri,
            "MILVUS_COLLECTION": collection,
            "STORAGE": str(tmp_path),
            "VISION_BACKEND": "ollama",
            "OLLAMA_HOSTS": ollama.url,
            "ALLOW_PRIVATE_IMAGE_HOSTS": f"127.0.0.1:{host.port}",
        }
        try:
            result = subprocess.run(
                [Path(sys.executable).with_name("labeling"), "relabel", "--from-check"],
                env={
                    name: value for name, value in os.environ.items() if not name.startswith(("LABELING_", "DAGSTER_"))
                }
                | {f"LABELING_{name}": value for name, value in environment.items()},
                capture_output=True,
                text=True,
                timeout=150,
                check=False,
            )
        finally:
            drop_collection(milvus_uri, collection)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "1 labels forgotten; 1 days are run again." in result.stdout
    assert "1 of 1 contradictions are gone." in result.stdout
    assert ollama.model.stats.calls == 1
    (row,) = read_table(UPath(tmp_path / "qwen_labels" / f"{DAY}.parquet")).to_pylist()
    assert row["product_type"] != PHONE_CASE["product_type"]
    found = ledger.get_many([sha], key)[sha].labels
    assert found is not None
    assert found.product_type == row["product_type"]


def drop_collection(milvus_uri: str, collection: str) -> None:
    from pymilvus import MilvusClient

    with contextlib.closing(MilvusClient(milvus_uri)) as client:
        client.drop_collection(collection)
