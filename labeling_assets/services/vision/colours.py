"""Names the main colours and the colour mood of a picture, background discounted, for `EmbeddedVisionModel`.

Colours are compared in CIELAB, where distance means visible difference. What the colours say of an occasion or a style
is no business of this module.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float32]
    Bytes = npt.NDArray[np.uint8]

# sRGB values of common shades under each name; a pixel has the name of the nearest shade.
NAMED_COLOURS: dict[str, tuple[tuple[int, int, int], ...]] = {
    "Black": ((12, 12, 12), (38, 38, 40)),
    "Gray": ((85, 85, 88), (130, 130, 132), (175, 175, 178)),
    "White": ((238, 238, 238), (255, 255, 255)),
    "Cream": ((250, 240, 215), (240, 228, 200)),
    "Beige": ((222, 200, 165), (200, 180, 150)),
    "Brown": ((120, 75, 40), (85, 52, 30), (160, 110, 70)),
    "Red": ((205, 32, 40), (230, 60, 55)),
    "Burgundy": ((120, 22, 38), (95, 20, 35)),
    "Orange": ((242, 130, 32), (225, 105, 45)),
    "Coral": ((250, 130, 115),),
    "Yellow": ((250, 222, 60), (255, 235, 120)),
    "Gold": ((205, 160, 55), (225, 185, 90)),
    "Green": ((50, 150, 75), (110, 180, 90)),
    "Dark green": ((25, 75, 48), (45, 95, 65)),
    "Olive": ((120, 120, 55), (145, 145, 95)),
    "Mint": ((168, 226, 198), (190, 220, 200)),
    "Teal": ((28, 130, 130), (60, 165, 165)),
    "Light blue": ((150, 200, 235), (180, 215, 240)),
    "Blue": ((40, 95, 200), (65, 130, 215), (90, 125, 170)),
    "Navy blue": ((24, 38, 85), (38, 54, 100)),
    "Purple": ((110, 60, 160), (80, 45, 110)),
    "Lavender": ((195, 175, 230), (170, 150, 205)),
    "Pink": ((245, 165, 190), (250, 205, 215)),
    "Hot pink": ((230, 50, 130), (215, 85, 140)),
}
MAX_NAMES = 4

_SAMPLES_PER_EDGE = 96
_MIN_SHARE = 0.04
"""Less than this of the product is anti-aliasing, noise, or a small word."""
_MIN_GRAY_SHARE = 0.3
"""Less gray than this is shadow on a white product or light on a black one."""
_MIN_BORDER_SHARE = 0.1
_SAME_BACKGROUND_DISTANCE = 10.0
_MIN_FOREGROUND_SHARE = 0.08
_NEUTRAL_CHROMA = 12.0
_EARTH_TONES = ("Beige", "Brown", "Cream", "Gold", "Olive")


def describe_colours(rgb: Bytes) -> list[str]:
    """Up to four colour names, the largest share first, then the colour moods.

    Args:
        rgb: uint8, shape (height, width, 3), sRGB.
    """
    import numpy as np

    lab = _to_lab(_sample(rgb))
    names, shades = _palette()
    # |pixel - shade|² less |pixel|², which is the same for every shade.
    nearest = np.argmin((shades**2).sum(axis=1) - 2 * (lab @ shades.T), axis=2)
    is_product = ~_background(lab, nearest)
    if is_product.mean() < _MIN_FOREGROUND_SHARE:
        is_product[:] = True
    shares: dict[str, float] = {}
    for index, count in enumerate(np.bincount(nearest[is_product], minlength=len(names))):
        shares[names[index]] = shares.get(names[index], 0.0) + float(count) / int(is_product.sum())
    least = {"Gray": _MIN_GRAY_SHARE}
    main = [name for name in shares if shares[name] >= least.get(name, _MIN_SHARE)]
    main.sort(key=lambda name: (-shares[name], name))
    return main[:MAX_NAMES] + _moods(lab[is_product], shares)


def _sample(rgb: Bytes) -> Bytes:
    """At most 96 × 96 pixels on a grid: no new mixed colours, unlike a smooth reduction."""
    rows, columns = (max(1, -(-edge // _SAMPLES_PER_EDGE)) for edge in rgb.shape[:2])
    return rgb[rows // 2 :: rows, columns // 2 :: columns]


def _to_lab(rgb: Bytes) -> Floats:
    """CIELAB, float32, L from 0 to 100, same height and width."""
    import cv2
    import numpy as np

    return cv2.cvtColor(np.ascontiguousarray(rgb, np.float32) / np.float32(255), cv2.COLOR_RGB2LAB).astype(np.float32)


@functools.cache
def _palette() -> tuple[list[str], Floats]:
    """Name and CIELAB of each shade, shape (shades, 3)."""
    import numpy as np

    names = [name for name, shades in NAMED_COLOURS.items() for _ in shades]
    rgb = np.array([shade for shades in NAMED_COLOURS.values() for shade in shades], np.uint8)
    return names, _to_lab(rgb[None])[0]


def _background(lab: Floats, nearest: npt.NDArray[np.intp]) -> npt.NDArray[np.bool_]:
    """Pixels of a colour that is common along the border, and that connect to it.

    A white mug on a white table is kept where a shadow parts the two.
    """
    import cv2
    import numpy as np

    is_border = np.zeros(lab.shape[:2], bool)
    is_border[:2], is_border[-2:], is_border[:, :2], is_border[:, -2:] = True, True, True, True
    like_border = np.zeros(lab.shape[:2], np.uint8)
    counts = np.bincount(nearest[is_border])
    for shade in np.flatnonzero(counts >= _MIN_BORDER_SHARE * is_border.sum()):
        mean = lab[is_border & (nearest == shade)].mean(axis=0)
        like_border |= (((lab - mean) ** 2).sum(axis=2) < _SAME_BACKGROUND_DISTANCE**2).astype(np.uint8)
    _, component = cv2.connectedComponents(like_border, connectivity=4)
    touching = np.setdiff1d(component[is_border], [0])
    background: npt.NDArray[np.bool_] = np.isin(component, touching)
    return background


def _moods(lab: Floats, shares: dict[str, float]) -> list[str]:
    """What the colours of the product, shape (pixels, 3), are like together."""
    import numpy as np

    lightness, chroma = lab[:, 0], np.hypot(lab[:, 1], lab[:, 2])
    colourful = chroma > _NEUTRAL_CHROMA
    if colourful.mean() < _MIN_SHARE:
        return ["Monochrome"]
    moods = []
    if sum(shares.get(name, 0.0) for name in _EARTH_TONES) > 0.5:
        moods.append("Earth tones")
    elif lightness.mean() > 72 and 8 < chroma.mean() < 35:
        moods.append("Pastel")
    elif chroma.mean() > 45:
        moods.append("Vibrant")
    if lightness.mean() < 35:
        moods.append("Dark")
    hue_degrees = np.degrees(np.arctan2(lab[colourful, 2], lab[colourful, 1]))
    is_warm = float(((hue_degrees > -30) & (hue_degrees < 100)).mean())  # pink, red, orange and yellow
    if is_warm > 0.8:
        moods.append("Warm tones")
    elif is_warm < 0.2:
        moods.append("Cool tones")
    return moods
