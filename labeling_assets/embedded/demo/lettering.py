"""Lines of text as masks, in fonts that hold every Vietnamese letter.

The fonts are those inside OpenCV 5 (Rubik, and a pan-Unicode sans for what Rubik lacks): Pillow's bundled font has no
accented letter at all, and no other dependency ships one. How lines are arranged is in `designs.py`.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Literal

import numpy as np
from PIL import Image

from labeling_assets.errors import ConfigurationError

FontStyle = Literal["regular", "bold", "black", "italic"]
_FACES: dict[FontStyle, tuple[str, int]] = {
    "regular": ("sans", 450),
    "bold": ("sans", 700),
    "black": ("sans", 850),
    "italic": ("italic", 600),
}
_REFERENCE_PX = 100


@lru_cache
def _font_face(name: str) -> Any:  # noqa: ANN401 - OpenCV's font class is known only after the import
    """One of OpenCV's built-in fonts.

    Raises:
        ConfigurationError: OpenCV is older than 5 and has no such fonts.
    """
    import cv2

    if not hasattr(cv2, "FontFace"):
        raise ConfigurationError(
            f"The demo catalogue needs the fonts of OpenCV 5; installed is {cv2.__version__}.",
            "Run: pip install 'opencv-python-headless>=5'.",
        )
    return cv2.FontFace(name)


def _face_of(text: str, style: FontStyle) -> tuple[str, int]:
    """Font name and weight; Rubik lacks most Vietnamese letters, and one word in two fonts looks broken."""
    return _FACES[style] if text.isascii() else ("uni", 400)


def line_width_px(text: str, style: FontStyle, size_px: float) -> float:
    """Width of a line of text at a font size, nearly exact."""
    return _reference_size_px(text, style)[0] * size_px / _REFERENCE_PX


def line_height_px(text: str, style: FontStyle, size_px: float) -> float:
    """Height of the ink of a line, nearly exact."""
    return _reference_size_px(text, style)[1] * size_px / _REFERENCE_PX


@lru_cache(maxsize=4096)
def _reference_size_px(text: str, style: FontStyle) -> tuple[int, int]:
    import cv2

    name, weight = _face_of(text, style)
    _, _, advance, _ = cv2.getTextSize((0, 0), text, (0, 0), _font_face(name), _REFERENCE_PX, weight)
    ink = line_mask(text, style, _REFERENCE_PX)
    return max(int(advance), ink.width), ink.height


@lru_cache(maxsize=256)
def line_mask(text: str, style: FontStyle, size_px: int) -> Image.Image:
    """A mask (mode L) of one line, cropped to its ink."""
    import cv2

    name, weight = _face_of(text, style)
    margin = size_px // 2
    face = _font_face(name)
    width = cv2.getTextSize((0, 0), text, (0, 0), face, size_px, weight)[2] + 2 * margin
    pixels: np.ndarray[Any, Any] = np.zeros((2 * size_px + margin, width), np.uint8)
    cv2.putText(pixels, text, (margin, round(1.5 * size_px)), (255,), face, size_px, weight)
    if name == "uni" and style in ("bold", "black"):
        thickness = max(2, round(size_px / 22))  # this font has one weight; growing the letters makes it bold
        pixels = cv2.dilate(pixels, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (thickness, thickness)))
    mask = Image.fromarray(pixels)
    return mask.crop(mask.getbbox() or (0, 0, 1, 1))
