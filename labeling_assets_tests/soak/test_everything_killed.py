"""Every part of a running platform killed at random: nothing is lost, nothing is doubled, nothing hangs half-dead.

Sizes: LABELING_TEST_SOAK_COUNT kills in all (20 in full), LABELING_TEST_SOAK_SEED.
"""

from __future__ import annotations

import datetime as dt
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
import sqlalchemy as sa

from labeling_assets_tests.soak.running import SLOTS, TABLE, ZONE, Part, Platform, insert, running_platform
from labeling_assets_tests.soak.watching import tell

pytestmark = [pytest.mark.soak, pytest.mark.timeout(3600)]

KILLS = int(os.environ.get("LABELING_TEST_SOAK_COUNT", "10"))
SEED = int(os.environ.get("LABELING_TEST_SOAK_SEED", "7"))
VICTIMS: list[Part | Literal["all"]] = [
    "run",
    "all",
    "code_server",
    "daemon",
    "postgres",
    "milvus",
    "supervisor",
    "webserver",
]
DAGSTER_PARTS: list[Part] = ["webserver", "daemon", "code_server"]
WAIT_FOR_RUN_SECONDS = 60
WHOLE_SECONDS = 180
CONVERGENCE_SECONDS = 1500


@pytest.fixture
def platform(home: Path) -> Iterator[Platform]:
    with running_platform(home, model_latency_ms=300) as platform:
        yield platform


def test_what_is_killed_at_random_comes_back_and_the_stores_follow_the_source(platform: Platform) -> None:
    tell(f"seed {SEED}")
    chance = random.Random(SEED)
    victims = [VICTIMS[number % len(VICTIMS)] for number in range(KILLS)]
    chance.shuffle(victims)
    platform.start()
    kills: Counter[str] = Counter()
    slowest = 0.0
    for number, victim in enumerate(victims):
        change_source(platform, chance, number)
        wait_for_run(platform)
        time.sleep(chance.uniform(0, 8))
        killed = platform.kill() if victim == "all" else platform.kill(victim)
        kills[victim] += bool(killed)
        started = time.monotonic()
        if victim == "all":
            platform.start()
        wait_until_whole(platform, victim)
        seconds = time.monotonic() - started
        slowest = max(slowest, seconds)
        tell(f"{victim} killed ({len(killed)} processes), whole after {seconds:.0f} s")

    seconds = platform.wait_until_in_step(CONVERGENCE_SECONDS)
    calls, distinct = platform.model_calls(), platform.distinct_images_asked()
    tell(
        f"{dict(kills)} killed, whole again after at most {slowest:.0f} s, in step {seconds:.0f} s after the last; "
        f"{platform.row_count()} rows, {distinct} distinct images, {calls} model calls; "
        f"runs {dict(platform.run_statuses())}",
    )
    assert platform.differences() == []
    assert len(platform.data_label()) == len(platform.milvus()) > 0
    platform.nothing_is_left_running()
    assert calls <= distinct + SLOTS * sum(kills.values())


@pytest.mark.parametrize("with_signal", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_in_the_middle_of_a_run_leaves_nothing_behind(platform: Platform, with_signal: signal.Signals) -> None:
    platform.start()
    change_source(platform, random.Random(SEED), 0)
    wait_for_run(platform)
    assert platform.dev is not None
    platform.dev.send_signal(with_signal)
    assert platform.dev.wait(timeout=60) == 0
    assert not [process for part in (*DAGSTER_PARTS, "run") for process in platform.processes(part)]
    platform.start()
    platform.wait_until_in_step(CONVERGENCE_SECONDS)
    platform.nothing_is_left_running()


def change_source(platform: Platform, chance: random.Random, number: int) -> None:
    """New products on two days, an edit, and a deletion; nothing where PostgreSQL does not answer just now."""
    today = dt.datetime.now(ZONE).date()
    deadline = time.monotonic() + WHOLE_SECONDS
    days = [today - dt.timedelta(days=chance.randint(1, 12)) for _ in range(2)]
    rows = [(f"P{number}-{day}-{each}", day) for day in days for each in range(15)]
    while True:
        try:
            with platform.engine.begin() as connection:
                for product_id, day in dict(rows).items():
                    moment = dt.datetime.combine(day, dt.time(12), ZONE)
                    insert(connection, product_id, moment, platform.picture(product_id))
                ids = connection.execute(sa.text(f"select product_id from {TABLE} order by 1")).scalars().all()
                edited, deleted = chance.sample(ids, 2)
                connection.execute(
                    sa.text(f"update {TABLE} set title = 'T{number}' where product_id = :id"), {"id": edited}
                )
                connection.execute(sa.text(f"delete from {TABLE} where product_id = :id"), {"id": deleted})
        except (sa.exc.OperationalError, sa.exc.InterfaceError):
            assert time.monotonic() < deadline, "PostgreSQL does not come back"
            time.sleep(1)
        else:
            return


def wait_for_run(platform: Platform) -> None:
    """Wait for a run at work, but not for ever: a kill may have come in between."""
    deadline = time.monotonic() + WAIT_FOR_RUN_SECONDS
    while not platform.processes("run") and time.monotonic() < deadline:
        time.sleep(0.5)


def wait_until_whole(platform: Platform, victim: str) -> None:
    """Wait until every part is there again and the code location is served, by nobody's hand."""
    deadline = time.monotonic() + WHOLE_SECONDS
    while missing := missing_parts(platform):
        assert platform.dev is not None
        assert platform.dev.poll() is None, f"labeling dev ended when {victim} was killed\n{platform.log()}"
        assert time.monotonic() < deadline, f"{missing} after {victim} was killed\n{platform.log()}"
        time.sleep(1)


def missing_parts(platform: Platform) -> list[str]:
    parts: tuple[Part, ...] = (*DAGSTER_PARTS, "supervisor", "postgres", "milvus")
    missing: list[str] = [part for part in parts if not platform.processes(part)]
    if missing or platform.is_up():
        return missing
    return ["the UI or the code location"]
