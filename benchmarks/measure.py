"""What all benchmarks share: rounds in turn, the ROW and RESULT lines, and temporary databases.

A benchmark measures ours and its named baseline alternately and in changing order, so that whatever else the machine
does meets both. It may tell figures of who took part as `ROW {…}`; its last lines are `RESULT {…}`, with a ratio that
is so defined that higher is better. LABELING_BENCH_SCALE, a number below 1, makes everything smaller, to try whether a
benchmark works: its figures then say nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import sqlalchemy as sa

from labeling_assets.embedded.milvus import MilvusServer
from labeling_assets.embedded.postgres import PostgresServer
from labeling_assets.services.postgres import create_engine, migrate

SCALE = float(os.environ.get("LABELING_BENCH_SCALE") or 1)


def scaled(count: int, smallest: int = 1) -> int:
    """A number of rows or rounds, made smaller by LABELING_BENCH_SCALE."""
    return max(smallest, round(count * SCALE))


def rounds_in_turn(
    measure_ours: Callable[[int], float], measure_baseline: Callable[[int], float], rounds: int
) -> list[tuple[float, float]]:
    """Pairs of figures (ours, baseline), measured one after the other; every second round begins with the baseline.

    Args:
        measure_ours: Gets the number of the round and returns a figure, higher is better.
        measure_baseline: Likewise.
        rounds: Number of pairs.
    """
    pairs = []
    for number in range(rounds):
        if number % 2:
            baseline = measure_baseline(number)
            ours = measure_ours(number)
        else:
            ours = measure_ours(number)
            baseline = measure_baseline(number)
        print(f"round {number + 1}: ours {ours:.4g}, baseline {baseline:.4g}, ratio {ours / baseline:.3f}", flush=True)
        pairs.append((ours, baseline))
    return pairs


def contestants_in_turn(contestants: Mapping[str, Callable[[int], float]], rounds: int) -> list[dict[str, float]]:
    """Figures of each contestant by name, one mapping a round; each round begins with the next contestant.

    Args:
        contestants: Each gets the number of the round and returns a figure, higher is better.
        rounds: Number of rounds.
    """
    names = list(contestants)
    measured = []
    for number in range(rounds):
        first = number % len(names)
        figures = {name: contestants[name](number) for name in names[first:] + names[:first]}
        print(f"round {number + 1}: " + ", ".join(f"{name} {figures[name]:.4g}" for name in names), flush=True)
        measured.append(figures)
    return measured


def ratios_to_best(figures: Sequence[Mapping[str, float]], ours: str) -> list[float]:
    """In each round, the figure of `ours` to the highest one of the others."""
    return [each[ours] / max(value for name, value in each.items() if name != ours) for each in figures]


def print_row(name: str, who: str, **figures: float | str) -> None:
    """A line of the table of a benchmark: who took part, and the figures by column."""
    rounded = {key: round(value, 3) if isinstance(value, float) else value for key, value in figures.items()}
    print("ROW", json.dumps({"name": name, "who": who, **rounded}), flush=True)


def print_medians(name: str, figures: Sequence[Mapping[str, float]], column: str) -> None:
    """A row for each contestant of `contestants_in_turn`: median, lowest and highest figure."""
    for who in figures[0]:
        values = [each[who] for each in figures]
        low, high = float(min(values)), float(max(values))
        print_row(name, who, **{column: float(statistics.median(values)), "low": low, "high": high})


def print_result(name: str, ratios: Sequence[float], goal: float) -> None:
    """The last line of a benchmark: the median of the ratios, the lowest and highest, and what they should reach."""
    figures = {"ratio": statistics.median(ratios), "low": min(ratios), "high": max(ratios)}
    rounded = {key: round(value, 3) for key, value in figures.items()}
    print("RESULT", json.dumps({"name": name, **rounded, "goal": goal}), flush=True)


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder that goes at the end; every user may enter it, as PostgreSQL's does when root starts it."""
    folder = Path(tempfile.mkdtemp(prefix="labeling-bench-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@contextlib.contextmanager
def database() -> Iterator[sa.Engine]:
    """An engine on the migrated database of LABELING_POSTGRES_URL, or on a temporary PostgreSQL."""
    with contextlib.ExitStack() as running:
        url = os.environ.get("LABELING_POSTGRES_URL")
        if not url:
            folder = running.enter_context(temporary_folder())
            url = running.enter_context(PostgresServer(folder / "postgres")).url("labeling")
        engine = create_engine(url)
        running.callback(engine.dispose)
        migrate(engine)
        yield engine


@contextlib.contextmanager
def milvus_uri() -> Iterator[str]:
    """LABELING_MILVUS_URI, or the address of a temporary Milvus Lite server."""
    with contextlib.ExitStack() as running:
        uri = os.environ.get("LABELING_MILVUS_URI")
        if not uri:
            folder = running.enter_context(temporary_folder())
            uri = running.enter_context(MilvusServer(folder / "milvus")).uri
        yield uri
