"""Peak memory of `labeling run` with a day of 5,000 products, against a day of 1,000: it must not grow with the day.

Both days are run by the command itself, with the embedded labeler and embedder, in a process of its own whose peak the
operating system tells; services and image host are other processes. Most products share their picture with others, so
that labeling takes minutes and not hours. The ratio is the peak of the small day to that of the large one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.demo_servers import DAY, DemoServers, demo_servers
from benchmarks.measure import print_result
from labeling_assets.settings import PREFIX

SMALL_DAY = 1_000
LARGE_DAY = 5_000
IMAGE_REUSE = 0.95
GOAL = 0.75
LIMIT_MB = 1_500
COMMAND = Path(sys.executable).with_name("labeling")


def peak_mb(servers: DemoServers, products: int) -> float:
    """Peak memory of a run of a day with so many products, in units of 1,000,000 bytes."""
    product_ids = servers.fill(products, IMAGE_REUSE)
    outer = {name: value for name, value in os.environ.items() if not name.startswith((PREFIX, "DAGSTER_"))}
    json_path, log_path = servers.folder / "statistics.json", servers.folder / "run.log"
    arguments = ["run", "--start", str(DAY), "--end", str(DAY), "--json", str(json_path)]
    started = time.perf_counter()
    with log_path.open("w") as log:
        process = subprocess.Popen([COMMAND, *arguments], env=outer | servers.empty(), stdout=log, stderr=log, cwd="/")
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            raise
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        sys.exit(f"`labeling run` ended with code {process.returncode}:\n{log_path.read_text()}")
    statistics = json.loads(json_path.read_text())
    assert set(statistics["inserted_ids"]) == product_ids
    # Linux tells kibibytes, macOS bytes (getrusage(2)).
    peak_bytes = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    seconds = time.perf_counter() - started
    print(
        f"{products} products, {statistics['model_calls']} distinct images: {peak_bytes / 1e6:.0f} MB, {seconds:.0f} s",
        flush=True,
    )
    return peak_bytes / 1e6


def main() -> None:
    """Measure and print; exit code 1 when the large day needs more than the limit."""
    with demo_servers(image_latency_ms=0) as servers:
        small, large = (peak_mb(servers, products) for products in (SMALL_DAY, LARGE_DAY))
    print(f"limit for {LARGE_DAY} products: {LIMIT_MB} MB, {'kept' if large <= LIMIT_MB else 'EXCEEDED'}")
    print_result("memory", [small / large], GOAL)
    if large > LIMIT_MB:
        sys.exit(1)


if __name__ == "__main__":
    main()
