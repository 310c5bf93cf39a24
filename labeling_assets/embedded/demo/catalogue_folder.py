"""The demo catalogue on disk: the images, an index for the image host, the truth, and the rows.

    <folder>/images/…         what the image host serves
    <folder>/replaced/…       bytes that were put in place of an image later; they win over `images/`
    <folder>/host.json        path → what the host answers; written last, so that it never names what is not there
    <folder>/catalogue.json   rows and traps
    <folder>/truth.json       path → label fields

An image's file is named by all that decides its bytes and put in place in one step, so what lies there is right: a
writer that was killed goes on where it stopped, and a catalogue that ends a day later draws one day.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from labeling_assets.embedded.demo.contents import Catalogue
from labeling_assets.embedded.demo.encoding import make_bytes

HOST_INDEX = "host.json"
IMAGES, REPLACED = "images", "replaced"
FORMAT_VERSION = 1
logger = logging.getLogger(__name__)


def write_catalogue(catalogue: Catalogue, folder: Path, on_progress: Callable[[int, int], None] | None = None) -> None:
    """Make the folder hold exactly this catalogue; what is there already is not drawn again.

    Safe to repeat, to kill at any time and to run twice at once. Images replaced later are put back as they were.

    Args:
        catalogue: What to write.
        folder: Folder of the demo, such as `<home>/demo`; made if missing.
        on_progress: Called with the number of images done and of all.
    """
    (folder / IMAGES).mkdir(parents=True, exist_ok=True)
    with _one_writer(folder):
        if (folder / REPLACED).exists():
            shutil.rmtree(folder / REPLACED)
        files = {path: image.recipe for path, image in catalogue.images.items() if image.recipe is not None}
        if _identity_in(folder) == _plain(asdict(catalogue.identity)) and _present(folder) >= files.keys():
            return
        for number, (path, recipe) in enumerate(sorted(files.items()), 1):
            if not (folder / path).exists():
                write_atomically(folder / path, make_bytes(recipe))
            if on_progress is not None:
                on_progress(number, len(files))
        _write_json(
            folder / "truth.json", {path: image.truth for path, image in catalogue.images.items() if image.truth}
        )
        _write_json(folder / "catalogue.json", _rows_and_traps(catalogue))
        _write_json(folder / HOST_INDEX, _host_index(catalogue))
        for leftover in _present(folder) - files.keys():
            (folder / leftover).unlink()
        logger.info("The demo catalogue in %s holds %d rows and %d images.", folder, len(catalogue.rows), len(files))


def replace_image(folder: Path, name: str, content: bytes) -> None:
    """Serve other bytes under the path or URL of an image of the catalogue, whatever the host answered before.

    Takes effect with the next request, in one step; `write_catalogue` undoes it.

    Args:
        folder: Folder of the demo.
        name: Path such as `images/mug-0a1b2c.jpg`, or its URL.
        content: The new body.

    Raises:
        ValueError: The catalogue has no such path.
    """
    path = unquote(urlsplit(name).path).lstrip("/")
    if path not in json.loads((folder / HOST_INDEX).read_text(encoding="utf-8"))["images"]:
        msg = f"The demo catalogue in {folder} has no image {path!r}."
        raise ValueError(msg)
    write_atomically(folder / REPLACED / path, content)


def write_atomically(file: Path, content: bytes) -> None:
    """Put a file in place in one step; readers see the old bytes or the new ones."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.name}.{os.getpid()}.partial")
    partial.write_bytes(content)
    partial.replace(file)


@contextmanager
def _one_writer(folder: Path) -> Iterator[None]:
    """Wait until no other process writes this folder; the lock ends with the process that holds it."""
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _identity_in(folder: Path) -> object:
    """Identity of the catalogue that the folder was last completed for; None where there is none."""
    try:
        index = json.loads((folder / HOST_INDEX).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return index["identity"] if index["format_version"] == FORMAT_VERSION else None


def _present(folder: Path) -> set[str]:
    """Paths of the image files, those that a killed writer left half written included."""
    return {f"{IMAGES}/{file.name}" for file in (folder / IMAGES).iterdir()}


def _host_index(catalogue: Catalogue) -> dict[str, Any]:
    images = {
        path: {
            "file": path if image.recipe is not None else None,
            "content_type": image.content_type,
            "status": image.status,
            "first_status": image.first_status,
            "location": image.location,
        }
        for path, image in catalogue.images.items()
    }
    return {"format_version": FORMAT_VERSION, "identity": asdict(catalogue.identity), "images": images}


def _rows_and_traps(catalogue: Catalogue) -> dict[str, Any]:
    return {
        "identity": asdict(catalogue.identity),
        "traps": [asdict(trap) for trap in catalogue.traps],
        "rows": [asdict(row) for row in catalogue.rows],
    }


def _write_json(file: Path, value: object) -> None:
    text = json.dumps(value, ensure_ascii=False, sort_keys=True, indent=1, default=str)
    write_atomically(file, text.encode())


def _plain(value: dict[str, Any]) -> Any:  # noqa: ANN401 - JSON has no type
    """The value as it comes back from JSON."""
    return json.loads(json.dumps(value, default=str))
