"""The image preparation of CLIP-like models: scaled, cropped at the centre, as numbers of mean 0.

One implementation for all models that are fed so. It works on bytes as long as it can, so that only the last step,
which a GPU does best, works on floating-point numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from labeling_assets.errors import VectorError

if TYPE_CHECKING:
    from PIL import Image

FloatArray = npt.NDArray[np.float32]
ByteArray = npt.NDArray[np.uint8]

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
"""Of the images that OpenAI's CLIP was trained on (github.com/openai/CLIP, clip.py)."""
MAX_ASPECT = 4
"""A strip that is longer is cropped to this before its short side is scaled up, or one of 1 x 50,000 pixels would take
gigabytes; of what remains, the centre square is used."""
_SAME = 2e-3
"""Steps of the normalised value; one step of a byte is 0.004 before normalisation."""


@dataclass(frozen=True)
class ImagePreparation:
    """How an image becomes the input of a model.

    Attributes:
        shortest_edge_px: What the shorter side is scaled to; 0: width and height are scaled to `width_px, height_px`
            whatever the aspect.
        width_px: Width of the input; with `shortest_edge_px`, of the crop at the centre.
        height_px: Height of the input.
        resample: Filter, a `PIL.Image.Resampling`.
        mean: Of each channel, for values of 0 to 1.
        std: Of each channel.
    """

    shortest_edge_px: int
    width_px: int
    height_px: int
    resample: int
    mean: tuple[float, float, float] = CLIP_MEAN
    std: tuple[float, float, float] = CLIP_STD

    @property
    def edge_px(self) -> int:
        """Pixels that both edges of an image need, so that nothing is enlarged."""
        return self.shortest_edge_px or max(self.width_px, self.height_px)

    def pixels(self, image: Image.Image) -> ByteArray:
        """The pixels of the input, uint8, shape (height, width, 3), RGB; works in any thread.

        Raises:
            VectorError: The image cannot be read.
        """
        image = rgb(image)
        if not self.shortest_edge_px:
            return np.asarray(image.resize((self.width_px, self.height_px), self.resample))
        image = without_excess(image)
        short, long = sorted(image.size)
        scaled = int(self.shortest_edge_px * long / short)
        is_wide = image.width >= image.height
        size = (scaled, self.shortest_edge_px) if is_wide else (self.shortest_edge_px, scaled)
        left, top = (size[0] - self.width_px) // 2, (size[1] - self.height_px) // 2
        resized = image.resize(size, self.resample)
        return np.asarray(resized.crop((left, top, left + self.width_px, top + self.height_px)))

    def normalised(self, pixels: Sequence[ByteArray]) -> FloatArray:
        """Images as the model takes them, float32, shape (n, 3, height, width).

        Args:
            pixels: Arrays of `pixels`.
        """
        scale = (1 / 255 / np.asarray(self.std)).astype(np.float32)
        shift = (np.asarray(self.mean) / np.asarray(self.std)).astype(np.float32)
        values = np.stack(pixels).transpose(0, 3, 1, 2).astype(np.float32)
        values *= scale[:, None, None]
        values -= shift[:, None, None]
        return np.ascontiguousarray(values)


def preparation_of(processor: Any) -> ImagePreparation | None:  # noqa: ANN401 - of transformers, which has no types
    """The preparation that does what an image processor of `transformers` does; None where none does the same.

    Whether it does is tried out on a picture, so that no option of a processor is overlooked.
    """
    size, crop = _edges(processor, "size"), _edges(processor, "crop_size")
    if size is None:
        return None
    shortest = size.get("shortest_edge") or 0
    edges = crop if shortest and crop else size
    if not edges.get("width") or not edges.get("height"):
        return None
    preparation = ImagePreparation(
        shortest, edges["width"], edges["height"], int(processor.resample), *_mean_and_std(processor)
    )
    picture = _trial_picture(2 * edges["width"] + 37, edges["height"] + 51)
    theirs = processor(images=[picture], return_tensors="np")
    ours = preparation.normalised([preparation.pixels(picture)])
    is_same = (
        set(theirs) == {"pixel_values"}
        and theirs["pixel_values"].shape == ours.shape
        and bool(np.abs(theirs["pixel_values"] - ours).max() < _SAME)
    )
    return preparation if is_same else None


def rgb(image: Image.Image) -> Image.Image:
    """The image in RGB, transparency onto white; the image itself where it is so already.

    Raises:
        VectorError: The image cannot be read.
    """
    from PIL import Image

    if 0 in image.size:
        raise VectorError("The image cannot be read: it has no pixels.")
    try:
        if image.has_transparency_data:
            rgba = image.convert("RGBA")
            return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
        if image.mode == "RGB":
            image.load()
            return image
        return image.convert("RGB")
    except (OSError, ValueError, SyntaxError) as error:
        raise VectorError(f"The image cannot be read: {error}") from error


def without_excess(image: Image.Image) -> Image.Image:
    """The middle of a strip that is longer than `MAX_ASPECT` times its width; any other image as it is."""
    width, height = image.size
    limit = MAX_ASPECT * min(width, height)
    if max(width, height) <= limit:
        return image
    left, top = max(0, (width - limit) // 2), max(0, (height - limit) // 2)
    return image.crop((left, top, left + min(width, limit), top + min(height, limit)))


def _edges(processor: Any, name: str) -> dict[str, int] | None:  # noqa: ANN401 - of transformers, which has no types
    value = getattr(processor, name, None)
    return None if value is None else {key: edge for key, edge in dict(value).items() if edge}


def _mean_and_std(processor: Any) -> tuple[tuple[float, float, float], tuple[float, float, float]]:  # noqa: ANN401 - of transformers, which has no types
    red, green, blue = processor.image_mean
    red_std, green_std, blue_std = processor.image_std
    return (red, green, blue), (red_std, green_std, blue_std)


def _trial_picture(width_px: int, height_px: int) -> Image.Image:
    from PIL import Image

    noise = np.random.default_rng(0).integers(0, 256, (height_px, width_px, 3), dtype=np.uint8)
    return Image.fromarray(noise)
