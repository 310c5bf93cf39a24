"""Kill -9 in the middle of labeling, and run again: how many calls are made twice, against DataChain.

Rows all show something else and the server makes no mistakes, so every call beyond one a row is a repetition. A run is
killed with all its processes when half the rows have reached the model, and then run to its end. The ratio of `resume`
is the rows to our calls, 1 where nothing is repeated; a killed process can lose the requests under way, one a slot. The
ratio of `resume_peers` is DataChain's calls, at its best setting, to ours.
"""

from __future__ import annotations

import contextlib
import functools
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.label_work import MODEL, PROJECT, SLOTS, LabelWork, is_label, make_work, model_calls, model_server
from benchmarks.measure import database, print_result, print_row, scaled, temporary_folder
from benchmarks.peers.environments import run_peer, started_peer
from labeling_assets.products.labels import Label
from labeling_assets.services.ledger import LabelLedger
from labeling_assets.services.postgres import create_engine
from labeling_assets.services.vision.labeler import Labeler
from labeling_assets.services.vision.ollama import OllamaVisionModel

ROWS = scaled(200, smallest=24)
POLL_SECONDS = 0.02
OURS = "labeling-assets"
PEERS: dict[str, dict[str, Any]] = {
    "DataChain, default": {},
    "DataChain, each row stored at once": {"batch_size": 1},
    "DataChain, each row stored at once, 4 processes": {"batch_size": 1, "parallel": SLOTS},
}
Started = Callable[[], contextlib.AbstractContextManager[subprocess.Popen[str]]]


def calls_of(name: str, work: LabelWork, url: str, started: Started, finish: Callable[[], list[Any]]) -> int:
    """Calls of a run that is killed at half and of the one after it; every row must be labeled at the end."""
    with started() as process:
        while model_calls(url) < len(work.rows) // 2:
            assert process.poll() is None, f"{name} ended before it was killed"
            time.sleep(POLL_SECONDS)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    before = model_calls(url)
    labels = finish()
    assert len(labels) == len(work.rows)
    valid, calls = sum(map(is_label, labels)), model_calls(url)
    repeated = calls - len(work.rows)
    print_row("resume", name, calls_before=before, calls=calls, repeated=repeated, valid_rows=valid)
    return calls


def label_rows(url: str, postgres_url: str, folder: Path, shas: list[str]) -> list[Any]:
    """Our label stage; the labels in the order of the images."""
    engine = create_engine(postgres_url)
    model = OllamaVisionModel([url], MODEL, SLOTS, timeout_seconds=60)
    outcomes = dict(
        Labeler(model, LabelLedger(engine)).label_all(shas, lambda sha: (folder / f"{sha}.jpg").read_bytes())
    )
    model.close()
    engine.dispose()
    found = [outcomes[sha] for sha in shas]
    return [each.labels.model_dump() if isinstance(each, Label) else None for each in found]


@contextlib.contextmanager
def our_process(arguments: dict[str, Any]) -> Iterator[subprocess.Popen[str]]:
    """Our label stage in a session of its own; the arguments reach it by its input, since they hold a password."""
    command = [sys.executable, "-m", "benchmarks.resume", "label"]
    with subprocess.Popen(command, cwd=PROJECT, stdin=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stdin is not None
        process.stdin.write(json.dumps(arguments))
        process.stdin.close()
        try:
            yield process
        finally:
            process.kill()


def our_calls(work: LabelWork) -> int:
    """Our calls in both runs."""
    with database() as engine, model_server(work) as url:
        address = engine.url.render_as_string(hide_password=False)
        shas = list(work.jpegs)
        arguments = {"url": url, "postgres_url": address, "folder": str(work.folder), "shas": shas}
        again = functools.partial(label_rows, url, address, work.folder, shas)
        return calls_of(OURS, work, url, functools.partial(our_process, arguments), again)


def datachain_calls(name: str, work: LabelWork) -> int:
    """DataChain's calls in both runs, with one of its settings."""
    with temporary_folder() as home, model_server(work) as url:
        job = work.job(url, PEERS[name] | {"home": str(home)})

        @contextlib.contextmanager
        def started() -> Iterator[subprocess.Popen[str]]:
            with started_peer("datachain", "datachain_label", job) as (process, _):
                yield process

        def finish() -> list[Any]:
            (answer,) = run_peer("datachain", "datachain_label", job)
            labels: list[Any] = answer["labels"]
            return labels

        return calls_of(name, work, url, started, finish)


def main() -> None:
    """Measure and print."""
    with temporary_folder() as folder:
        work = make_work(folder, ROWS, repeats=1, is_faulty=False)
        ours = our_calls(work)
        theirs = min(datachain_calls(name, work) for name in PEERS)
    rows = len(work.rows)
    goal = math.floor(rows / (rows + SLOTS) * 1000) / 1000  # ratios are printed with three digits
    print_result("resume_peers", [theirs / ours], goal)
    print_result("resume", [rows / ours], goal)


if __name__ == "__main__":
    if sys.argv[1:] == ["label"]:
        given = json.load(sys.stdin)
        label_rows(given["url"], given["postgres_url"], Path(given["folder"]), given["shas"])
    else:
        main()
