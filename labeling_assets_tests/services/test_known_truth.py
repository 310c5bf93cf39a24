"""The truth of the demo's images, found by path and proved by content."""

from __future__ import annotations

import datetime as dt
import hashlib
from pathlib import Path

import pytest

from labeling_assets.embedded.demo.catalogue import build_catalogue
from labeling_assets.embedded.demo.catalogue_folder import replace_image, write_catalogue
from labeling_assets.errors import ConfigurationError
from labeling_assets.products.labels import ProductLabels
from labeling_assets.services.known_truth import KnownTruth

HOST = "http://127.0.0.1:8081/"


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    write_catalogue(build_catalogue(days=1, products_per_day=3, last_day=dt.date(2026, 3, 2), has_traps=False), folder)
    return folder


def sha_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_every_image_of_the_demo_has_a_truth_that_is_a_label(demo: Path) -> None:
    pictures = sorted((demo / "images").iterdir())
    assert pictures
    for picture in pictures:
        truth = KnownTruth(demo).of(f"{HOST}images/{picture.name}?size=large", sha_of(picture))
        assert isinstance(truth, ProductLabels)
        assert truth.product_type
        assert truth.text


def test_another_image_under_the_same_path_has_none(demo: Path) -> None:
    picture = next((demo / "images").iterdir())
    truth = KnownTruth(demo)
    assert truth.of(f"{HOST}images/{picture.name}", "0" * 64) is None
    replace_image(demo, f"images/{picture.name}", b"other bytes")
    assert truth.of(f"{HOST}images/{picture.name}", hashlib.sha256(b"other bytes").hexdigest()) is None


@pytest.mark.parametrize("url", ["", "http://[", "images/none.jpg", "../../etc/passwd", "http://127.0.0.1/%00"])
def test_an_address_that_is_not_of_the_demo_has_none(demo: Path, url: str) -> None:
    assert KnownTruth(demo).of(url, "0" * 64) is None


def test_without_a_demo_there_is_no_truth(tmp_path: Path) -> None:
    assert KnownTruth(tmp_path / "demo").of(f"{HOST}images/a.jpg", "0" * 64) is None


@pytest.mark.parametrize("content", ["{", "[]", '{"images/a.jpg": {"text": 1}}'])
def test_a_broken_file_is_an_error_and_not_no_truth(tmp_path: Path, content: str) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.jpg").write_bytes(b"a")
    (tmp_path / "truth.json").write_text(content)
    with pytest.raises(ConfigurationError, match="Run `labeling demo` again"):
        KnownTruth(tmp_path).of(f"{HOST}images/a.jpg", sha_of(tmp_path / "images" / "a.jpg"))
