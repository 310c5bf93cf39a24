"""A running platform: `labeling dev` in a home of its own, its source table, and what the stores should hold of it.

    with running_platform(home, model_latency_ms=80) as platform:   # services, source table, image host, stand-in model
        platform.start()                                            # labeling dev, until the UI answers
        with platform.engine.begin() as connection:
            insert(connection, "P1", moment, platform.picture("P1"))
        seconds = platform.wait_until_in_step(timeout_seconds=300)
        platform.nothing_is_left_running()

What belongs here: what several soak tests need of a platform. What is done to it is in the tests.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args
from zoneinfo import ZoneInfo

import httpx
import psutil
import sqlalchemy as sa

from labeling_assets.embedded.daemon import find_supervisor
from labeling_assets.embedded.home import Home
from labeling_assets.errors import LabelingError
from labeling_assets.products.queries import SOURCE_COLUMNS
from labeling_assets.services.milvus.connection import MilvusConnection
from labeling_assets.services.postgres import create_engine
from labeling_assets.settings import Settings
from labeling_assets_tests.integration.installation import Installation
from labeling_assets_tests.services.faulty_image_host import ImageHost, image_host, jpeg, with_etag
from labeling_assets_tests.standins.process import ollama_process

TABLE = "ai_craw.product_marketing_summary"
ZONE = ZoneInfo(Settings.model_fields["timezone"].default)
SLOTS = 4
START_SECONDS = 180
STOP_SECONDS = 120
POLL_SECONDS = 1.0
SHOWN = 8
GRAPHQL_TRIES = 4
AT_WORK = {"NOT_STARTED", "QUEUED", "STARTING", "STARTED", "CANCELING"}
"""Statuses of runs that have not ended."""

Part = Literal["run", "daemon", "code_server", "webserver", "dev", "postgres", "milvus", "supervisor"]
_SIGNS: Mapping[str, Sequence[str]] = {
    "run": ["multiprocessing.spawn"],
    "daemon": ["labeling_assets.daemon"],
    "code_server": ["code-server", "api grpc"],
    "webserver": ["dagster_webserver"],
    "dev": ["labeling dev"],
}
"""What the command line of each part's processes has in it; the servers are known from the state of the stack."""


@dataclass(frozen=True)
class Stored:
    """What a store should hold of a product.

    Attributes:
        day: Business day.
        name_store: Store.
        title: Title, in Milvus alone.
        image_sha256: sha256 of the image's bytes, in Milvus alone.
    """

    day: dt.date
    name_store: str
    title: str = ""
    image_sha256: str = ""


