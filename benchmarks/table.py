"""Makes the tables of `docs/benchmarks.md`: `python -m benchmarks.table FILE`.

The file is what LABELING_BENCH_RESULTS named while benchmarks ran. Of a benchmark that ran several times the last run
counts. What stands between the two marks of the page is replaced, nothing else.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
REQUIREMENTS = Path(__file__).parent / "peers" / "requirements"
BEGIN, END = "<!-- results: python -m benchmarks.table -->", "<!-- end of results -->"
ABOUT = ("kind", "benchmark", "measured_at", "machine", "name", "who")
Line = dict[str, Any]


def last_runs(lines: list[Line]) -> dict[str, list[Line]]:
    """The lines of each benchmark's last run; a run ends with its last RESULT before the next ROW."""
    runs: dict[str, list[Line]] = {}
    for line in lines:
        run = runs.setdefault(line["benchmark"], [])
        names = [each["name"] for each in run if each["kind"] == "RESULT"]
        is_next_run = bool(names) and (line["kind"] == "ROW" or line["name"] in names)
        if is_next_run:
            run.clear()
        run.append(line)
    return runs


def result_table(runs: dict[str, list[Line]]) -> list[str]:
    """One row for each ratio."""
    table = ["| ratio | goal | median | lowest | highest | reached |", "|---|---|---|---|---|---|"]
    for run in runs.values():
        for each in run:
            if each["kind"] == "RESULT":
                is_reached = "yes" if each["ratio"] >= each["goal"] else "**no**"
                figures = (each["goal"], each["ratio"], each["low"], each["high"])
                table.append(f"| `{each['name']}` | {' | '.join(f'{value:.3g}' for value in figures)} | {is_reached} |")
    return table


def row_table(rows: list[Line]) -> list[str]:
    """Who took part, with all figures that any of them has; the last row of each counts."""
    rows = list({row["who"]: row for row in rows}.values())
    columns = list(dict.fromkeys(column for row in rows for column in row if column not in ABOUT))
    table = [f"| | {' | '.join(column.replace('_', ' ') for column in columns)} |", "|---" * (len(columns) + 1) + "|"]
    for row in rows:
        values = [row.get(column, "") for column in columns]
        shown = [f"{value:.1f}" if isinstance(value, float) else str(value) for value in values]
        table.append(f"| {row['who']} | {' | '.join(shown)} |")
    return table


def pinned() -> list[str]:
    """The peers' packages, with the versions that are installed."""
    wanted = (line for path in sorted(REQUIREMENTS.glob("*.txt")) for line in path.read_text().splitlines())
    return list(dict.fromkeys(line.replace("==", " ") for line in wanted if "==" in line))


def tables(lines: list[Line]) -> str:
    """The text between the marks."""
    runs = last_runs(lines)
    machines = dict.fromkeys(line["machine"] for run in runs.values() for line in run)
    text = [f"Measured on {'; '.join(machines)}, against {', '.join(pinned())}.", "", *result_table(runs)]
    for run in runs.values():
        for name in dict.fromkeys(line["name"] for line in run if line["kind"] == "ROW"):
            rows = [line for line in run if line["kind"] == "ROW" and line["name"] == name]
            text += ["", f"`{name}`, {rows[-1]['measured_at'][:10]}:", "", *row_table(rows)]
    return "\n".join(text)


def main(path: Path) -> None:
    """Replace the tables of the page."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    before, _, rest = PAGE.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        sys.exit(f"{PAGE} has lost its marks.")
    PAGE.write_text(f"{before}{BEGIN}\n{tables(lines)}\n{END}{after}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("Give the file that LABELING_BENCH_RESULTS named.")
    main(Path(sys.argv[1]))
