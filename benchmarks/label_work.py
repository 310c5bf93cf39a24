"""The labeling work that ours and the peers are given, and the model server that it is done with.

Rows name JPEGs of 512 px in a folder; several may name the same. Where the server is to be faulty, 1 % of the contents
get only replies without JSON, and 5 % are refused with 503 when they are asked about first. It serves 4 requests at
once.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from pydantic import ValidationError

from benchmarks.label_stage import draw_jpegs
from labeling_assets.products.labels import LABEL_SCHEMA, ProductLabels
from labeling_assets.products.prompt import build_prompt
from labeling_assets_tests.standins.any_client import AnyClient
from labeling_assets_tests.standins.model import SlottedModel
from labeling_assets_tests.standins.ollama import OllamaStandIn
from labeling_assets_tests.standins.replies import Fault

MODEL = "qwen2.5vl:latest"
SLOTS = 4
LATENCY_MS = 200
CALLS_PER_SECOND = SLOTS / (LATENCY_MS / 1000)
MALFORMED_SHARE = 0.01
BUSY_SHARE = 0.05
PROJECT = Path(__file__).parents[1]


@dataclass(frozen=True)
class LabelWork:
    """Rows to label.

    Attributes:
        jpegs: The distinct images, by sha256.
        rows: sha256 of each row's image.
        malformed: Images about which the model talks nonsense, whatever it is asked.
        busy: Images that are refused when they are asked about first.
        folder: Holds each image as `<sha256>.jpg`.
    """

    jpegs: Mapping[str, bytes]
    rows: Sequence[str]
    malformed: Sequence[str]
    busy: Sequence[str]
    folder: Path

    @property
    def faults(self) -> list[Fault]:
        """What the server does wrong."""
        faults = [Fault("busy", images=tuple(self.busy), first_tries=1), Fault("no_json", images=tuple(self.malformed))]
        return [fault for fault in faults if fault.images]  # without images a fault concerns all

    def job(self, url: str, settings: Mapping[str, Any]) -> dict[str, Any]:
        """What a peer's script gets."""
        rows = [{"row_id": number, "path": str(self.folder / f"{sha}.jpg")} for number, sha in enumerate(self.rows)]
        about = {"url": url, "model": MODEL, "prompt": build_prompt(), "schema": LABEL_SCHEMA}
        return {"rows": rows, **about, "settings": dict(settings)}


def make_work(folder: Path, distinct: int, *, repeats: int, is_faulty: bool) -> LabelWork:
    """The work, with its distinct images written to a folder; each is in `repeats` rows."""
    jpegs = draw_jpegs(distinct)
    for sha, jpeg in jpegs.items():
        (folder / f"{sha}.jpg").write_bytes(jpeg)
    chance = random.Random(7)
    shas = list(jpegs) * repeats
    chance.shuffle(shas)
    drawn = chance.sample(list(jpegs), len(jpegs))
    malformed = drawn[: max(1, round(len(jpegs) * MALFORMED_SHARE))] if is_faulty else []
    busy = drawn[-max(1, round(len(jpegs) * BUSY_SHARE)) :] if is_faulty else []
    return LabelWork(jpegs, shas, malformed, busy, folder)


def is_label(label: object) -> bool:
    """Whether what a row ended with is a valid label: an object, or its JSON text, alone."""
    try:
        ProductLabels.model_validate(json.loads(label) if isinstance(label, str) else label)
    except (ValueError, ValidationError):
        return False
    return True


def model_calls(url: str) -> int:
    """Requests that reached the model so far."""
    return int(_stats(url)["calls"])


def most_in_flight(url: str) -> int:
    """Most requests that were at work or waited at once."""
    return int(_stats(url)["max_in_flight"])


def _stats(url: str) -> dict[str, Any]:
    stats: dict[str, Any] = httpx.get(f"{url}/_stats", timeout=30).raise_for_status().json()
    return stats


@contextlib.contextmanager
def model_server(work: LabelWork) -> Iterator[str]:
    """The address of a model server that runs as long as the block and has seen nothing yet."""
    options = json.dumps([vars(fault) for fault in work.faults])
    command = [sys.executable, "-m", "benchmarks.label_work", "--faults", options]
    with subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            url = process.stdout.readline().strip()
            assert url, "the model server does not start"
            yield url
        finally:
            process.terminate()


def main() -> None:
    """Run the model server as a process; its address is printed."""
    parser = argparse.ArgumentParser(description="A model server for benchmarks.")
    parser.add_argument("--faults", type=json.loads, default=[])
    faults = [Fault(**fault | {"images": tuple(fault["images"])}) for fault in parser.parse_args().faults]
    model = SlottedModel(slots=SLOTS, latency_seconds=LATENCY_MS / 1000, faults=faults)
    app = AnyClient(OllamaStandIn(model).app, LABEL_SCHEMA)
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="critical", access_log=False, lifespan="off")
    listening = config.bind_socket()
    listening.listen(1024)
    print(f"http://127.0.0.1:{listening.getsockname()[1]}", flush=True)
    uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    main()
