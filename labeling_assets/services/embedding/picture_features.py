"""A picture as a vector without a model: a block for its shapes and a block for its colours.

What weight each block has is for the embedder to say.
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING

from labeling_assets.errors import VectorError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from PIL import Image

    FloatArray = npt.NDArray[np.float32]

SHAPE_DIMENSIONS = 128
COLOUR_DIMENSIONS = 64

EDGE_PX = 128
_CELL_PX = 16
_ORIENTATIONS = 9
_GRADIENT_NOISE = 3.0
"""Steps of brightness (of 255) between neighbours that JPEG makes by itself."""
_FLAT_NORM = 10.0
_COLOUR_SAMPLE_STEP_PX = 2
_COLOUR_BINS = 4
_PROJECTION_SEED = 20250101
PICTURE_PARAMETERS = (
    SHAPE_DIMENSIONS,
    COLOUR_DIMENSIONS,
    EDGE_PX,
    _CELL_PX,
    _ORIENTATIONS,
    _GRADIENT_NOISE,
    _FLAT_NORM,
    _COLOUR_SAMPLE_STEP_PX,
    _COLOUR_BINS,
    _PROJECTION_SEED,
)
"""Everything but code and libraries that decides a picture's blocks."""


def read_pixels(image: Image.Image) -> FloatArray:
    """The picture as float32 of 0 to 255, shape (128, 128, 3), RGB; transparency onto white.

    Raises:
        VectorError: The picture cannot be read.
    """
    import numpy as np
    from PIL import Image

    if 0 in image.size:
        raise VectorError("The picture cannot be read: it has no pixels.")
    try:
        if image.has_transparency_data:
            rgba = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
        size = (EDGE_PX, EDGE_PX)
        small = image.convert("RGB").resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)
    except (OSError, ValueError, SyntaxError) as error:
        raise VectorError(f"The picture cannot be read: {error}") from error
    return np.asarray(small, np.float32)


def shape_block(pixels: FloatArray) -> FloatArray:
    """Histograms of oriented gradients, randomly projected, shape (128,), of length about 1; 0 for a flat picture.

    Gradients are normalised over the whole picture, not by blocks, or the noise of flat areas would count like edges.
    """
    import numpy as np

    grey = pixels.mean(axis=2)
    down, right = np.gradient(grey)
    strength = np.maximum(np.hypot(down, right) - _GRADIENT_NOISE, 0)
    orientation = (np.arctan2(down, right) % np.pi) / np.pi * _ORIENTATIONS
    lower = np.floor(orientation)
    share = orientation - lower
    cells = EDGE_PX // _CELL_PX
    row, column = np.indices(grey.shape) // _CELL_PX
    cell = (row * cells + column) * _ORIENTATIONS
    histogram = np.zeros(cells * cells * _ORIENTATIONS)
    for bin_offset, part in ((0, 1 - share), (1, share)):
        bins = cell + (lower.astype(int) + bin_offset) % _ORIENTATIONS
        histogram += np.bincount(bins.ravel(), (strength * part).ravel(), histogram.size)
    features = np.sqrt(histogram)
    # Without their mean, which every picture has, unlike pictures come out apart.
    features -= features.mean()
    features /= np.linalg.norm(features) + _FLAT_NORM
    projected: FloatArray = (features @ _projection(histogram.size)).astype(np.float32)
    return projected


@functools.cache
def _projection(features: int) -> FloatArray:
    """Random signs, shape (features, 128), that keep lengths and angles about as they are.

    Achlioptas (2003), Database-friendly random projections. NumPy promises that `RandomState` never changes.
    """
    import numpy as np

    signs = np.random.RandomState(_PROJECTION_SEED).randint(0, 2, (features, SHAPE_DIMENSIONS)) * 2 - 1
    return (signs / math.sqrt(SHAPE_DIMENSIONS)).astype(np.float32)


def colour_block(pixels: FloatArray) -> FloatArray:
    """Soft histogram of brightness, red-green and blue-yellow, shape (64,), of length 1.

    A pixel counts for the neighbouring bins by its distance, so a slight change of colour changes the
    histogram slightly.
    """
    import numpy as np

    red, green, blue = pixels[::_COLOUR_SAMPLE_STEP_PX, ::_COLOUR_SAMPLE_STEP_PX].reshape(-1, 3).T / 255
    channels = ((red + green + blue) / 3, (red - green + 1) / 2, (blue - (red + green) / 2 + 1) / 2)
    # Opponent colours of photos lie in the middle half of their range.
    stretched = (channels[0], channels[1] * 2 - 0.5, channels[2] * 2 - 0.5)
    positions = np.stack([np.clip(channel, 0, 1) * (_COLOUR_BINS - 1) for channel in stretched])
    lower = np.minimum(np.floor(positions), _COLOUR_BINS - 2).astype(int)
    share = positions - lower
    histogram = np.zeros(_COLOUR_BINS**3)
    for corner in np.ndindex(2, 2, 2):
        offset = np.array(corner)[:, None]
        weight = np.where(offset, share, 1 - share).prod(axis=0)
        bins = np.ravel_multi_index(tuple(lower + offset), (_COLOUR_BINS,) * 3)
        histogram += np.bincount(bins, weight, histogram.size)
    features = np.sqrt(histogram)
    unit: FloatArray = (features / np.linalg.norm(features)).astype(np.float32)
    return unit
