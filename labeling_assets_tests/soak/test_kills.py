"""Runs killed at random moments: nothing is lost, nothing is doubled, and nothing is paid for twice."""

from __future__ import annotations

import datetime as dt
import os
import random
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from labeling_assets.embedded.demo.catalogue import build_catalogue
from labeling_assets.embedded.demo.contents import LABELED
from labeling_assets.embedded.demo.install import install_demo
from labeling_assets.settings import Settings
from labeling_assets_tests.integration.installation import Installation, installed
from labeling_assets_tests.soak.watching import tell
from labeling_assets_tests.standins.process import ollama_process

pytestmark = [pytest.mark.soak, pytest.mark.timeout(3000)]

KILLS = int(os.environ.get("LABELING_TEST_SOAK_COUNT", "10"))
SEED = int(os.environ.get("LABELING_TEST_SOAK_SEED", "7"))
SLOTS = 4
LATENCY_MS = 80
PRODUCTS = 60
DAY = dt.date(2026, 3, 14)
EARLIER = DAY - dt.timedelta(days=1)


@pytest.fixture
def installation(home: Path) -> Iterator[Installation]:
    with ollama_process(slots=SLOTS, latency_ms=LATENCY_MS) as url:
        settings = {"VISION_BACKEND": "ollama", "OLLAMA_HOSTS": url, "VISION_SLOTS": str(SLOTS)}
        with installed(home, **settings) as installation:
            install_demo(Settings(home=home), seed=SEED, days=2, products_per_day=PRODUCTS, last_day=DAY)
            yield installation


def test_runs_killed_at_random_moments_lose_and_repeat_nothing(installation: Installation) -> None:
    chance = random.Random(SEED)
    kills = 0
    for _ in range(KILLS):
        run = installation.start("run", "--start", str(EARLIER), "--end", str(DAY))
        try:
            run.wait(timeout=chance.uniform(2, 14))
        except subprocess.TimeoutExpired:
            os.killpg(run.pid, signal.SIGKILL)
            run.wait()
            kills += 1
    final = installation.labeling("run", "--start", str(EARLIER), "--end", str(DAY))
    assert final.returncode == 0, final.stdout + final.stderr

    products_are_held_once(installation)
    calls = httpx.get(f"{installation.settings['OLLAMA_HOSTS']}/_stats").json()["calls"]
    distinct = len({row["image_sha256"] for row in installation.milvus()})
    tell(f"{kills} kills, {distinct} distinct images, {calls} model calls")
    assert calls <= distinct + SLOTS * kills
    nothing_is_left_running(installation)


def test_the_same_day_twice_and_another_day_at_once_lose_and_repeat_nothing(installation: Installation) -> None:
    runs = [installation.start("run", "--start", str(day), "--end", str(day)) for day in (DAY, DAY, EARLIER)]
    assert [run.wait(timeout=300) for run in runs] == [0, 0, 0], (installation.home / "command.log").read_text()
    products_are_held_once(installation)
    assert {row["date"] for row in installation.milvus()} == {str(DAY), str(EARLIER)}
    calls = httpx.get(f"{installation.settings['OLLAMA_HOSTS']}/_stats").json()["calls"]
    assert calls == len({row["image_sha256"] for row in installation.milvus()})
    nothing_is_left_running(installation)


def products_are_held_once(installation: Installation) -> None:
    """Milvus holds every product of the source that has a usable image, once, and so does data_label."""
    catalogue = build_catalogue(SEED, 2, PRODUCTS, last_day=DAY)
    refused = {product_id for trap in catalogue.traps if trap.expected != LABELED for product_id in trap.product_ids}
    crawled = installation.query(
        "select distinct product_id from ai_craw.product_marketing_summary where btrim(product_id) <> ''"
    )
    held = Counter(row["id_sanpham"] for row in installation.milvus())
    assert set(held.values()) == {1}
    assert {row[0].strip() for row in crawled} - refused == {id_ for id_ in held if not id_.startswith("SP_")}
    assert {row[0] for row in installation.query("select id_sanpham from ai_craw.data_label")} == set(held)


def nothing_is_left_running(installation: Installation) -> None:
    """No run is left started, and no pool slot is held."""
    statuses = {row[0] for row in installation.query("select distinct status from runs", "DAGSTER_POSTGRES_URL")}
    assert statuses <= {"SUCCESS", "FAILURE"}
    assert installation.query("select count(*) from pending_steps", "DAGSTER_POSTGRES_URL")[0][0] == 0
