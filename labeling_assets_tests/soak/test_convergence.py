"""The platform follows its source by itself: beside many writers, and through the outage of each of its services.

Sizes: LABELING_TEST_SOAK_MINUTES of writing (5 in full), LABELING_TEST_SOAK_OUTAGE_SECONDS of each outage (60 in full),
LABELING_TEST_SOAK_SEED.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from labeling_assets.embedded.milvus import MilvusServer
from labeling_assets.embedded.ports import free_port
from labeling_assets.embedded.postgres import PostgresServer
from labeling_assets_tests.soak.running import SLOTS, TABLE, ZONE, Platform, insert, running_platform

pytestmark = [pytest.mark.soak, pytest.mark.timeout(3600)]

MINUTES = float(os.environ.get("LABELING_TEST_SOAK_MINUTES", "1"))
OUTAGE_SECONDS = float(os.environ.get("LABELING_TEST_SOAK_OUTAGE_SECONDS", "20"))
SEED = int(os.environ.get("LABELING_TEST_SOAK_SEED", "7"))
WRITERS = 4
PAUSE_SECONDS = (0.1, 1.5)
PRODUCTS = [f"P{number}" for number in range(90)]
PICTURES = 60
BROKEN_SHARE = 0.05
CONVERGENCE_SECONDS = 1200
QUIET_SECONDS = 15
"""Three looks of the sensor."""

# Many writers


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


# Outages


class Model:
    """The stand-in for Ollama, which can be taken down and comes back at the same address."""

    def __init__(self, latency_ms: int) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        options = ["--port", str(port), "--slots", str(SLOTS), "--latency-ms", str(latency_ms)]
        self._command = [sys.executable, "-m", "labeling_assets_tests.standins.ollama", *options]
        self._process: subprocess.Popen[bytes] | None = None
        self._earlier_calls = 0

    @property
    def calls(self) -> int:
        """Calls since the first start."""
        return self._earlier_calls + int(httpx.get(f"{self.url}/_stats").json()["calls"])

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, cwd=Path(__file__).parents[2], stdout=subprocess.DEVNULL)
        wait_until(lambda: answers(self.url), 60)

    def stop(self) -> None:
        assert self._process is not None
        self._earlier_calls = self.calls
        self._process.kill()
        self._process.wait()


@dataclass
class Outside:
    """A platform on servers of the test's own."""

    platform: Platform
    postgres: PostgresServer
    milvus: MilvusServer
    model: Model

    def outage(self, name: str) -> tuple[Callable[[], object], Callable[[], object]]:
        """How a service is taken down, and how it comes back."""
        return {
            "postgres": (self.postgres.stop, self.postgres.start),
            "postgres hangs": hanging(self.postgres.stragglers),  # all its processes
            "milvus": (self.milvus.stop, self.milvus.start),
            "milvus hangs": hanging(lambda: [self.milvus.pid] if self.milvus.pid else []),
            "model": (self.model.stop, self.model.start),
        }[name]


@pytest.fixture(scope="module")
def outside() -> Iterator[Outside]:
    home = Path(tempfile.mkdtemp(prefix="labeling outages "))
    home.chmod(0o755)
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, home)
        postgres = stack.enter_context(PostgresServer(home / "own postgres"))
        milvus = stack.enter_context(MilvusServer(home / "own milvus"))
        model = Model(latency_ms=1500)
        model.start()
        stack.callback(model.stop)
        platform = stack.enter_context(
            running_platform(
                home / "home", model_url=model.url, POSTGRES_URL=postgres.url("labeling"), MILVUS_URI=milvus.uri
            )
        )
        platform.start()
        yield Outside(platform, postgres, milvus, model)


