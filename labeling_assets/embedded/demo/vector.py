"""Antialiased drawing in the unit square: outlines written as SVG paths, filled into masks.

Coordinates run from (0, 0), top left, to (1, 1). Pillow's own drawing has hard edges, so a mask is drawn larger and
reduced once. What is drawn with it is in `motifs_*.py` (prints) and `shapes.py` (products).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from PIL import Image, ImageDraw

Point = tuple[float, float]
_TOKEN = re.compile(r"[MLQCZ]|-?\d*\.?\d+")
_CURVE_STEPS = 22


def outline(path: str) -> list[Point]:
    """Points of one closed outline given as an absolute SVG path of the commands M, L, Q, C and Z.

    >>> outline("M 0 0 L 1 0 L 1 1 Z")
    [(0.0, 0.0), (1.0, 0.0), (1.0, 1.0)]
    """
    tokens = _TOKEN.findall(path)
    points: list[Point] = []
    command, position = "M", 0
    while position < len(tokens):
        if tokens[position].isalpha():
            command = tokens[position]
            position += 1
            continue
        count = {"M": 1, "L": 1, "Q": 2, "C": 3}[command]
        numbers = [float(token) for token in tokens[position : position + 2 * count]]
        anchors = list(zip(numbers[::2], numbers[1::2], strict=True))
        position += 2 * count
        points.extend(anchors if count == 1 else _bezier([points[-1], *anchors]))
    return points


def _bezier(anchors: Sequence[Point]) -> list[Point]:
    """Points of a Bezier curve of any degree after its first anchor."""
    degree = len(anchors) - 1
    points = []
    for step in range(1, _CURVE_STEPS + 1):
        t = step / _CURVE_STEPS
        weights = [math.comb(degree, k) * t**k * (1 - t) ** (degree - k) for k in range(degree + 1)]
        points.append(
            (
                sum(w * anchor[0] for w, anchor in zip(weights, anchors, strict=True)),
                sum(w * anchor[1] for w, anchor in zip(weights, anchors, strict=True)),
            )
        )
    return points


def mirrored(path: str) -> list[Point]:
    """The outline whose left half is `path`, from the top of the axis x = 0.5 to its bottom."""
    half = outline(path)
    return half + [(1 - x, y) for x, y in reversed(half)]


def regular_star(cx: float, cy: float, radius: float, tips: int = 5, inner: float = 0.45) -> list[Point]:
    """Points of a star that stands on two tips; `inner` is the inner radius as a share of `radius`."""
    points = []
    for corner in range(2 * tips):
        length = radius if corner % 2 == 0 else radius * inner
        angle = math.pi * corner / tips - math.pi / 2
        points.append((cx + length * math.cos(angle), cy + length * math.sin(angle)))
    return points


def rotated(points: Sequence[Point], degrees: float, cx: float = 0.5, cy: float = 0.5) -> list[Point]:
    """The points turned clockwise about (cx, cy)."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return [(cx + (x - cx) * cos - (y - cy) * sin, cy + (x - cx) * sin + (y - cy) * cos) for x, y in points]


def oval(cx: float, cy: float, rx: float, ry: float) -> list[Point]:
    """Points of an ellipse, for ovals that are turned."""
    angles = [2 * math.pi * step / 40 for step in range(40)]
    return [(cx + rx * math.cos(angle), cy + ry * math.sin(angle)) for angle in angles]


class Mask:
    """One greyscale mask of `size_px` squared under construction.

    Args:
        size_px: Edge of the finished mask.
        oversampling: How many times larger it is drawn.
    """

    def __init__(self, size_px: int, oversampling: int) -> None:
        self._oversampling = oversampling
        self._edge = size_px * oversampling
        self._image = Image.new("L", (self._edge, self._edge), 0)
        self._draw = ImageDraw.Draw(self._image)

    def polygon(self, points: Sequence[Point], value: int = 255) -> None:
        """Fill an outline."""
        self._draw.polygon([(x * self._edge, y * self._edge) for x, y in points], fill=value)

    def ellipse(self, cx: float, cy: float, rx: float, ry: float, value: int = 255) -> None:
        """Fill an upright ellipse."""
        edge = self._edge
        self._draw.ellipse(((cx - rx) * edge, (cy - ry) * edge, (cx + rx) * edge, (cy + ry) * edge), fill=value)

    def rounded(self, x0: float, y0: float, x1: float, y1: float, radius: float, value: int = 255) -> None:
        """Fill a rectangle with round corners."""
        edge = self._edge
        self._draw.rounded_rectangle((x0 * edge, y0 * edge, x1 * edge, y1 * edge), radius * edge, fill=value)

    def line(self, points: Sequence[Point], width: float, value: int = 255) -> None:
        """Draw a line with round joints and ends."""
        scaled = [(x * self._edge, y * self._edge) for x, y in points]
        self._draw.line(scaled, fill=value, width=max(1, round(width * self._edge)), joint="curve")
        for x, y in (points[0], points[-1]):
            self.ellipse(x, y, width / 2, width / 2, value)

    def finish(self) -> Image.Image:
        """The mask in its final size, mode L."""
        return self._image.reduce(self._oversampling)
