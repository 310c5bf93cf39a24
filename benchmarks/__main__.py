"""Runs benchmarks: `python -m benchmarks` all of them, one after the other, `python -m benchmarks NAME` one.

Each is a module with `main()` and runs in a process of its own. Exit code 1 when a ratio is below its goal or a
benchmark fails, 2 for an unknown name. Where LABELING_BENCH_RESULTS names a file, every ROW and RESULT is added to it
as a line of JSON with the machine and the time; `python -m benchmarks.table FILE` makes the documentation's tables.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

BENCHMARKS = (
    "label_stage",
    "two_endpoints",
    "milvus_stage",
    "whole_day",
    "memory",
    "source_fingerprint",
    "perceptual_hash",
    "fetch",
    "label_peers",
    "resume",
    "embedding",
    "gpu",
)
KINDS = ("ROW", "RESULT")


def machine() -> str:
    """What the figures were measured on, in one line."""
    name = platform.processor() or platform.machine()
    cpu_info = Path("/proc/cpuinfo")
    if cpu_info.exists():
        lines = cpu_info.read_text().splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
    return f"{os.cpu_count()} x {name}, {platform.system()} {platform.release()}, Python {platform.python_version()}"


def keep(kind: str, benchmark: str, figures: dict[str, Any]) -> None:
    """Add figures to the file of LABELING_BENCH_RESULTS, where one is named."""
    path = os.environ.get("LABELING_BENCH_RESULTS")
    if not path:
        return
    measured_at = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    about = {"kind": kind, "benchmark": benchmark, "measured_at": measured_at, "machine": machine()}
    with Path(path).open("a") as file:
        file.write(json.dumps(about | figures) + "\n")


def reaches_goal(name: str) -> bool:
    """Run a benchmark, show what it prints, and tell whether it succeeds and every ratio reaches its goal."""
    print(f"== {name}", flush=True)
    results = []
    command = [sys.executable, "-m", f"benchmarks.{name}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            kind, _, figures = line.partition(" ")
            if kind in KINDS:
                keep(kind, name, json.loads(figures))
            if kind == "RESULT":
                results.append(json.loads(figures))
    return process.returncode == 0 and bool(results) and all(each["ratio"] >= each["goal"] for each in results)


def main(names: Sequence[str]) -> int:
    """Run the benchmarks of these names, or all; returns the exit code."""
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        print(f"No benchmark {', '.join(unknown)}. There are: {', '.join(BENCHMARKS)}.", file=sys.stderr)
        return 2
    missed = [name for name in names or BENCHMARKS if not reaches_goal(name)]
    if missed:
        print(f"Below their goal: {', '.join(missed)}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
