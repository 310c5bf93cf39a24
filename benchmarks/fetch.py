"""Fetch, decode, resize to 512 px and JPEG of 3,000 images that are 20 ms away, against img2dataset and Daft.

Ours is what the asset `product_images` does: `ImageStore.fetch_all` with the checked fetcher, originals and small JPEGs
in a folder, facts and perceptual hash of each image and the history of its URL in PostgreSQL. The peers get the same
URLs in environments of their own, at their default and at their documented best settings, and write a dataset: tar
files or plain files, or Parquet. Everybody starts with nothing; every small JPEG is counted and its size checked. All
pictures are square, since Daft resizes to a given width and height.

The second part has a host that refuses every twentieth image once with 503: how many images each one has at the end.
"""

from __future__ import annotations

import functools
import io
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pyarrow.parquet as pq
import sqlalchemy as sa
from PIL import Image

from benchmarks.image_server import image_server
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
from benchmarks.pictures import draw_jpeg
from labeling_assets.errors import ImageError
from labeling_assets.services.images.addresses import AddressPolicy
from labeling_assets.services.images.decoding import decode
from labeling_assets.services.images.fetcher import ImageFetcher
from labeling_assets.services.images.store import ImageStore

IMAGES = scaled(3_000, smallest=40)
EDGE_PX = 512
LATENCY_MS = 20
BUSY_EVERY = 20  # 5 %
ROUNDS = scaled(3)
GOAL = 1.5
OURS = "labeling-assets"

# By name in the table: environment and script, and what the script gets besides the URLs. img2dataset's shards are so
# small that both its processes have work, as its README advises; Daft's connections and partitions likewise.
PEERS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "img2dataset, default": ("img2dataset", "img2dataset_fetch", {}),
    "img2dataset, best": (
        "img2dataset",
        "img2dataset_fetch",
        {
            "processes_count": 2,
            "thread_count": 64,
            "number_sample_per_shard": max(1, IMAGES // 8),
            "output_format": "webdataset",
            "retries": 3,
        },
    ),
    "Daft, default": ("daft", "daft_fetch", {"max_connections": 32, "partitions": 0}),
    "Daft, best": ("daft", "daft_fetch", {"max_connections": 64, "partitions": 8}),
}


def our_jpegs(url: str, engine: sa.Engine, folder: Path) -> tuple[float, Iterator[bytes]]:
    """Seconds of the image store, and its small JPEGs."""
    fetcher = ImageFetcher(AddressPolicy((urlsplit(url).netloc,)))
    try:
        store = ImageStore(str(folder), engine, fetcher)
        store.forget(urls(url))
        started = time.perf_counter()
        results = [result for _, result in store.fetch_all(urls(url))]
        seconds = time.perf_counter() - started
    finally:
        fetcher.close()
    kept = [result.sha256 for result in results if not isinstance(result, ImageError)]
    return seconds, map(store.model_jpeg, kept)


def peer_jpegs(name: str, url: str, folder: Path) -> tuple[float, Iterator[bytes]]:
    """Seconds of a peer, and its small JPEGs."""
    environment, script, settings = PEERS[name]
    job = {"urls": urls(url), "folder": str(folder / "dataset"), "edge_px": EDGE_PX, "settings": settings}
    (answer,) = run_peer(environment, script, job)
    return answer["seconds"], written_jpegs(folder / "dataset")


def urls(url: str) -> list[str]:
    """The URLs of all images."""
    return [f"{url}/{number}.jpg" for number in range(IMAGES)]


def written_jpegs(folder: Path) -> Iterator[bytes]:
    """The JPEGs in tar files, plain files and Parquet files of a folder."""
    for path in sorted(folder.rglob("*.jpg")):
        yield path.read_bytes()
    for path in sorted(folder.rglob("*.tar")):
        with tarfile.open(path) as archive:
            for member in archive:
                if member.name.endswith(".jpg") and (file := archive.extractfile(member)):
                    yield file.read()
    for path in sorted(folder.rglob("*.parquet")):
        table = pq.read_table(path)
        if "jpeg" in table.column_names:
            yield from (jpeg for jpeg in table["jpeg"].to_pylist() if jpeg is not None)


def count_checked(jpegs: Iterator[bytes]) -> int:
    """How many JPEGs there are, each of which must have the size asked for."""
    count = 0
    for jpeg in jpegs:
        with Image.open(io.BytesIO(jpeg)) as image:
            assert image.format == "JPEG"
            assert image.size == (EDGE_PX, EDGE_PX), f"an image has {image.size}"
        count += 1
    return count


def measured(url: str, jpegs_of: Callable[[Path], tuple[float, Iterator[bytes]]]) -> tuple[float, int]:
    """Seconds of a contestant, and how many images it has at the end."""
    httpx.post(f"{url}/reset").raise_for_status()
    with temporary_folder() as folder:
        seconds, jpegs = jpegs_of(folder)
        return seconds, count_checked(jpegs)


def image_rate(url: str, jpegs_of: Callable[[str, Path], tuple[float, Iterator[bytes]]], _: int) -> float:
    """Images a second, all of which must be there at the end."""
    seconds, count = measured(url, functools.partial(jpegs_of, url))
    assert count == IMAGES, f"{count} of {IMAGES} images"
    return count / seconds


def main() -> None:
    """Measure and print."""
    decode(draw_jpeg(0, 2 * EDGE_PX))  # what the first image loads is not measured
    with database() as engine:

        def ours(url: str, folder: Path) -> tuple[float, Iterator[bytes]]:
            return our_jpegs(url, engine, folder)

        contestants = {OURS: ours} | {name: functools.partial(peer_jpegs, name) for name in PEERS}
        with image_server(latency_ms=LATENCY_MS) as url:
            print(f"{IMAGES} images, {LATENCY_MS} ms latency; images a second")
            rates = {name: functools.partial(image_rate, url, jpegs_of) for name, jpegs_of in contestants.items()}
            figures = contestants_in_turn(rates, ROUNDS)
        print_medians("fetch", figures, "images_per_second")

        with image_server(latency_ms=LATENCY_MS, busy_every=BUSY_EVERY) as url:
            kept = {}
            for name, jpegs_of in contestants.items():
                seconds, kept[name] = measured(url, functools.partial(jpegs_of, url))
                lost = IMAGES - kept[name]
                print_row("fetch_busy", name, kept=kept[name], lost=lost, images_per_second=kept[name] / seconds)
    print_result("fetch_busy", [kept[OURS] / IMAGES], 1.0)
    print_result("fetch", ratios_to_best(figures, OURS), GOAL)


if __name__ == "__main__":
    main()
