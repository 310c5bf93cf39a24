"""Runs benchmarks: `python -m benchmarks` all of them, one after the other, `python -m benchmarks NAME` one.

Each is a module with `main()` and runs in a process of its own. Exit code 1 when a ratio is below its goal or a
benchmark fails, 2 for an unknown name.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence

BENCHMARKS = (
    "label_stage",
    "two_endpoints",
    "milvus_stage",
    "whole_day",
    "memory",
    "source_fingerprint",
    "perceptual_hash",
)
RESULT = "RESULT "


def reaches_goal(name: str) -> bool:
    """Run a benchmark, show what it prints, and tell whether it succeeds and every ratio reaches its goal."""
    print(f"== {name}", flush=True)
    results = []
    command = [sys.executable, "-m", f"benchmarks.{name}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            if line.startswith(RESULT):
                results.append(json.loads(line.removeprefix(RESULT)))
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
