from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from labeling_assets.services.images.resampling import resample


def photo(mode: str, width: int, height: int, seed: int) -> Image.Image:
    """A picture with shapes of all sizes, as photos have."""
    random = np.random.default_rng(seed)
    small = random.integers(0, 256, (5, 5, 3), dtype=np.uint8)
    picture = Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC).convert(mode)
    noise = random.normal(0, 4, np.asarray(picture).shape)
    return Image.fromarray((np.asarray(picture) + noise).clip(0, 255).astype(np.uint8))


@settings(max_examples=60)
@given(
    mode=st.sampled_from(["L", "RGB"]),
    width=st.integers(30, 700),
    height=st.integers(30, 700),
    share=st.floats(0.26, 1.0),
    cut=st.floats(0.0, 0.9),
    seed=st.integers(0, 99),
)
def test_the_pixels_are_those_of_pillow_but_for_rounding(
    mode: str, width: int, height: int, share: float, cut: float, seed: int
) -> None:
    image = photo(mode, width, height, seed)
    size = max(1, round(width * share)), max(1, round(height * share))
    box = (0.0, 0.0, width - cut, height - cut)
    ours, pillows = resample(image, size, box), image.resize(size, Image.Resampling.LANCZOS, box)
    assert (ours.mode, ours.size) == (pillows.mode, pillows.size)
    difference = np.abs(np.asarray(ours).astype(int) - np.asarray(pillows))
    assert difference.max() <= 3
    assert difference.mean() < 0.5


@pytest.mark.parametrize("colour", [0, 1, 127, 254, 255])
def test_a_plain_colour_stays_what_it_is(colour: int) -> None:
    image = Image.new("RGB", (777, 601), (colour, 255 - colour, colour))
    assert resample(image, (512, 396), (0, 0, 777, 601)).getcolors() == [(512 * 396, (colour, 255 - colour, colour))]


def test_a_hard_edge_neither_wraps_around_nor_moves() -> None:
    image = Image.new("L", (800, 800))
    image.paste(255, (400, 0, 800, 800))
    pixels = np.asarray(resample(image, (512, 512), (0, 0, 800, 800)))
    assert pixels[:, :250].max() == 0
    assert pixels[:, 262:].min() == 255
