"""The arithmetic of the perceptual hash against ImageHash, and what a flat hash is."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from labeling_assets.products.perceptual_hash import SQUARE_PX, distance, is_flat, phash_squares, to_hex

GRADIENT = np.tile(np.linspace(0, 255, SQUARE_PX, dtype=np.uint8), (SQUARE_PX, 1))


def hash_of(square: np.ndarray) -> str:
    return to_hex(phash_squares(square[np.newaxis])[0])


@given(st.integers(0, 2**32 - 1))
def test_the_hash_of_any_pixels_is_that_of_imagehash(seed: int) -> None:
    import imagehash

    square = np.random.default_rng(seed).integers(0, 256, (SQUARE_PX, SQUARE_PX), dtype=np.uint8)
    assert hash_of(square) == str(imagehash.phash(Image.fromarray(square)))


def test_many_squares_have_the_hashes_that_each_has_alone() -> None:
    squares = np.random.default_rng(7).integers(0, 256, (50, SQUARE_PX, SQUARE_PX), dtype=np.uint8)
    assert [to_hex(each) for each in phash_squares(squares)] == [hash_of(square) for square in squares]
    assert phash_squares(squares[:0]).shape == (0,)


@pytest.mark.parametrize("grey", [0, 1, 128, 255])
def test_a_blank_picture_has_one_bit_at_most_and_is_flat(grey: int) -> None:
    blank = np.full((SQUARE_PX, SQUARE_PX), grey, dtype=np.uint8)
    assert hash_of(blank) in ("0" * 16, "8" + "0" * 15)
    assert is_flat(hash_of(blank))


@pytest.mark.parametrize("square", [GRADIENT, GRADIENT.T, 255 - GRADIENT, np.where(GRADIENT > 99, 255, 0)])
def test_a_picture_that_changes_along_one_direction_is_flat(square: np.ndarray) -> None:
    assert is_flat(hash_of(np.ascontiguousarray(square, dtype=np.uint8)))


def test_a_symmetric_picture_has_no_bits_of_chance() -> None:
    half = np.random.default_rng(3).integers(0, 256, (SQUARE_PX, SQUARE_PX // 2), dtype=np.uint8)
    number = int(hash_of(np.hstack([half, half[:, ::-1]])), 16)
    odd_columns = sum(0x55 << 8 * row for row in range(8))
    assert number & odd_columns == 0
    assert not is_flat(to_hex(number))


def test_the_distance_counts_differing_bits() -> None:
    assert distance("0" * 16, "f" + "0" * 14 + "1") == 5
