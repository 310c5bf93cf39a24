"""The demo catalogue on disk: complete, repeatable, and safe to kill."""

from __future__ import annotations

import datetime as dt
import io
import json
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from PIL import Image

from labeling_assets.embedded.demo.catalogue import build_catalogue
from labeling_assets.embedded.demo.catalogue_folder import replace_image, write_catalogue
from labeling_assets.embedded.demo.contents import Catalogue
from labeling_assets.embedded.demo.image_host import ImageHost

LAST_DAY = dt.date(2025, 11, 20)
WRITER = """
import datetime as dt, sys
from pathlib import Path
from labeling_assets.embedded.demo.catalogue import build_catalogue
from labeling_assets.embedded.demo.catalogue_folder import write_catalogue

def on_progress(done, _count):
    if done == int(sys.argv[2]):
        print("waiting", flush=True)
        sys.stdin.read()

catalogue = build_catalogue(days=2, products_per_day=3, last_day=dt.date(2025, 11, 20))
write_catalogue(catalogue, Path(sys.argv[1]), on_progress)
"""


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return build_catalogue(days=2, products_per_day=3, last_day=LAST_DAY)


@pytest.fixture
def folder(home: Path) -> Path:
    return home / "demo"


@pytest.fixture(scope="module")
def whole(catalogue: Catalogue, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The catalogue, written once; not to be changed."""
    folder = tmp_path_factory.mktemp("demo catalogue")
    write_catalogue(catalogue, folder)
    return folder


@pytest.fixture
def written(whole: Path, folder: Path) -> Path:
    """A copy of the written catalogue."""
    shutil.copytree(whole, folder)
    return folder


def _files(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def _stamps(folder: Path) -> dict[str, int]:
    return {file.name: file.stat().st_mtime_ns for file in (folder / "images").iterdir()}


def test_the_folder_holds_every_image_the_index_the_rows_and_the_truth(catalogue: Catalogue, whole: Path) -> None:
    files = _files(whole)
    recipes = {path for path, image in catalogue.images.items() if image.recipe}
    assert files.keys() == recipes | {"host.json", "truth.json", "catalogue.json", ".lock"}
    index = json.loads(files["host.json"])["images"]
    assert index.keys() == catalogue.images.keys()
    rows = json.loads(files["catalogue.json"])
    assert [row["title"] for row in rows["rows"]] == [row.title for row in catalogue.rows]
    assert {trap["name"]: trap["expected"] for trap in rows["traps"]}["decompression bomb"] == "ImageTooLargeError"
    truth = json.loads(files["truth.json"])
    assert truth == {path: image.truth for path, image in catalogue.images.items() if image.truth}


def test_writing_again_draws_nothing(catalogue: Catalogue, written: Path) -> None:
    before = _stamps(written)
    drawn: list[int] = []
    write_catalogue(catalogue, written, lambda done, _count: drawn.append(done))
    assert _stamps(written) == before
    assert not drawn


def test_a_catalogue_that_ends_a_day_later_keeps_the_shared_images(catalogue: Catalogue, written: Path) -> None:
    before = _stamps(written)
    later = build_catalogue(days=2, products_per_day=3, last_day=LAST_DAY + dt.timedelta(days=1))
    write_catalogue(later, written)
    after = _stamps(written)
    kept = before.keys() & after.keys()
    assert kept
    assert before.keys() - after.keys()
    assert all(before[name] == after[name] for name in kept)
    assert {f"images/{name}" for name in after} == {path for path, image in later.images.items() if image.recipe}


def test_a_lost_image_is_drawn_anew(catalogue: Catalogue, written: Path) -> None:
    complete = _files(written)
    lost = next(iter((written / "images").iterdir()))
    lost.unlink()
    write_catalogue(catalogue, written)
    assert _files(written) == complete


@pytest.mark.parametrize("images_before_kill", [1, 20])
def test_a_killed_writer_is_finished_by_the_next(
    catalogue: Catalogue, whole: Path, folder: Path, images_before_kill: int
) -> None:
    with _writer(folder, waits_after=images_before_kill) as writer:
        assert writer.stdout
        assert writer.stdout.readline() == "waiting\n"
        writer.send_signal(signal.SIGKILL)
    assert len(list((folder / "images").iterdir())) == images_before_kill
    assert not (folder / "host.json").exists()
    write_catalogue(catalogue, folder)
    assert _files(folder) == _files(whole)


def test_two_processes_at_once_write_what_one_writes_here(whole: Path, folder: Path) -> None:
    with _writer(folder) as first, _writer(folder) as second:
        assert [first.wait(), second.wait()] == [0, 0]
    assert _files(folder) == _files(whole)


def _writer(folder: Path, waits_after: int = 0) -> subprocess.Popen[str]:
    program = [sys.executable, "-c", WRITER, str(folder), str(waits_after)]
    return subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_half_written_files_of_a_killed_writer_are_removed(catalogue: Catalogue, written: Path) -> None:
    (written / "host.json").unlink()
    (written / "images" / ".mug-0a1b2c.jpg.4711.partial").write_bytes(b"half")
    write_catalogue(catalogue, written)
    assert not list((written / "images").glob(".*"))


def test_a_replaced_image_takes_the_place_of_one_url_only(catalogue: Catalogue, written: Path) -> None:
    first, second = (
        next(row.image for row in catalogue.rows if row.product_id == product_id)
        for product_id in catalogue.trap("same bytes under another URL").product_ids
    )
    assert first
    assert second
    assert (written / first).read_bytes() == (written / second).read_bytes()
    with ImageHost(written) as host:
        replace_image(written, f"{host.url}/{first}", _png())
        shelf = host._server.shelf
        assert shelf.replacement(first)
        assert not shelf.replacement(second)


def test_writing_the_catalogue_undoes_replacements(catalogue: Catalogue, written: Path) -> None:
    complete = _files(written)
    replace_image(written, next(iter(catalogue.images)), _png())
    assert _files(written) != complete
    write_catalogue(catalogue, written)
    assert _files(written) == complete


@pytest.mark.parametrize("name", ["images/none.jpg", "../host.json", "", "images/", "host.json"])
def test_only_images_of_the_catalogue_can_be_replaced(catalogue: Catalogue, written: Path, name: str) -> None:
    with pytest.raises(ValueError, match="has no image"):
        replace_image(written, name, b"")


def test_a_writer_waits_for_the_one_before(catalogue: Catalogue, folder: Path) -> None:
    first_is_writing, second_is_done = threading.Event(), threading.Event()
    order: list[str] = []

    def on_progress(done: int, count: int) -> None:
        first_is_writing.set()
        if done == count:
            order.append("first")

    def write_second() -> None:
        first_is_writing.wait()
        write_catalogue(catalogue, folder)
        order.append("second")
        second_is_done.set()

    thread = threading.Thread(target=write_second)
    thread.start()
    write_catalogue(catalogue, folder, on_progress)
    thread.join()
    assert second_is_done.is_set()
    assert order == ["first", "second"]


def _png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), "teal").save(buffer, "PNG")
    return buffer.getvalue()
