"""Two model servers against one: rows a second of the label stage, and a server that is killed half-way.

Each server is a stand-in of four slots in a process of its own. Both sides do what the asset `qwen_labels` does: ledger
look-up, claims, the real `ollama` client, parsing, and a commit of each reply to PostgreSQL. At last, one of the two is
killed when half of the rows are labeled: every row must get the label that it gets without.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

import sqlalchemy as sa

from benchmarks.label_stage import MODEL, draw_jpegs
from benchmarks.measure import database, print_result, rounds_in_turn
from labeling_assets.products.labels import Label, ProductLabels
from labeling_assets.services.ledger import LabelLedger
from labeling_assets.services.tables import label_ledger
from labeling_assets.services.vision.labeler import Labeler
from labeling_assets.services.vision.ollama import OllamaVisionModel
from labeling_assets_tests.standins.process import killable_ollama_process

SLOTS = 4
LATENCY_MS = 300
IMAGES = 320
ROUNDS = 3
GOAL = 1.9


def label_all(
    engine: sa.Engine, urls: list[str], jpegs: dict[str, bytes], when_half: Callable[[], None] = lambda: None
) -> tuple[dict[str, ProductLabels], float]:
    """The label of every image, with an empty ledger, and the images a second.

    Args:
        engine: On a migrated database.
        urls: The servers.
        jpegs: Distinct images by sha256.
        when_half: Called when half of the images are labeled.
    """
    with contextlib.closing(OllamaVisionModel(urls, MODEL, SLOTS, timeout_seconds=60)) as model:
        with engine.begin() as connection:
            connection.execute(sa.delete(label_ledger).where(label_ledger.c.model_digest == model.digest))
        labels = {}
        started = time.perf_counter()
        for number, (sha, outcome) in enumerate(
            Labeler(model, LabelLedger(engine)).label_all(jpegs, jpegs.__getitem__)
        ):
            assert isinstance(outcome, Label), f"{sha} has no label: {outcome}"
            labels[sha] = outcome.labels
            if number == len(jpegs) // 2:
                when_half()
        return labels, len(jpegs) / (time.perf_counter() - started)


def main() -> None:
    """Measure and print."""
    jpegs = draw_jpegs(IMAGES)
    print(f"{IMAGES} distinct images; servers of {SLOTS} slots, {LATENCY_MS} ms; baseline: one server")
    with contextlib.ExitStack() as running:
        engine = running.enter_context(database())
        servers = [running.enter_context(killable_ollama_process(slots=SLOTS, latency_ms=LATENCY_MS)) for _ in range(2)]
        urls = [url for url, _ in servers]
        pairs = rounds_in_turn(
            lambda _: label_all(engine, urls, jpegs)[1], lambda _: label_all(engine, urls[:1], jpegs)[1], ROUNDS
        )
        expected, _ = label_all(engine, urls, jpegs)
        found, rate = label_all(engine, urls, jpegs, when_half=servers[1][1].kill)
        assert found == expected, "a row was lost or labeled otherwise"
    print(f"one of two killed half-way: {len(found)} of {IMAGES} rows labeled, {rate:.4g} a second")
    print_result("two_endpoints", [ours / baseline for ours, baseline in pairs], GOAL)


if __name__ == "__main__":
    main()
