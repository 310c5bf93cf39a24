"""Daft: fetches URLs and writes 512 px JPEGs. Job: urls, folder, edge_px, settings max_connections and partitions."""
# mypy: disable-error-code="import-not-found"
# The library is in the environment of the peer only.

from __future__ import annotations

import time

from benchmarks.peers.job import answer, read_job


def main() -> None:
    """Do the job."""
    job = read_job()
    import daft
    from daft.functions import decode_image, download, encode_image, resize

    edge_px, settings = job["edge_px"], job["settings"]
    urls = daft.from_pydict({"url": job["urls"]})
    if settings["partitions"]:
        urls = urls.into_batches(max(1, len(job["urls"]) // settings["partitions"]))
    body = download(daft.col("url"), max_connections=settings["max_connections"], on_error="null")
    small = resize(decode_image(body, on_error="null"), edge_px, edge_px)
    started = time.perf_counter()
    urls.select("url", encode_image(small, "jpeg").alias("jpeg")).write_parquet(job["folder"])
    answer(seconds=time.perf_counter() - started)


if __name__ == "__main__":
    main()
