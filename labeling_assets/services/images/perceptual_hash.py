"""Perceptual hashes of many image files at once.

Threads decode, each JPEG at reduced scale and in grey alone, which leaves out most of the arithmetic of a JPEG; the
transform of all of them is one matrix product. A hash may differ in two bits from that of the same image decoded in
full. One image on its way into the store is hashed by `decoding.decode`, from the pixels that it has anyway.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from labeling_assets.errors import ImageError
from labeling_assets.products.perceptual_hash import SQUARE_PX, phash_squares
from labeling_assets.services.images.decoding import grey_square


def phash_bodies(
    bodies: Sequence[bytes], threads: int | None = None
) -> tuple[npt.NDArray[np.uint64], dict[int, ImageError]]:
    """The hashes of image files of any format that is decoded, upright and with alpha on white.

    Args:
        bodies: The bytes of the files.
        threads: How many decode at once, outside Python's lock; None: one a CPU.

    Returns:
        The hashes, uint64, shape (n,), and the error by position of those that are no usable image, whose hash is 0.
    """
    squares = np.zeros((len(bodies), SQUARE_PX, SQUARE_PX), dtype=np.uint8)
    errors: dict[int, ImageError] = {}

    threads = threads or os.cpu_count() or 1

    def decode_every_nth(first: int) -> None:
        for position in range(first, len(bodies), threads):
            try:
                squares[position] = grey_square(bodies[position])
            except ImageError as error:
                errors[position] = error

    with ThreadPoolExecutor(threads, thread_name_prefix="perceptual-hash") as pool:
        list(pool.map(decode_every_nth, range(threads)))
    hashes = phash_squares(squares)
    hashes[list(errors)] = 0
    return hashes, errors
