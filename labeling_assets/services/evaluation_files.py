"""The files of evaluations: JSON with all that was found, and the page that shows it.

The history lies in `label_evaluation/` below LABELING_STORAGE, two files each, named by the time when it was made.
Nothing is ever replaced there.
"""

from __future__ import annotations

import json
from pathlib import Path

from upath import UPath

from labeling_assets.errors import ImageError, ServiceUnavailableError
from labeling_assets.products.comparison_page import render_page
from labeling_assets.products.evaluation import Evaluation
from labeling_assets.services.images.files import open_root
from labeling_assets.services.images.store import ImageStore
from labeling_assets.services.whole_files import write_whole

FOLDER = "label_evaluation"
PICTURE_EDGE_PX = 256


def keep_evaluation(root: str, evaluation: Evaluation, image_store: ImageStore) -> tuple[UPath, UPath]:
    """Add an evaluation to the history; the paths of its JSON and of its page, the JSON written last.

    Args:
        root: LABELING_STORAGE.
        evaluation: What to keep.
        image_store: Gives the pictures.

    Raises:
        ServiceUnavailableError: The storage cannot be read or written.
    """
    name = f"{evaluation.made_at:%Y-%m-%dT%H-%M-%S-%f}"
    folder = open_root(root) / FOLDER
    result, page = folder / f"{name}.json", folder / f"{name}.html"
    write_page(page, evaluation, image_store)
    write_result(result, evaluation)
    return result, page


def write_page(path: UPath, evaluation: Evaluation, image_store: ImageStore) -> None:
    """Write the page; images that the store no longer has are shown as gone.

    Raises:
        ServiceUnavailableError: The storage cannot be read or written.
    """

    def thumbnail(sha256: str) -> bytes | None:
        try:
            return image_store.thumbnail(sha256, PICTURE_EDGE_PX)
        except ImageError:
            return None

    _write(path, render_page(evaluation, thumbnail))


def write_result(path: UPath, evaluation: Evaluation) -> None:
    """Write all that was found as JSON.

    Raises:
        ServiceUnavailableError: The storage cannot be written.
    """
    _write(path, json.dumps(evaluation.as_json(), ensure_ascii=False, indent=1))


def local_path(path: Path) -> UPath:
    """A path of this machine as the functions here take it."""
    return UPath(path.absolute())


def _write(path: UPath, text: str) -> None:
    """Write a file so that readers see all of it or none."""
    try:
        write_whole(path, text.encode())
    except OSError as error:
        raise ServiceUnavailableError(
            f"{path} cannot be written: {error.strerror or error}.", "Check the folder, or LABELING_STORAGE."
        ) from error
