"""The label stage against Pixeltable, DataChain and Daft: 400 rows, half of them repeated, and a server with faults.

Ours is what the asset `qwen_labels` does, see `label_stage.py`. Each contestant gets the same rows, prompt and schema
and a fresh model server (`label_work.py`), labels them, and does the same once more. Counted are the calls that reached
the model in each run, the rows with a valid label at the end of the first run, and the rows a second. What the model
server allows is the limit: slots divided by latency; the ratio of `label_peers` is our calls a second to it. The ratio
of `label_peers_rows` is our rows a second to those of the peer with most.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from benchmarks.label_work import (
    CALLS_PER_SECOND,
    LATENCY_MS,
    MODEL,
    SLOTS,
    LabelWork,
    is_label,
    make_work,
    model_calls,
    model_server,
    most_in_flight,
)
from benchmarks.measure import (
    contestants_in_turn,
    database,
    print_medians,
    print_result,
    print_row,
    ratios_to_best,
    scaled,
    temporary_folder,
)
from benchmarks.peers.environments import run_peer
from labeling_assets.products.labels import Label
from labeling_assets.services.ledger import LabelLedger
from labeling_assets.services.tables import label_ledger
from labeling_assets.services.vision.labeler import Labeler
from labeling_assets.services.vision.ollama import OllamaVisionModel

ROWS = scaled(400, smallest=20)
ROUNDS = scaled(3)
GOAL = 0.95
GOAL_ROWS = 1.5
OURS = "labeling-assets"

# By name in the table: environment and script, and settings. Those that need minutes are measured once.
PEERS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "Pixeltable, best": ("pixeltable", "pixeltable_label", {"is_best": True}),
    "DataChain, best": ("datachain", "datachain_label", {"parallel": SLOTS, "attempts": 3}),
    "Daft, best": ("daft", "daft_label", {"is_best": True}),
}
PEERS_ONCE: dict[str, tuple[str, str, dict[str, Any]]] = {
    "Pixeltable, default": ("pixeltable", "pixeltable_label", {"is_best": False}),
    "DataChain, default": ("datachain", "datachain_label", {}),
    "Daft, default": ("daft", "daft_label", {"is_best": False}),
}


def our_labels(engine: sa.Engine, work: LabelWork, url: str) -> tuple[float, list[Any]]:
    """Seconds of the label stage, and what each row ended with: a label or None."""
    model = OllamaVisionModel([url], MODEL, SLOTS, timeout_seconds=60)
    labeler = Labeler(model, LabelLedger(engine))
    started = time.perf_counter()
    outcomes = dict(labeler.label_all(work.rows, work.jpegs.__getitem__))
    seconds = time.perf_counter() - started
    model.close()
    found = [outcomes[sha] for sha in work.rows]
    return seconds, [each.labels.model_dump() if isinstance(each, Label) else None for each in found]


class OurLabels:
    """Our two runs, the first with an empty ledger."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def __call__(self, work: LabelWork, url: str, _: Path) -> Callable[[], tuple[float, list[Any]]]:
        """What makes one run."""
        with self._engine.begin() as connection:
            connection.execute(sa.delete(label_ledger).where(label_ledger.c.model == MODEL))
        return functools.partial(our_labels, self._engine, work, url)


def peer_labels(
    peer: tuple[str, str, dict[str, Any]], work: LabelWork, url: str, home: Path
) -> Callable[[], tuple[float, list[Any]]]:
    """What makes one run of a peer, each in a process of its own over the same home."""
    environment, script, settings = peer
    home.mkdir()
    job = work.job(url, settings | {"home": str(home)})

    def run() -> tuple[float, list[Any]]:
        (answer,) = run_peer(environment, script, job, OLLAMA_HOST=url, PIXELTABLE_HOME=str(home / "pixeltable"))
        assert len(answer["labels"]) == len(work.rows)
        return answer["seconds"], answer["labels"]

    return run


def measured(
    name: str, work: LabelWork, make_run: Callable[[LabelWork, str, Path], Callable[[], tuple[float, list[Any]]]]
) -> tuple[float, dict[str, int]]:
    """Seconds of the first run, and what is counted of both."""
    with model_server(work) as url, temporary_folder() as folder:
        run = make_run(work, url, folder / "home")
        seconds, labels = run()
        counts = {
            "valid_rows": sum(map(is_label, labels)),
            "calls": model_calls(url),
            "most_in_flight": most_in_flight(url),
        }
        _, labels = run()
        counts |= {"calls_again": model_calls(url) - counts["calls"], "valid_rows_after": sum(map(is_label, labels))}
    print_row("label_peers", name, rows_per_second=len(work.rows) / seconds, **counts)
    return seconds, counts


def our_rate(engine: sa.Engine, work: LabelWork, call_rates: list[float], _: int) -> float:
    """Our rows a second; notes the calls a second, and makes sure of what is promised."""
    seconds, counts = measured(OURS, work, OurLabels(engine))
    call_rates.append(counts["calls"] / seconds)
    distinct = len(work.jpegs)
    assert counts["calls"] == distinct + len(work.malformed), "one call a content, one more where it made no sense"
    assert counts["valid_rows"] == sum(sha not in work.malformed for sha in work.rows)
    assert counts["calls_again"] == 0
    return len(work.rows) / seconds


def peer_rate(name: str, work: LabelWork, _: int) -> float:
    """Rows a second of a peer, those without a label too."""
    seconds, _counts = measured(name, work, functools.partial(peer_labels, (PEERS | PEERS_ONCE)[name]))
    return len(work.rows) / seconds


def main() -> None:
    """Measure and print."""
    call_rates: list[float] = []
    with temporary_folder() as folder, database() as engine:
        work = make_work(folder, ROWS // 2, repeats=2, is_faulty=True)
        print(
            f"{len(work.rows)} rows, {len(work.jpegs)} distinct images, {len(work.malformed)} answered with nonsense, "
            f"{len(work.busy)} refused once; {SLOTS} slots, {LATENCY_MS} ms: {CALLS_PER_SECOND:g} calls a second"
        )
        contestants: dict[str, Callable[[int], float]] = {OURS: functools.partial(our_rate, engine, work, call_rates)}
        contestants |= {name: functools.partial(peer_rate, name, work) for name in PEERS}
        figures = contestants_in_turn(contestants, ROUNDS)
        for name in PEERS_ONCE:
            rate = peer_rate(name, work, 0)
            print(f"once: {name} {rate:.4g}", flush=True)
    print_medians("label_peers_rows", figures, "rows_per_second")
    print_result("label_peers_rows", ratios_to_best(figures, OURS), GOAL_ROWS)
    print_result("label_peers", [rate / CALLS_PER_SECOND for rate in call_rates], GOAL)


if __name__ == "__main__":
    main()
