"""The platform follows its source by itself, beside many writers.

Sizes: LABELING_TEST_SOAK_MINUTES of writing (5 in full), LABELING_TEST_SOAK_SEED.
"""

from __future__ import annotations

import datetime as dt
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa

from labeling_assets_tests.soak.running import TABLE, ZONE, Platform, insert, running_platform
from labeling_assets_tests.soak.watching import tell

pytestmark = [pytest.mark.soak, pytest.mark.timeout(3600)]

MINUTES = float(os.environ.get("LABELING_TEST_SOAK_MINUTES", "1"))
SEED = int(os.environ.get("LABELING_TEST_SOAK_SEED", "7"))
WRITERS = 4
PAUSE_SECONDS = (0.1, 1.5)
PRODUCTS = [f"P{number}" for number in range(90)]
PICTURES = 60
BROKEN_SHARE = 0.05
CONVERGENCE_SECONDS = 1200
QUIET_SECONDS = 15
"""Three looks of the sensor."""


@pytest.fixture
def platform(home: Path) -> Iterator[Platform]:
    # A day may be left with broken pictures alone.
    with running_platform(home, MAX_QUARANTINED_SHARE="1") as platform:
        yield platform


class Writer:
    """One client of the source that changes rows at random until told to stop."""

    def __init__(self, platform: Platform, number: int) -> None:
        self.chance = random.Random(f"{SEED} {number}")
        self.changes: Counter[str] = Counter()
        self._platform = platform
        today = dt.datetime.now(ZONE).date()
        # Two stretches of the window; at the start every second day is empty.
        self._days = [today - dt.timedelta(days=ago) for ago in (*range(1, 9), *range(20, 26))]

    def write_until(self, stop: threading.Event) -> None:
        """Change a row in each transaction."""
        while not stop.wait(self.chance.uniform(*PAUSE_SECONDS)):
            with self._platform.engine.begin() as connection:
                self.change(connection)

    def hold_until(self, stop: threading.Event) -> None:
        """Change rows now and then, all in one transaction, which commits when the others have stopped."""
        with self._platform.engine.begin() as connection:
            while not stop.wait(self.chance.uniform(1, 4)):
                self.change(connection)

    def fill(self) -> None:
        with self._platform.engine.begin() as connection:
            for day in self._days[::2]:
                for _ in range(6):
                    self._insert(connection, day)

    def change(self, connection: sa.Connection) -> None:
        day, kinds = self.chance.choice(self._days), ("insert", "edit", "new picture", "delete", "move")
        kind = self.chance.choices(kinds, (35, 20, 15, 12, 18))[0]
        # A row that another transaction works on is passed over, so that nobody waits for the one that stays open.
        row = f"ctid = (select ctid from {TABLE} order by md5(product_id || :salt) limit 1 for update skip locked)"
        values = {"salt": str(self.chance.random()), "moment": self._moment(day), "image": self._image()}
        values["title"] = f"Title {self.chance.randrange(10**6)}"
        statements = {
            "edit": f"update {TABLE} set title = :title where {row}",
            "new picture": f"update {TABLE} set image = :image where {row}",
            "delete": f"delete from {TABLE} where {row}",
            "move": f"update {TABLE} set published_at = :moment where {row}",
        }
        if kind == "insert":
            self._insert(connection, day)
            self.changes[kind] += 1
        else:
            names = {name: value for name, value in values.items() if f":{name}" in statements[kind]}
            self.changes[kind] += connection.execute(sa.text(statements[kind]), names).rowcount

    def _insert(self, connection: sa.Connection, day: dt.date) -> None:
        insert(connection, self.chance.choice(PRODUCTS), self._moment(day), self._image())

    def _moment(self, day: dt.date) -> dt.datetime:
        return dt.datetime.combine(day, dt.time(), ZONE) + dt.timedelta(
            microseconds=self.chance.randrange(86_400 * 10**6)
        )

    def _image(self) -> str:
        name = f"picture {self.chance.randrange(PICTURES)}"
        is_broken = self.chance.random() < BROKEN_SHARE
        return self._platform.broken_picture(name) if is_broken else self._platform.picture(name)


def test_the_stores_follow_many_writers_without_a_hand(platform: Platform) -> None:
    writers = [Writer(platform, number) for number in range(WRITERS + 1)]
    writers[0].fill()
    platform.start()
    stop, stop_holding = threading.Event(), threading.Event()
    started = time.monotonic()
    with ThreadPoolExecutor(len(writers)) as pool:
        jobs = [pool.submit(writer.write_until, stop) for writer in writers[1:]]
        jobs.append(pool.submit(writers[0].hold_until, stop_holding))
        stop.wait(MINUTES * 60)
        stop.set()
        for job in jobs[:-1]:
            job.result()
        stop_holding.set()
        jobs[-1].result()
    held_seconds = time.monotonic() - started
    rows, changes = platform.row_count(), sum((writer.changes for writer in writers), Counter())
    runs_while_writing = platform.run_statuses().total()

    seconds = platform.wait_until_in_step(CONVERGENCE_SECONDS)
    runs = platform.run_statuses()
    time.sleep(QUIET_SECONDS)
    calls, images = platform.model_calls(), platform.distinct_images_asked()
    tell(
        f"seed {SEED}; {rows} rows; {changes.total()} changes in {MINUTES * 60:.0f} s {dict(changes)}; a transaction "
        f"of {held_seconds:.0f} s with {writers[0].changes.total()} of them; in step {seconds:.0f} s after the last "
        f"commit; runs {dict(runs)}, {runs_while_writing} of them while writing; {len(platform.expected())} products; "
        f"{calls} model calls for {images} distinct images"
    )
    assert platform.differences() == []
    assert platform.run_statuses() == runs, "runs were requested although nothing had changed"
    assert calls == images
    assert platform.failed_partitions() == {}
    platform.nothing_is_left_running()
    assert platform.stop() == 0