@pytest.mark.parametrize("name", ["model", "milvus", "milvus hangs", "postgres", "postgres hangs"])
def test_an_outage_in_the_middle_of_a_run_is_outlasted_or_made_good(outside: Outside, name: str) -> None:
    platform, (take_down, bring_back) = outside.platform, outside.outage(name)
    platform.wait_until_in_step(CONVERGENCE_SECONDS)
    day = dt.datetime.now(ZONE).date() - dt.timedelta(days=random.Random(name).randrange(1, 30))
    began = time.time()
    runs_before, calls_before = platform.run_statuses(), outside.model.calls
    with platform.engine.begin() as connection:
        for number in range(40):
            moment = dt.datetime.combine(day, dt.time(number % 24, number), ZONE)
            insert(connection, f"{name} {number}", moment, platform.picture(uuid.uuid4().hex))
    wait_until(lambda: outside.model.calls >= calls_before + SLOTS, 300)  # the run is in the middle of its labels

    take_down()
    down_at = time.monotonic()
    try:
        time.sleep(OUTAGE_SECONDS)
    finally:
        bring_back()
    down_seconds = time.monotonic() - down_at
    seconds = platform.wait_until_in_step(CONVERGENCE_SECONDS)

    runs = platform.run_statuses() - runs_before
    calls, images = outside.model.calls, platform.distinct_images_asked()
    how = "the run waited and went on" if set(runs) == {"SUCCESS"} else "a run failed and the day was picked up again"
    tell(
        f"{name} down for {down_seconds:.0f} s: {how}; in step {seconds:.0f} s after it was back; runs {dict(runs)}; "
        f"{calls} model calls for {images} distinct images; causes: {causes(platform, began)}"
    )
    assert calls <= images + 2 * SLOTS * 4
    assert platform.failed_partitions() == {}
    platform.nothing_is_left_running()


def hanging(pids: Callable[[], list[int]]) -> tuple[Callable[[], object], Callable[[], object]]:
    """How the processes of a server stop to work, and how they go on."""

    def send(number: signal.Signals) -> None:
        chosen = pids()
        assert chosen
        for pid in chosen:
            os.kill(pid, number)

    return lambda: send(signal.SIGSTOP), lambda: send(signal.SIGCONT)


def causes(platform: Platform, since: float) -> list[str]:
    """Why runs since a Unix time have failed, newest first, as the page of each run tells it."""
    failed = f"{{statuses: [FAILURE], createdAfter: {since}}}"
    query = f"""{{ runsOrError(filter: {failed}) {{ ... on Runs {{ results {{ runId
        eventConnection {{ events {{ __typename ... on MessageEvent {{ message }}
        ... on ExecutionStepFailureEvent {{ stepKey error {{ message }} }}
        ... on EngineEvent {{ error {{ message }} }} }} }} }} }} }} }}"""
    found = []
    for run in platform.graphql(query)["runsOrError"]["results"]:
        reasons = [reason for event in run["eventConnection"]["events"] if (reason := reason_in(event))]
        assert reasons, f"run {run['runId']} failed without a cause"
        found.append("; ".join(reasons))
    return found


def reason_in(event: dict[str, Any]) -> str:
    """The cause that an event of a failed run tells; empty where it tells none."""
    error = (event.get("error") or {}).get("message", "").strip()[:200]
    match event["__typename"]:
        case "ExecutionStepFailureEvent":
            return f"{event['stepKey']}: {error}"
        case "EngineEvent" if error or "exit" in event["message"]:
            return f"{event['message']} {error}"[:300].strip()
        case "RunFailureEvent" if "from outside" not in event["message"]:
            return str(event["message"])[:300]
    return ""


def tell(text: str) -> None:
    """Print figures also where output is captured line by line."""
    print(f"\n{text}", file=sys.stderr, flush=True)


def wait_until(is_so: Callable[[], bool], timeout_seconds: float) -> None:
    deadline = time.monotonic() + timeout_seconds
    while not is_so():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.2)


def answers(url: str) -> bool:
    try:
        return httpx.get(url).is_success
    except httpx.HTTPError:
        return False
