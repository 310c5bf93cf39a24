"""A whole installation through the command line: the demo, its traps, repeating it, searching, and what goes wrong."""

from __future__ import annotations

import datetime as dt
import json
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from labeling_assets.embedded.demo.catalogue import build_catalogue
from labeling_assets.embedded.demo.contents import LABELED, NOT_CRAWLED, Catalogue
from labeling_assets.settings import Settings
from labeling_assets_tests.integration.installation import Installation, installed

SEED, DAYS, PRODUCTS = 7, 2, 6
STATISTICS = {
    "crawled_count",
    "duplicate_count",
    "processed_count",
    "inserted_count",
    "updated_count",
    "unchanged_count",
    "removed_count",
    "failed_count",
    "insert_batches",
    "model_calls",
    "calls_avoided",
    "label_cost",
    "inserted_ids",
    "failed_records",
    "total_time_seconds",
    "seconds_by_stage",
}
COMMANDS = [
    [],
    ["up"],
    ["down"],
    ["status"],
    ["demo"],
    ["dev"],
    ["doctor"],
    ["run"],
    ["quarantine"],
    ["quarantine", "list"],
    ["quarantine", "show"],
    ["quarantine", "retry"],
    ["search"],
    ["backfill"],
    ["heal"],
    ["relabel"],
    ["backup"],
    ["restore"],
    ["metrics"],
    ["init"],
    ["code-server"],
]


@pytest.fixture(scope="module")
def last_day() -> dt.date:
    return dt.datetime.now(Settings().zone).date() - dt.timedelta(days=1)


@pytest.fixture(scope="module")
def catalogue(last_day: dt.date) -> Catalogue:
    return build_catalogue(SEED, DAYS, PRODUCTS, last_day=last_day)


@pytest.fixture(scope="module")
def demo() -> Iterator[tuple[Installation, str]]:
    """An installation on which the demo has run, and what the demo printed."""
    home = Path(tempfile.mkdtemp(prefix="labeling demo "))
    home.chmod(0o755)
    with installed(home) as installation:
        result = installation.labeling("demo", "--days", str(DAYS), "--products", str(PRODUCTS), "--seed", str(SEED))
        assert result.returncode == 0, result.stdout + result.stderr
        yield installation, result.stdout
    shutil.rmtree(home)


@pytest.fixture
def installation(demo: tuple[Installation, str]) -> Installation:
    return demo[0]


def run_days(installation: Installation, catalogue: Catalogue, *more: str) -> dict[str, Any]:
    path = installation.home / "statistics.json"
    days = catalogue.days
    result = installation.labeling("run", "--start", str(days[0]), "--end", str(days[-1]), "--json", str(path), *more)
    assert result.returncode == 0, result.stdout + result.stderr
    statistics: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return statistics


def test_the_demo_tells_what_happened_and_shows_searches(demo: tuple[Installation, str], catalogue: Catalogue) -> None:
    _, printed = demo
    for text in (*map(str, catalogue.days), "milvus_collection", "In quarantine:", "labeling search", "make dev"):
        assert text in printed
    assert "Traceback" not in printed


def test_every_trap_ends_where_it_should(installation: Installation, catalogue: Catalogue) -> None:
    held = {row["id_sanpham"] for row in installation.milvus()}
    quarantined = dict(map(tuple, installation.query("select product_id, error_class from labeling.quarantine")))
    for trap in catalogue.traps:
        for product_id in filter(None, (each and each.strip() for each in trap.product_ids)):
            if trap.expected == LABELED:
                assert product_id in held, trap
                assert product_id not in quarantined, trap
            elif trap.expected == NOT_CRAWLED:
                assert product_id not in held, trap
                assert product_id not in quarantined, trap
            else:
                assert quarantined.get(product_id) == trap.expected, trap
                assert product_id not in held, trap


def test_running_the_days_again_costs_nothing(installation: Installation, catalogue: Catalogue) -> None:
    host = json.loads(installation.labeling("status", "--json").stdout)["image_host"]["url"]
    before = {row["id_sanpham"]: row["record_hash"] for row in installation.milvus()}
    bodies = httpx.get(f"{host}/stats").json()["bodies"]
    statistics = run_days(installation, catalogue)
    assert set(statistics) >= STATISTICS
    assert (statistics["model_calls"], statistics["insert_batches"], statistics["inserted_ids"]) == (0, 0, [])
    assert statistics["unchanged_count"] == len(before)
    assert statistics["failed_count"] == len(statistics["failed_records"]) > 0
    assert httpx.get(f"{host}/stats").json()["bodies"] == bodies
    assert {row["id_sanpham"]: row["record_hash"] for row in installation.milvus()} == before


def test_a_search_shows_score_id_store_and_labels(installation: Installation) -> None:
    hits = json.loads(installation.labeling("search", "gift", "--limit", "3", "--json").stdout)
    assert len(hits) == 3
    assert hits[0]["score"] >= hits[1]["score"] >= hits[2]["score"]
    shown = installation.labeling("search", "gift", "--limit", "3").stdout
    assert all(hit["id_sanpham"] in shown for hit in hits)
    store = hits[0]["name_store"]
    only = json.loads(installation.labeling("search", "gift", "--store", store, "--json").stdout)
    assert {hit["name_store"] for hit in only} == {store}


