"""The perceptual hash of a picture: 64 bits that stay nearly the same when the file is resized or encoded anew.

Here is the arithmetic, on squares of grey pixels; how a file becomes such a square is in `services/images`. The hash is
that of ImageHash's `phash`, which follows http://www.hackerfactor.com/blog/index.php?/archives/432: of 32 x 32 grey
pixels the 64 lowest frequencies of the discrete cosine transform, each compared with their median.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

SQUARE_PX = 32
"""Edge of the square of pixels that is hashed."""
HASH_EDGE = 8
"""Frequencies a direction: 8 x 8 bits."""
FLAT_BITS = 8
"""Set bits up to which a hash says nothing: a picture that is blank or changes along one direction only has at most
eight frequencies that are not zero. Other pictures have about 32 set bits, since the median parts the numbers in half.
"""
_DECIMALS = 6
_DCT = 2 * np.cos(np.pi * np.arange(HASH_EDGE)[:, np.newaxis] * (2 * np.arange(SQUARE_PX) + 1) / (2 * SQUARE_PX))
"""The lowest rows of the DCT-II without scaling, as scipy has it; shape (8, 32)."""


def phash_squares(squares: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint64]:
    """The hashes of many squares at once: the transform is two matrix products.

    Frequencies are rounded to six decimals, so that those which are zero by symmetry are zero and not the noise of
    floating point, on every machine. There alone the hash differs from ImageHash's, which has random bits.

    Args:
        squares: uint8, shape (n, 32, 32), grey, 0 is black.

    Returns:
        uint64, shape (n,); the highest bit is the mean of the picture, then row by row to the right and down.
    """
    frequencies = np.round(_DCT @ squares.astype(np.float64) @ _DCT.T, _DECIMALS).reshape(len(squares), HASH_EDGE**2)
    bits = frequencies > np.median(frequencies, axis=1, keepdims=True)
    return np.packbits(bits, axis=1).view(">u8").astype(np.uint64).reshape(len(squares))


def to_hex(phash: int | np.uint64) -> str:
    """A hash as records and tables hold it: 16 hex digits."""
    return f"{int(phash):016x}"


def is_flat(phash: str) -> bool:
    """Whether a hash of 16 hex digits says nothing, as that of a blank picture."""
    return int(phash, 16).bit_count() <= FLAT_BITS


def distance(one: str, other: str) -> int:
    """Bits of 64 in which two hashes of 16 hex digits differ."""
    return (int(one, 16) ^ int(other, 16)).bit_count()
