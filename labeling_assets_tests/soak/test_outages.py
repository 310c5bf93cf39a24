"""The platform goes on by itself after the outage of each of its services in the middle of a run.

Sizes: LABELING_TEST_SOAK_OUTAGE_SECONDS of each outage (60 in full).
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
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from labeling_assets.embedded.milvus import MilvusServer
from labeling_assets.embedded.ports import free_port
from labeling_assets.embedded.postgres import PostgresServer
from labeling_assets_tests.soak.running import SLOTS, ZONE, Platform, insert, running_platform
from labeling_assets_tests.soak.watching import tell, wait_until

pytestmark = [pytest.mark.soak, pytest.mark.timeout(3600)]

OUTAGE_SECONDS = float(os.environ.get("LABELING_TEST_SOAK_OUTAGE_SECONDS", "20"))
CONVERGENCE_SECONDS = 1200


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


def answers(url: str) -> bool:
    try:
        return httpx.get(url).is_success
    except httpx.HTTPError:
        return False