class Platform:
    """`labeling dev` and its services.

    Args:
        installation: The home and its settings.
        images: Image host.
        model_url: Stand-in for Ollama.

    Attributes:
        installation: As given.
        images: As given.
        model_url: As given.
        url: Address of the UI.
        dev: The process of `labeling dev`; None before the first start.
    """

    def __init__(self, installation: Installation, images: ImageHost, model_url: str) -> None:
        self.installation = installation
        self.images = images
        self.model_url = model_url
        self.port = _free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.dev: subprocess.Popen[bytes] | None = None
        self._pictures: dict[str, str] = {}
        self._engines: dict[str, sa.Engine] = {}
        self._milvus: MilvusConnection | None = None

    @property
    def home(self) -> Path:
        """LABELING_HOME; `command.log` in it has all that `labeling dev` printed."""
        return self.installation.home

    # The process

    def start(self) -> None:
        """Start `labeling dev` and wait until its UI knows the assets."""
        assert self.dev is None or self.dev.poll() is not None, "it runs already"
        self.dev = self.installation.start("dev", "--port", str(self.port))
        deadline = time.monotonic() + START_SECONDS
        while not self.is_up():
            assert self.dev.poll() is None, self.log()
            assert time.monotonic() < deadline, "the UI does not come up\n" + self.log()
            time.sleep(POLL_SECONDS)

    def is_up(self) -> bool:
        """Whether the UI answers and knows the assets, which it does a moment later."""
        try:
            return bool(self.graphql("{ assetNodes { assetKey { path } } }")["assetNodes"])
        except httpx.HTTPError:
            return False

    def stop(self) -> int:
        """Stop `labeling dev` as Ctrl+C does; its exit code."""
        assert self.dev is not None
        self.dev.send_signal(signal.SIGTERM)
        return self.dev.wait(timeout=STOP_SECONDS)

    def processes(self, part: Part) -> list[psutil.Process]:
        """The processes of a part that live now, also those whose parent is gone."""
        if part == "supervisor":
            supervisor = find_supervisor(Home(self.home))
            return [psutil.Process(supervisor.pid)] if supervisor else []
        if part == "postgres" or part == "milvus":
            state = Home(self.home).read_state()
            pid = state.services[part].pid if state and part in state.services else None
            return [psutil.Process(pid)] if pid and psutil.pid_exists(pid) else []
        signs = _SIGNS[part]
        return [each for each, command in self._dagster_processes() if any(sign in command for sign in signs)]

    def kill(self, *parts: Part, with_signal: signal.Signals = signal.SIGKILL) -> list[int]:
        """Send SIGKILL, or another signal, to every process of the parts; all parts where none is named.

        Returns:
            The process ids.
        """
        chosen = [process for part in parts or get_args(Part) for process in self.processes(part)]
        for process in chosen:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(with_signal)
        if self.dev is not None and self.dev.pid in {process.pid for process in chosen}:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.dev.wait(timeout=10)
        return [process.pid for process in chosen]

    def log(self, lines: int = 60) -> str:
        """The last lines of what `labeling dev` printed."""
        text = (self.home / "command.log").read_text(encoding="utf-8", errors="replace")
        return "\n".join(text.splitlines()[-lines:])

    def _dagster_processes(self) -> Iterator[tuple[psutil.Process, str]]:
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                if process.environ().get("LABELING_HOME") == str(self.home):
                    yield process, " ".join(process.cmdline())

    # The source

    @property
    def engine(self) -> sa.Engine:
        """Engine on the source database."""
        return self._engine("POSTGRES_URL")

    def picture(self, name: str) -> str:
        """URL at which a picture of its own is served; the same name is the same picture."""
        seed = hashlib.sha256(name.encode()).digest()
        body = jpeg((seed[0], seed[1], seed[2]), (64 + seed[3] % 64, 64 + seed[4] % 64))
        url = self.images.add(f"/{seed.hex()}.jpg", with_etag(body))
        self._pictures[url] = hashlib.sha256(body).hexdigest()
        return url

    def broken_picture(self, name: str) -> str:
        """URL at which nothing is served."""
        return self.images.url(f"/missing/{hashlib.sha256(name.encode()).hexdigest()}.jpg")

    def expected(self) -> dict[str, Stored]:
        """What the stores should hold, from the rows of the source.

        Of several rows of a product on one day the newest counts; of several days the newest whose row has an image.
        """
        query = sa.text(f"select product_id, image, published_at, title, store from {TABLE} order by published_at")
        with self.engine.connect() as connection:
            rows = connection.execute(query).all()
        of_days = {(row.published_at.astimezone(ZONE).date(), row.product_id): row for row in rows}
        return {
            row.product_id: Stored(day, row.store, row.title, self._pictures[row.image])
            for (day, _), row in sorted(of_days.items(), key=lambda item: item[0])
            if row.image in self._pictures
        }

    def row_count(self) -> int:
        """Rows of the source."""
        return int(self.query(f"select count(*) from {TABLE}")[0][0])

    # The stores

    def milvus(self) -> dict[str, tuple[Stored, str]]:
        """What Milvus holds of each product, and its description."""
        if self._milvus is None:
            self._milvus = MilvusConnection(self.installation.address("MILVUS_URI"))
        collection = Settings.model_fields["milvus_collection"].default
        if not self._milvus.call("has_collection", collection):
            return {}
        fields = ["id_sanpham", "date", "name_store", "title", "image_sha256", "description"]
        rows = self._milvus.call(
            "query",
            collection,
            filter='id_sanpham != ""',
            output_fields=fields,
            limit=16_000,
            consistency_level="Strong",
        )
        assert len(rows) < 16_000, "more than one page"
        held = {
            row["id_sanpham"]: (
                Stored(dt.date.fromisoformat(row["date"]), row["name_store"], row["title"], row["image_sha256"]),
                row["description"],
            )
            for row in rows
        }
        assert len(held) == len(rows), "a product is held twice"
        return held

    def data_label(self) -> dict[str, tuple[Stored, str]]:
        """What `data_label` holds of each product, and its description."""
        if not self.query("select to_regclass('ai_craw.data_label')")[0][0]:
            return {}
        rows = self.query("select id_sanpham, date_created, name_store, description from ai_craw.data_label")
        return {row.id_sanpham: (Stored(row.date_created, row.name_store), row.description) for row in rows}

    def differences(self) -> list[str]:
        """Where the stores are not what the source says; empty: all agree."""
        expected, milvus, label = self.expected(), self.milvus(), self.data_label()
        found = []
        for id_ in sorted(expected.keys() | milvus.keys() | label.keys()):
            wanted = expected.get(id_)
            held, description = milvus.get(id_, (None, ""))
            if held != wanted:
                found.append(f"{id_}: Milvus holds {held}, the source says {wanted}")
            in_label, label_description = label.get(id_, (None, ""))
            brief = wanted and Stored(wanted.day, wanted.name_store)
            if in_label != brief or (wanted and label_description != description):
                found.append(f"{id_}: data_label holds {in_label}, the source says {brief}")
        return found

    def wait_until_in_step(self, timeout_seconds: float) -> float:
        """Wait until the stores hold what the source says and no run is on its way; seconds that it took."""
        started = time.monotonic()
        while True:
            problem = self._out_of_step()
            seconds = time.monotonic() - started
            if not problem:
                return seconds
            assert self.dev is not None
            assert self.dev.poll() is None, f"labeling dev has ended with {self.dev.returncode}\n{self.log()}"
            assert seconds < timeout_seconds, f"not in step after {seconds:.0f} s: {problem}\n{self.log()}"
            time.sleep(POLL_SECONDS)

    def _out_of_step(self) -> str:
        try:
            if at_work := {status: count for status, count in self.run_statuses().items() if status in AT_WORK}:
                return f"runs at work: {at_work}"
            differences = self.differences()
        except (sa.exc.OperationalError, sa.exc.InterfaceError, LabelingError) as error:
            return f"a service does not answer: {error}"
        return f"{len(differences)} differences: " + "; ".join(differences[:SHOWN]) if differences else ""

    # Dagster

    def query(self, statement: str, database: str = "POSTGRES_URL") -> Sequence[sa.Row[Any]]:
        """Rows of a statement on the source database, or, with DAGSTER_POSTGRES_URL, on that of Dagster."""
        with self._engine(database).begin() as connection:
            result = connection.execute(sa.text(statement))
            return result.all() if result.returns_rows else []

    def run_statuses(self) -> Counter[str]:
        """How many runs have each status."""
        rows = self.query("select status, count(*) from runs group by 1", "DAGSTER_POSTGRES_URL")
        return Counter(dict(map(tuple, rows)))

    def graphql(self, query: str) -> Any:
        """The data of a GraphQL answer.

        Asked again after an error of the server: Dagster's webserver keeps connections, and after PostgreSQL was
        restarted it meets a broken one in each of its three storages.
        """
        for _ in range(GRAPHQL_TRIES):
            answer = httpx.post(f"{self.url}/graphql", json={"query": query}, timeout=60)
            if not answer.is_server_error:
                break
        assert answer.is_success, answer.text
        return answer.json()["data"]

    def failed_partitions(self) -> dict[str, int]:
        """How many partitions of each asset the UI shows as failed."""
        nodes = self.graphql("{ assetNodes { assetKey { path } partitionStats { numFailed } } }")["assetNodes"]
        stats = {node["assetKey"]["path"][-1]: node["partitionStats"] for node in nodes}
        return {name: each["numFailed"] for name, each in stats.items() if each and each["numFailed"]}

    def nothing_is_left_running(self) -> None:
        """No run is left on its way, and no pool slot is used or waited for."""
        assert not AT_WORK & self.run_statuses().keys()
        used = "select count(*) from concurrency_slots where run_id is not null"
        for statement in ("select count(*) from pending_steps", used):
            assert self.query(statement, "DAGSTER_POSTGRES_URL")[0][0] == 0, statement

    def model_calls(self) -> int:
        """Calls of the stand-in model since it started."""
        return int(httpx.get(f"{self.model_url}/_stats").json()["calls"])

    def distinct_images_asked(self) -> int:
        """Distinct images that the ledger has an answer for."""
        return int(self.query("select count(distinct image_sha256) from labeling.label_ledger")[0][0])

    def _engine(self, name: str) -> sa.Engine:
        if name not in self._engines:
            self._engines[name] = create_engine(self.installation.address(name))
        return self._engines[name]

    def close(self) -> None:
        """End everything that is left of the platform."""
        for engine in self._engines.values():
            engine.dispose()
        if self._milvus is not None:
            self._milvus.close()
        if self.dev is not None and self.dev.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.stop()
        self.kill("dev", "daemon", "webserver", "code_server", "run")
        stopped = self.installation.labeling("down")
        if stopped.returncode != 0:
            print(stopped.stderr, file=sys.stderr)


