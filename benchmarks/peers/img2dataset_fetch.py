"""img2dataset: fetches URLs and writes 512 px JPEGs. Job: urls, folder, edge_px, settings of `img2dataset.download`."""
# mypy: disable-error-code="import-not-found"
# The library is in the environment of the peer only.

from __future__ import annotations

import time
from pathlib import Path

from benchmarks.peers.job import answer, read_job


def main() -> None:
    """Do the job."""
    job = read_job()
    from img2dataset import download

    folder = Path(job["folder"])
    url_list = folder.with_name("urls.txt")
    url_list.write_text("\n".join(job["urls"]))
    started = time.perf_counter()
    download(
        url_list=str(url_list),
        output_folder=str(folder),
        image_size=job["edge_px"],
        resize_mode="keep_ratio_largest",
        **job["settings"],
    )
    answer(seconds=time.perf_counter() - started)


if __name__ == "__main__":  # its processes import this file
    main()
