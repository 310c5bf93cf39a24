"""Which labels are stale, in which order images are labeled anew, and when a day is complete."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from click.testing import CliRunner
from upath import UPath

from labeling_assets.cli import cli
from labeling_assets.products.images import ImageFacts
from labeling_assets.products.label_versions import LabelVersion
from labeling_assets.products.labels import SCHEMA_VERSION, ProductLabels
from labeling_assets.products.prompt import PROMPT_VERSION
from labeling_assets.products.records import LABEL_FIELDS, ImagedProduct, LabeledProduct, to_table
from labeling_assets.services.day_tables import write_table
from labeling_assets.services.images.history import ImageHistory, Remembered
from labeling_assets.services.ledger import LabelKey, LabelLedger, LedgerEntry
from labeling_assets.services.ledger_use import LedgerUse
from labeling_assets.services.near_duplicates import NearDuplicates
from labeling_assets.services.relabel_stale import Answers, stale_images
from labeling_assets.services.stale import labeled_days, read_day_labels
from labeling_assets.settings import Settings
from labeling_assets_tests.services.milvus_samples import product

MONDAY, TUESDAY, WEDNESDAY = (dt.date(2026, 3, day) for day in (2, 3, 4))
DAYS = [MONDAY, TUESDAY, WEDNESDAY]
CURRENT = LabelVersion("qwen", "d2", PROMPT_VERSION, SCHEMA_VERSION)
NEW = {"label_model": "qwen", "label_digest": "d2", "prompt_version": PROMPT_VERSION, "schema_version": SCHEMA_VERSION}


def write_day(root: Path, day: dt.date, *products: dict[str, Any], unlabeled: tuple[str, ...] = ()) -> None:
    rows = [product(values.pop("name"), day, **values).model_dump() for values in map(dict, products)]
    labeled = [LabeledProduct.model_validate(row) for row in rows]
    images = [ImagedProduct.model_validate(row) for row in rows]
    images += [ImagedProduct.model_validate(product(name, day).model_dump()) for name in unlabeled]
    write_table(UPath(root / "qwen_labels" / f"{day}.parquet"), to_table(labeled, LabeledProduct))
    write_table(UPath(root / "product_images" / f"{day}.parquet"), to_table(images, ImagedProduct))


def sha(name: str) -> str:
    return str(product(name).image_sha256)


def label(engine: sa.Engine, *names: str) -> None:
    labels = ProductLabels.model_validate({field: getattr(product(), field) for field in LABEL_FIELDS})
    entry = LedgerEntry("qwen", labels, None, None, "direct", 1, 1_000, 100, 1.0)
    for name in names:
        LabelLedger(engine).put(sha(name), LabelKey("d2", PROMPT_VERSION, SCHEMA_VERSION), entry)


def test_labels_of_another_model_prompt_or_schema_are_counted_by_day(tmp_path: Path) -> None:
    write_day(tmp_path, MONDAY, NEW | {"name": "a"}, NEW | {"name": "b", "prompt_version": "0"}, {"name": "c"})
    write_day(tmp_path, TUESDAY, NEW | {"name": "d"})
    root = UPath(tmp_path)
    first, second = read_day_labels(root, labeled_days(root))
    assert (first.day, first.total, first.stale(CURRENT)) == (MONDAY, 3, 2)
    assert (second.day, second.total, second.stale(CURRENT)) == (TUESDAY, 1, 0)
    assert len(first.counts) == 3


def test_a_day_without_products_has_no_labels(tmp_path: Path) -> None:
    write_day(tmp_path, MONDAY)
    (day,) = read_day_labels(UPath(tmp_path), [MONDAY])
    assert (day.total, day.stale(CURRENT), day.problem) == (0, 0, "")


def test_other_files_are_no_days_and_a_range_has_two_ends(tmp_path: Path) -> None:
    for day in DAYS:
        write_day(tmp_path, day, {"name": "a"})
    for name in ("notes.txt", ".2026-03-02.parquet.1.tmp", "20260302.parquet", "x.parquet"):
        (tmp_path / "qwen_labels" / name).write_text("")
    root = UPath(tmp_path)
    assert labeled_days(root) == DAYS
    assert labeled_days(root, TUESDAY, TUESDAY) == [TUESDAY]
    assert labeled_days(UPath(tmp_path / "none")) == []


@pytest.mark.parametrize("content", [b"", b"garbage", b"PAR1" + b"\0" * 40 + b"PAR1"])
def test_a_broken_file_is_told_and_the_other_days_are_counted(tmp_path: Path, content: bytes) -> None:
    write_day(tmp_path, MONDAY, {"name": "a"})
    write_day(tmp_path, TUESDAY, {"name": "b"})
    (tmp_path / "qwen_labels" / f"{MONDAY}.parquet").write_bytes(content)
    broken, whole = read_day_labels(UPath(tmp_path), [MONDAY, TUESDAY])
    assert "qwen_labels cannot be read" in broken.problem
    assert whole.stale(CURRENT) == 1


def test_the_most_viewed_images_come_first(tmp_path: Path, engine: sa.Engine) -> None:
    """`both` is on two days with 60 views each; `fresh` is on a day without stale labels."""
    both = {"name": "b1", "image_sha256": sha("both"), "impression": 60}
    write_day(tmp_path, MONDAY, both, {"name": "seen", "impression": 100}, {"name": "liked", "like": 9})
    write_day(tmp_path, TUESDAY, both | {"name": "b2"}, {"name": "plain"}, unlabeled=("refused",))
    write_day(tmp_path, WEDNESDAY, NEW | {"name": "fresh", "impression": 10_000})
    root, answers = UPath(tmp_path), Answers(LedgerUse(engine), CURRENT, None)
    images = stale_images(root, read_day_labels(root, DAYS), CURRENT)
    missing = answers.missing(images.phashes)
    asked = answers.to_ask(missing)
    assert asked[:3] == [sha("both"), sha("seen"), sha("liked")]
    assert set(asked[3:]) == {sha("plain"), sha("refused")}
    assert set(images.by_day) == {MONDAY, TUESDAY}

    label(engine, "both", "seen", "liked", "plain")
    assert answers.complete_days(images, missing) == [MONDAY]
    assert list(answers.missing(images.phashes)) == [sha("refused")]
    label(engine, "refused")
    assert answers.complete_days(images, missing) == [MONDAY, TUESDAY]


def test_an_image_on_which_the_server_failed_does_not_keep_its_day_from_being_replaced(
    tmp_path: Path, engine: sa.Engine
) -> None:
    write_day(tmp_path, MONDAY, {"name": "a"}, {"name": "crashes"})
    write_day(tmp_path, TUESDAY, {"name": "b"}, {"name": "crashes"})
    root, answers = UPath(tmp_path), Answers(LedgerUse(engine), CURRENT, None)
    images = stale_images(root, read_day_labels(root, DAYS[:2]), CURRENT)
    label(engine, "a")
    assert answers.complete_days(images, images.phashes) == []
    assert answers.complete_days(images, images.phashes, {sha("crashes")}) == [MONDAY]


def test_where_labels_are_shared_one_image_of_a_group_is_asked_about_the_most_viewed(
    tmp_path: Path, engine: sa.Engine
) -> None:
    phashes = {"plain": "0f0f3c3c5a5a9696", "seen": "0f0f3c3c5a5a9697", "far": "f0f0c3c35a5a9696"}
    views = {"seen": 10, "far": 5}
    products = [
        {"name": name, "image_phash": phash, "impression": views.get(name, 1)} for name, phash in phashes.items()
    ]
    write_day(tmp_path, MONDAY, *products)
    facts = {name: 100 for name in ImageFacts.__dataclass_fields__ if name not in ("format", "phash")}
    ImageHistory(engine).remember(
        {
            f"http://host/{name}": Remembered(sha256=sha(name), facts=ImageFacts(format="JPEG", phash=phash, **facts))
            for name, phash in phashes.items()
        }
    )
    root, answers = UPath(tmp_path), Answers(LedgerUse(engine), CURRENT, NearDuplicates(engine, 6))
    images = stale_images(root, read_day_labels(root, [MONDAY]), CURRENT)
    missing = answers.missing(images.phashes)
    assert set(missing) == {sha(name) for name in phashes}
    assert answers.to_ask(missing) == [sha("seen"), sha("far")]
    label(engine, "far")
    assert answers.complete_days(images, missing) == []
    without_first = {name: phash for name, phash in answers.missing(missing).items() if name != sha("seen")}
    assert answers.to_ask(without_first) == [sha("plain")], "it stands for the group where the first gets no label"
    label(engine, "seen")
    assert answers.missing(missing) == {}
    assert answers.complete_days(images, missing) == [MONDAY]


def test_a_day_whose_images_are_not_known_is_left_out_with_the_reason(tmp_path: Path) -> None:
    for day in (MONDAY, TUESDAY):
        write_day(tmp_path, day, {"name": f"of {day}"})
    (tmp_path / "product_images" / f"{MONDAY}.parquet").unlink()
    root = UPath(tmp_path)
    images = stale_images(root, read_day_labels(root, DAYS[:2]), CURRENT)
    assert set(images.by_day) == {TUESDAY}
    assert "there is no file of product_images" in images.problems[MONDAY]


def test_the_command_lists_days_and_fails_on_a_broken_file(tmp_path: Path, home: Path) -> None:
    write_day(tmp_path, MONDAY, {"name": "a"})
    write_day(tmp_path, TUESDAY, {"name": "b"})
    environment = {"LABELING_HOME": str(home), "LABELING_STORAGE": str(tmp_path)}
    result = CliRunner().invoke(cli, ["stale"], env=environment)
    assert result.exit_code == 0, result.output
    assert "2 of 2 labels are stale, on 2 of 2 days" in result.output
    assert "prompt 1, schema 1" in result.output
    (tmp_path / "qwen_labels" / f"{MONDAY}.parquet").write_bytes(b"garbage")
    result = CliRunner().invoke(cli, ["stale", "--end", str(MONDAY)], env=environment)
    assert result.exit_code == 1
    assert list(home.iterdir()) == []


def test_without_the_model_server_models_are_compared_by_name(tmp_path: Path, home: Path) -> None:
    same = {"label_model": Settings().vision_model, "prompt_version": PROMPT_VERSION, "schema_version": SCHEMA_VERSION}
    write_day(tmp_path, MONDAY, same | {"name": "a"}, {"name": "b"})
    environment = {
        "LABELING_HOME": str(home),
        "LABELING_STORAGE": str(tmp_path),
        "LABELING_VISION_BACKEND": "ollama",
        "LABELING_OLLAMA_HOSTS": "http://127.0.0.1:9",
    }
    result = CliRunner().invoke(cli, ["stale"], env=environment)
    assert result.exit_code == 0, result.output
    assert "Models are compared by name" in result.output
    assert "1 of 2 labels are stale" in result.output


@pytest.mark.parametrize(
    "arguments",
    [
        ["--stale", "--from-check"],
        ["--from-check", "--budget", "5"],
        ["--stale", "--day", "2026-03-02", "--end", "2026-03-02"],
    ],
)
def test_a_relabeling_that_is_not_clear_is_refused(home: Path, arguments: list[str]) -> None:
    environment = {"LABELING_HOME": str(home), "LABELING_PRICE_GPU_HOUR": "1"}
    result = CliRunner().invoke(cli, ["relabel", *arguments], env=environment)
    assert result.exit_code == 2
    assert list(home.iterdir()) == []
