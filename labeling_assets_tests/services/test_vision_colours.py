"""Colour names and moods of drawn pictures."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labeling_assets.services.vision.colours import NAMED_COLOURS, describe_colours

NAVY, RED = (32, 46, 84), (200, 30, 40)


class TestColours:
    @pytest.mark.parametrize("name", sorted(NAMED_COLOURS))
    def test_a_plain_picture_has_the_name_of_its_colour(self, name: str):
        for shade in NAMED_COLOURS[name]:
            assert describe_colours(np.full((40, 60, 3), shade, np.uint8))[0] == name

    def test_the_background_is_left_out(self):
        picture = np.full((200, 200, 3), (238, 238, 236), np.uint8)
        picture[60:140, 60:140] = RED
        names = describe_colours(picture)
        assert names[0] == "Red"
        assert "White" not in names

    def test_white_inside_a_product_is_kept_on_a_white_background(self):
        picture = np.full((200, 200, 3), 255, np.uint8)
        picture[40:160, 40:160] = NAVY
        picture[60:140, 60:140] = 255
        assert set(describe_colours(picture)[:2]) == {"Navy blue", "White"}

    @pytest.mark.parametrize(
        ("shade", "mood"),
        [
            ((128, 128, 128), "Monochrome"),
            ((250, 205, 215), "Pastel"),
            ((235, 40, 30), "Vibrant"),
            ((24, 38, 85), "Dark"),
            ((120, 75, 40), "Earth tones"),
            ((242, 130, 32), "Warm tones"),
            ((40, 95, 200), "Cool tones"),
        ],
    )
    def test_colours_have_a_mood(self, shade: tuple[int, int, int], mood: str):
        assert mood in describe_colours(np.full((64, 64, 3), shade, np.uint8))

    @given(height=st.integers(1, 300), width=st.integers(1, 300), seed=st.integers(0, 5))
    @settings(max_examples=40)
    def test_pictures_of_any_size_and_noise_have_bounded_colours(self, height: int, width: int, seed: int):
        noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
        colours = describe_colours(noise)
        assert len(colours) <= 8
        assert colours == describe_colours(noise)
