"""Images are prepared as the models' own processors do it."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from labeling_assets.errors import VectorError
from labeling_assets.services.embedding.pictures import ImagePreparation, preparation_of, rgb, without_excess
from labeling_assets_tests.services.embedder_contract import picture

SQUARE = ImagePreparation(64, 64, 64, Image.Resampling.BICUBIC)


@pytest.mark.parametrize("size", [(64, 64), (65, 64), (64, 131), (300, 200), (201, 333), (40, 30), (100, 399)])
@pytest.mark.parametrize("family", ["clip", "siglip"])
def test_pixels_are_those_of_the_processor(family: str, size: tuple[int, int]) -> None:
    from transformers import CLIPImageProcessorPil, SiglipImageProcessorPil

    edges = {"height": 64, "width": 64}
    if family == "clip":
        processor = CLIPImageProcessorPil(size={"shortest_edge": 64}, crop_size=edges)
    else:
        processor = SiglipImageProcessorPil(size=edges)
    preparation = preparation_of(processor)
    assert preparation is not None
    image = picture(3, size)
    expected = processor(images=[image], return_tensors="np")["pixel_values"]
    np.testing.assert_allclose(preparation.normalised([preparation.pixels(image)]), expected, atol=1e-5)


@pytest.mark.parametrize("options", [{"do_center_crop": False}, {"do_normalize": False}, {"rescale_factor": 1 / 127.5}])
def test_a_processor_that_does_something_else_is_used_itself(options: dict[str, float]) -> None:
    from transformers import CLIPImageProcessorPil

    edges = {"height": 64, "width": 64}
    assert preparation_of(CLIPImageProcessorPil(size={"shortest_edge": 64}, crop_size=edges, **options)) is None


def test_transparency_is_white() -> None:
    logo = Image.new("RGBA", (8, 8), (10, 10, 10, 0))
    assert np.asarray(rgb(logo)).min() == 255


@pytest.mark.parametrize("size", [(100_000, 1), (1, 100_000), (41, 10), (10, 41)])
def test_the_middle_of_a_strip_remains(size: tuple[int, int]) -> None:
    assert max(without_excess(Image.new("L", size)).size) == 4 * min(size)


def test_a_picture_of_usual_aspect_stays_whole() -> None:
    image = picture(0, (400, 100))
    assert without_excess(image) is image


@given(
    width=st.integers(1, 300), height=st.integers(1, 300), mode=st.sampled_from(["RGB", "L", "P", "RGBA", "CMYK", "1"])
)
@settings(max_examples=60)
def test_any_image_becomes_an_input(width: int, height: int, mode: str) -> None:
    pixels = SQUARE.pixels(picture(0, (width, height)).convert(mode))
    assert (pixels.shape, pixels.dtype) == ((64, 64, 3), np.uint8)


@given(cut=st.integers(0, 1500))
@settings(max_examples=40)
def test_a_truncated_image_is_refused_or_read(cut: int) -> None:
    buffer = io.BytesIO()
    picture(0, (64, 64)).save(buffer, "JPEG")
    try:
        image = Image.open(io.BytesIO(buffer.getvalue()[:cut]))
    except OSError:
        return
    try:
        assert SQUARE.pixels(image).shape == (64, 64, 3)
    except VectorError as error:
        assert "cannot be read" in str(error)  # noqa: PT017 - both outcomes are right
