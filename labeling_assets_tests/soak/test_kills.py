"""Runs killed at random moments: nothing is lost, nothing is doubled, and nothing is paid for twice."""

from __future__ import annotations

import datetime as dt
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from labeling_assets.embedded.demo.install import install_demo
from labeling_assets.settings import Settings
from labeling_assets_tests.integration.installation import Installation, installed
from labeling_assets_tests.standins.process import ollama_process

pytestmark = [pytest.mark.soak, pytest.mark.timeout(3000)]

KILLS = int(os.environ.get("LABELING_TEST_SOAK_COUNT", "10"))
SEED = int(os.environ.get("LABELING_TEST_SOAK_SEED", "7"))
SLOTS = 4
LATENCY_MS = 80
PRODUCTS = 120
DAY = dt.date(2026, 3, 14)


@pytest.fixture
def installation(home: Path) -> Iterator[Installation]:
    with ollama_process(slots=SLOTS, latency_ms=LATENCY_MS) as url:
        settings = {"VISION_BACKEND": "ollama", "OLLAMA_HOSTS": url, "VISION_SLOTS": str(SLOTS)}
        with installed(home, **settings) as installation:
            install_demo(Settings(home=home), seed=SEED, days=1, products_per_day=PRODUCTS, last_day=DAY)
            yield installation


def test_runs_killed_at_random_moments_lose_and_repeat_nothing(installation: Installation) -> None:
    chance = random.Random(SEED)
    kills = 0
    for _ in range(KILLS):
        run = installation.start("run", "--start", str(DAY), "--end", str(DAY))
        try:
            run.wait(timeout=chance.uniform(2, 14))
        except subprocess.TimeoutExpired:
            os.killpg(run.pid, signal.SIGKILL)
            run.wait()
            kills += 1
    final = installation.labeling("run", "--start", str(DAY), "--end", str(DAY))
    assert final.returncode == 0, final.stdout + final.stderr

    wanted = {row[0] for row in installation.query("select id_sanpham from ai_craw.data_label")}
    held = Counter(row["id_sanpham"] for row in installation.milvus())
    assert set(held) == wanted
    assert set(held.values()) == {1}
    crawled = installation.query(
        "select count(distinct product_id) from ai_craw.product_marketing_summary where product_id is not null and image ~ 'http'"
    )[0][0]
    assert len(held) > PRODUCTS * 0.9
    assert len(held) <= crawled + 5

    calls = httpx.get(f"{installation.settings['OLLAMA_HOSTS']}/_stats").json()["calls"]
    distinct = len({row["image_sha256"] for row in installation.milvus()})
    print(f"{kills} kills, {distinct} distinct images, {calls} model calls", file=sys.stderr)
    assert calls <= distinct + SLOTS * kills

    statuses = {row[0] for row in installation.query("select distinct status from runs", "DAGSTER_POSTGRES_URL")}
    assert statuses <= {"SUCCESS", "FAILURE"}
    assert installation.query("select count(*) from pending_steps", "DAGSTER_POSTGRES_URL")[0][0] == 0