def test_the_quarantine_is_listed_shown_and_tried_again(installation: Installation, catalogue: Catalogue) -> None:
    product_id = str(catalogue.trap("404").product_ids[0])
    assert product_id in installation.labeling("quarantine", "list").stdout
    assert "there are more" in installation.labeling("quarantine", "list", "--limit", "1").stdout
    assert installation.labeling("quarantine", "list", "--day", "2001-01-01").stdout.strip() == "No row matches."
    assert "ImageNotFoundError" in installation.labeling("quarantine", "show", product_id).stdout
    retried = installation.labeling("quarantine", "retry", "--product", product_id)
    assert retried.returncode == 0, retried.stderr
    assert "0 of 1 rows left the quarantine" in retried.stdout
    assert installation.labeling("quarantine", "show", "no such product").returncode == 1


def test_the_doctor_finds_nothing_wrong(installation: Installation) -> None:
    result = installation.labeling("doctor", "--json")
    assert result.returncode == 0, result.stdout
    assert all(finding["is_ok"] for finding in json.loads(result.stdout))


def test_the_doctor_names_what_is_wrong_and_the_remedy(installation: Installation) -> None:
    broken = Installation(installation.home, {"VISION_BACKEND": "ollama", "OLLAMA_HOSTS": "http://127.0.0.1:9"})
    result = broken.labeling("doctor")
    assert result.returncode == 1
    assert "LABELING_OLLAMA_HOSTS" in result.stdout
    assert "✓   Milvus" in result.stdout


def test_a_failed_day_tells_its_cause_and_exits_with_one(installation: Installation, catalogue: Catalogue) -> None:
    broken = Installation(installation.home, {"VISION_BACKEND": "ollama", "OLLAMA_HOSTS": "http://127.0.0.1:9"})
    day = str(catalogue.days[0])
    result = broken.labeling("run", "--start", day, "--end", day)
    assert result.returncode == 1
    assert "qwen_labels" in result.stdout
    assert "LABELING_OLLAMA_HOSTS" in result.stdout
    assert "Traceback" not in result.stdout + result.stderr


def test_the_demo_never_mixes_with_foreign_rows(installation: Installation) -> None:
    table = "ai_craw.product_marketing_summary"
    installation.query(
        f"insert into {table} (product_id, image, published_at) values ('real', 'http://h/a.jpg', now())"
    )
    refused = installation.labeling("demo", "--days", str(DAYS), "--products", str(PRODUCTS))
    installation.query(f"delete from {table} where product_id = 'real'")
    assert refused.returncode == 2
    assert "not of the demo" in refused.stderr


@pytest.mark.parametrize(("inherited", "sent"), [(signal.SIG_DFL, signal.SIGINT), (signal.SIG_IGN, signal.SIGTERM)])
def test_a_signal_stops_a_run_at_once_and_leaves_none_behind(
    installation: Installation, catalogue: Catalogue, inherited: signal.Handlers, sent: signal.Signals
) -> None:
    days = catalogue.days
    before = signal.signal(signal.SIGINT, inherited)  # a shell's background job inherits SIG_IGN
    run = installation.start("run", "--start", str(days[0]), "--end", str(days[-1]))
    signal.signal(signal.SIGINT, before)
    started = "select count(*) from runs where status = 'STARTED'"
    while installation.query(started, "DAGSTER_POSTGRES_URL")[0][0] == 0:
        assert run.poll() is None
    run.send_signal(sent)
    assert run.wait(timeout=30) == 130
    assert installation.query(started, "DAGSTER_POSTGRES_URL")[0][0] == 0


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_a_help(installation: Installation, command: list[str]) -> None:
    result = installation.labeling(*command, "--help")
    assert result.returncode == 0
    assert len(result.stdout.splitlines()) > 4


@pytest.mark.parametrize(
    ("settings", "arguments", "named"),
    [
        ({"TIMEZONE": "Mars"}, ["doctor"], "LABELING_TIMEZONE"),
        ({"EMBEDDER": "no-such-model"}, ["search", "mug"], "LABELING_EMBEDDER"),
        ({"DEVICE": "cuda"}, ["search", "mug"], "LABELING_DEVICE"),
        ({"FIRST_DAY": "2030-01-01"}, ["run", "--start", "2026-01-01", "--end", "2026-01-01"], "LABELING_FIRST_DAY"),
        ({}, ["run", "--start", "2026-01-02", "--end", "2026-01-01"], "--start"),
        ({}, ["search", " "], "empty"),
        ({}, ["search", "mug", "--label", "flavour=sweet"], "flavour"),
    ],
)
def test_a_wrong_setting_or_argument_is_one_clear_line(
    installation: Installation, settings: dict[str, str], arguments: list[str], named: str
) -> None:
    result = Installation(installation.home, settings).labeling(*arguments)
    assert result.returncode == 2
    assert named in result.stderr
    assert "Traceback" not in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_no_command_prints_a_password(installation: Installation) -> None:
    password = (installation.home / "postgres" / "password").read_text().strip()
    for arguments in (["status"], ["status", "--json"], ["doctor"], ["-v", "search", "mug"], ["quarantine", "list"]):
        result = installation.labeling(*arguments)
        assert password not in result.stdout + result.stderr
    for log in (installation.home / "logs").iterdir():
        assert password not in log.read_text(errors="replace")
