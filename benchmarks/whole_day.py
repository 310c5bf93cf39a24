"""A whole day, from the source table to a searchable collection, against the loop of the source system.

Ours is what `labeling run` does: a run of `products_job` in Dagster with its storage in PostgreSQL, seven assets, their
checks, and every label in the ledger. The baseline is `source_system.py`. Both work on the same rows with the same
model server, image host, PostgreSQL and Milvus, and begin each round with nothing done; both must end with the same
products in Milvus.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import time
from zoneinfo import ZoneInfo

from benchmarks.demo_servers import DAY, DemoServers, demo_servers
from benchmarks.measure import print_result, rounds_in_turn
from benchmarks.source_system import SourceSystem
from labeling_assets import instance, runs
from labeling_assets.services.connect import close_services
from labeling_assets.services.embedding.embedded import EmbeddedEmbedder
from labeling_assets.settings import PREFIX, Settings
from labeling_assets_tests.standins.process import ollama_process

PRODUCTS = 240
IMAGE_REUSE = float(os.environ.get("LABELING_BENCH_IMAGE_REUSE", "0.5"))
"""Share of products with a picture of the common stock: one design is sold as many products."""
SLOTS = 4
LATENCY_MS = 200
IMAGE_LATENCY_MS = 20
ROUNDS = 3
GOAL = 5.0
MODEL = "qwen2.5vl:latest"


class WholeDay:
    """The two sides of the comparison.

    Args:
        servers: Hold the day.
        ollama_url: Address of the model server.
        product_ids: What must be in Milvus at the end.
    """

    def __init__(self, servers: DemoServers, ollama_url: str, product_ids: set[str]) -> None:
        self._servers = servers
        self._ollama_url = ollama_url
        self._product_ids = product_ids

    def platform_rate(self, _: int) -> float:
        """Rows a second of the platform."""
        settings = self._servers.empty() | {
            "LABELING_VISION_BACKEND": "ollama",
            "LABELING_VISION_MODEL": MODEL,
            "LABELING_VISION_SLOTS": str(SLOTS),
            "LABELING_OLLAMA_HOSTS": self._ollama_url,
        }
        os.environ.update(settings)
        instance.prepare(Settings.load())
        started = time.perf_counter()
        (result,) = runs.run_days([str(DAY)])
        seconds = time.perf_counter() - started
        close_services()
        assert result.is_success, result.failure
        stages = {name: round(float(values["seconds"]), 2) for name, values in result.stages.items()}
        print(f"  platform {seconds:.1f} s, of these {stages}")
        return self._rate(settings["LABELING_MILVUS_COLLECTION"], seconds)

    def source_system_rate(self, _: int) -> float:
        """Rows a second of the source system."""
        servers = self._servers
        collection = servers.empty()["LABELING_MILVUS_COLLECTION"]
        midnight = dt.datetime.combine(DAY, dt.time(), ZoneInfo("Asia/Ho_Chi_Minh"))
        started = time.perf_counter()
        with SourceSystem(
            servers.engine, servers.milvus_uri, collection, self._ollama_url, MODEL, EmbeddedEmbedder()
        ) as system:
            system.process(midnight, midnight + dt.timedelta(days=1))
        seconds = time.perf_counter() - started
        print(f"  source system {seconds:.1f} s")
        return self._rate(collection, seconds)

    def _rate(self, collection: str, seconds: float) -> float:
        """Rows a second, once the collection is seen to hold exactly the day's products; it is dropped then."""
        from pymilvus import MilvusClient

        with contextlib.closing(MilvusClient(self._servers.milvus_uri)) as client:
            rows = client.query(collection, filter='id_sanpham != ""', output_fields=["id_sanpham"], limit=16_000)
            assert {row["id_sanpham"] for row in rows} == self._product_ids
            assert len(rows) == len(self._product_ids)
            for alias in client.list_aliases(collection)["aliases"]:
                client.drop_alias(alias)
            client.drop_collection(collection)
        return len(rows) / seconds


def main() -> None:
    """Measure and print."""
    for name in [name for name in os.environ if name.startswith((PREFIX, "DAGSTER_"))]:
        del os.environ[name]
    print(f"{PRODUCTS} products, {SLOTS} slots, {LATENCY_MS} ms a label, {IMAGE_LATENCY_MS} ms an image; rows a second")
    with demo_servers(IMAGE_LATENCY_MS) as servers, ollama_process(slots=SLOTS, latency_ms=LATENCY_MS) as url:
        comparison = WholeDay(servers, url, servers.fill(PRODUCTS, IMAGE_REUSE))
        pairs = rounds_in_turn(comparison.platform_rate, comparison.source_system_rate, ROUNDS)
    print_result("whole_day", [ours / baseline for ours, baseline in pairs], GOAL)


if __name__ == "__main__":
    main()
