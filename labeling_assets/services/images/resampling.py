"""Lanczos resampling of an image by small matrix products.

A row of the result is a weighted sum of some neighbouring rows of the source, so a block of rows is a small matrix of
weights times a slice of the image; columns likewise. The matrix library works on many pixels at once, which Pillow's
resampling does not, and so takes a third of its time. The pixels are Pillow's but for rounding, and but for what
overshoots black or white after the first of the two steps, which Pillow cuts off between them.

Every sum is exact: the weights are multiples of 2 ** -14, so that float32 holds each intermediate value in full,
whatever the order in which a machine's library adds. The same pixels therefore come out everywhere.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

LANCZOS_LOBES = 3
WEIGHT_STEPS = 2**14
# OpenBLAS takes a second thread for twice 262,144 multiplications (interface/gemm.c); the callers are threads already.
MOST_PRODUCTS = 500_000

Array = npt.NDArray[np.float32]


class _Block(NamedTuple):
    """Weights of neighbouring rows (or columns) of the result: float32 `(rows, source rows)`."""

    rows: slice
    source: slice
    weights: Array


def resample(image: Image.Image, size: tuple[int, int], box: tuple[float, float, float, float]) -> Image.Image:
    """The image resized to `size` by the Lanczos filter with three lobes.

    Args:
        image: Of mode L or RGB.
        size: Width and height of the result.
        box: The part of the image that is resized; it begins at 0, 0.
    """
    return Image.merge(image.mode, [_resampled_band(band, size, box) for band in image.split()])


def _resampled_band(band: Image.Image, size: tuple[int, int], box: tuple[float, float, float, float]) -> Image.Image:
    width, height = size
    with _arrays((band.height, band.width), (height, band.width), (height, width)) as (pixels, rows, columns):
        np.copyto(pixels, np.asarray(band))
        for block in _blocks(band.height, height, box[3], band.width):
            np.matmul(block.weights, pixels[block.source], out=rows[block.rows])
        np.rint(rows, out=rows)
        for block in _blocks(band.width, width, box[2], height):
            np.matmul(rows[:, block.source], block.weights.T, out=columns[:, block.rows])
        np.rint(columns, out=columns)
        return Image.fromarray(np.clip(columns, 0, 255, out=columns).astype(np.uint8))


_idle_memory: list[Array] = []


@contextlib.contextmanager
def _arrays(*shapes: tuple[int, int]) -> Iterator[list[Array]]:
    """Arrays of any content in memory that is used again, since new memory costs more than the products."""
    sizes = [height * width for height, width in shapes]
    try:
        memory = _idle_memory.pop()
    except IndexError:
        memory = np.empty(0, np.float32)
    if len(memory) < sum(sizes):
        memory = np.empty(sum(sizes), np.float32)
    parts = np.split(memory[: sum(sizes)], np.cumsum(sizes)[:-1])
    try:
        yield [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]
    finally:
        _idle_memory.append(memory)


@functools.lru_cache(maxsize=128)
def _blocks(source: int, target: int, extent: float, length: int) -> tuple[_Block, ...]:
    """The weights of `target` rows of `length` pixels from the first `extent` of `source` rows, block by block."""
    first, weights = _weights(source, target, extent)
    taps = weights.shape[1]
    # The more rows, the fewer calls; but each adds places to the block that only its other rows need.
    rows = next((rows for rows in (32, 16, 8) if rows * (taps + rows * extent / target) * length <= MOST_PRODUCTS), 4)
    blocks = []
    for start in range(0, target, rows):
        stop = min(start + rows, target)
        low = int(first[start])
        places = first[start:stop, None] - low + np.arange(taps)
        block = np.zeros((stop - start, int(places.max()) + 1), np.float32)
        np.put_along_axis(block, places, weights[start:stop], axis=1)
        # Places behind the last source row have no weight.
        source_rows = slice(low, min(low + block.shape[1], source))
        blocks.append(_Block(slice(start, stop), source_rows, block[:, : source - low]))
    return tuple(blocks)


def _weights(source: int, target: int, extent: float) -> tuple[npt.NDArray[np.int64], Array]:
    """The first source row of each row of the result, and its weights from there on: float32 `(target, taps)`."""
    scale = extent / target
    stretch = max(scale, 1.0)
    reach = LANCZOS_LOBES * stretch
    centres = (np.arange(target) + 0.5) * scale
    first = np.maximum(centres - reach + 0.5, 0).astype(np.int64)
    last = np.minimum(centres + reach + 0.5, source).astype(np.int64)
    places = first[:, None] + np.arange(int((last - first).max()))
    distances = (places - centres[:, None] + 0.5) / stretch
    is_inside = (places < last[:, None]) & (np.abs(distances) < LANCZOS_LOBES)
    weights = np.where(is_inside, np.sinc(distances) * np.sinc(distances / LANCZOS_LOBES), 0.0)
    weights /= weights.sum(axis=1, keepdims=True)
    return first, (np.rint(weights * WEIGHT_STEPS) / WEIGHT_STEPS).astype(np.float32)