@contextlib.contextmanager
def running_platform(
    home: Path, *, model_latency_ms: int = 80, model_url: str | None = None, **settings: str
) -> Iterator[Platform]:
    """A platform whose services run and whose source table is empty; `labeling dev` is started by the test.

    Args:
        home: LABELING_HOME.
        model_latency_ms: Time of one label.
        model_url: A model server of the test's own; by default a stand-in of its own process.
        **settings: Further settings, without prefix; POSTGRES_URL and MILVUS_URI name servers of the test's own.
    """
    with contextlib.ExitStack() as stack:
        images = stack.enter_context(image_host())
        url = model_url or stack.enter_context(ollama_process(slots=SLOTS, latency_ms=model_latency_ms))
        today = dt.datetime.now(dt.UTC).date()
        defaults = {
            "VISION_BACKEND": "ollama",
            "OLLAMA_HOSTS": url,
            "VISION_SLOTS": str(SLOTS),
            "ALLOW_PRIVATE_IMAGE_HOSTS": f"127.0.0.1:{images.port}",
            "SENSOR_INTERVAL_SECONDS": "5",
            "FIRST_DAY": str(today - dt.timedelta(days=100)),
        }
        platform = Platform(Installation(home, defaults | settings), images, url)
        stack.callback(platform.close)
        up = platform.installation.labeling("up", "--detach")
        assert up.returncode == 0, up.stdout + up.stderr
        columns = ", ".join(f"{name} {kind}" for name, kind in SOURCE_COLUMNS.items())
        platform.query("create schema if not exists ai_craw")
        platform.query(f"create table if not exists {TABLE} ({columns})")
        platform.query(f"create index if not exists published_at on {TABLE} (published_at)")
        yield platform


def insert(
    connection: sa.Connection, product_id: str, published_at: dt.datetime, image: str, title: str = "", **values: Any
) -> None:
    """Add a row to the source."""
    row = {
        "product_id": product_id,
        "published_at": published_at,
        "image": image,
        "title": title or f"Title of {product_id}",
        "store": "Shop",
        "impression": 100,
    } | values
    names = ", ".join(row)
    marks = ", ".join(f":{name}" for name in row)
    connection.execute(sa.text(f"insert into {TABLE} ({names}) values ({marks})"), row)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
