"""The pictures that are printed on products: heart, paw, fish … as up to three masks, one for each ink.

A motif is a function that draws with a `Pen` in the unit square. Here: the pen, the registry and plants, sky and signs;
animals are in `motifs_animals.py`, things in `motifs_things.py`.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Literal

from PIL import Image

from labeling_assets.embedded.demo.vector import Mask, Point, outline, oval, regular_star, rotated

Ink = Literal["main", "accent", "third"]
Drawing = Callable[["Pen"], None]
INKS: tuple[Ink, ...] = ("main", "accent", "third")
_MASTER_PX = 320
_OVERSAMPLING = 3
_DRAWINGS: dict[str, tuple[str, Drawing]] = {}


class Pen:
    """Draws in three inks; a later stroke covers an earlier one, and the ink None cuts out."""

    def __init__(self) -> None:
        self._masks = {ink: Mask(_MASTER_PX, _OVERSAMPLING) for ink in INKS}

    def polygon(self, ink: Ink | None, points: Sequence[Point]) -> None:
        """Fill an outline."""
        for name, mask in self._masks.items():
            mask.polygon(points, 255 if name == ink else 0)

    def path(self, ink: Ink | None, path: str) -> None:
        """Fill an SVG path."""
        self.polygon(ink, outline(path))

    def ellipse(self, ink: Ink | None, cx: float, cy: float, rx: float, ry: float | None = None) -> None:
        """Fill an ellipse, or a circle where `ry` is left out."""
        for name, mask in self._masks.items():
            mask.ellipse(cx, cy, rx, rx if ry is None else ry, 255 if name == ink else 0)

    def rounded(self, ink: Ink | None, x0: float, y0: float, x1: float, y1: float, radius: float = 0.02) -> None:
        """Fill a rectangle with round corners."""
        for name, mask in self._masks.items():
            mask.rounded(x0, y0, x1, y1, radius, 255 if name == ink else 0)

    def line(self, ink: Ink | None, points: Sequence[Point], width: float = 0.03) -> None:
        """Draw a line with round ends."""
        for name, mask in self._masks.items():
            mask.line(points, width, 255 if name == ink else 0)

    def finish(self) -> dict[Ink, Image.Image]:
        """The masks that hold anything."""
        masks = {ink: mask.finish() for ink, mask in self._masks.items()}
        return {ink: mask for ink, mask in masks.items() if mask.getbbox()}


def motif(subject: str) -> Callable[[Drawing], Drawing]:
    """Register a drawing under its function's name, with what a person says it shows."""

    def register(drawing: Drawing) -> Drawing:
        _DRAWINGS[drawing.__name__.removeprefix("_")] = (subject, drawing)
        return drawing

    return register


def motif_names() -> tuple[str, ...]:
    """Names of all motifs, sorted."""
    for module in ("motifs_animals", "motifs_things"):
        importlib.import_module(f"{__package__}.{module}")
    return tuple(sorted(_DRAWINGS))


def motif_subject(name: str) -> str:
    """What a motif shows, in words."""
    motif_names()
    return _DRAWINGS[name][0]


@lru_cache(maxsize=128)
def _master(name: str) -> dict[Ink, Image.Image]:
    motif_names()
    pen = Pen()
    _DRAWINGS[name][1](pen)
    return pen.finish()


@lru_cache(maxsize=256)
def motif_masks(name: str, size_px: int) -> dict[Ink, Image.Image]:
    """Masks (mode L, size_px squared) of a motif by ink."""
    shape = (size_px, size_px)
    return {ink: mask.resize(shape, Image.Resampling.BOX) for ink, mask in _master(name).items()}


def leaf(pen: Pen, ink: Ink, cx: float, cy: float, length: float, degrees: float) -> None:
    """Draw a pointed leaf about its centre; 0 degrees lies along x."""
    half = length / 2
    shape = outline(
        f"M {cx - half} {cy} Q {cx} {cy - length * 0.42} {cx + half} {cy} Q {cx} {cy + length * 0.42} {cx - half} {cy}"
    )
    pen.polygon(ink, rotated(shape, degrees, cx, cy))


HEART = "M .5 .9 C .1 .6 .02 .42 .08 .27 C .16 .08 .4 .08 .5 .28 C .6 .08 .84 .08 .92 .27 C .98 .42 .9 .6 .5 .9 Z"


@motif("heart")
def _heart(pen: Pen) -> None:
    pen.path("accent", HEART)
    pen.line(None, outline("M .19 .42 C .18 .33 .22 .27 .29 .25"), 0.045)


@motif("stars")
def _star(pen: Pen) -> None:
    pen.polygon("accent", regular_star(0.5, 0.55, 0.4))
    pen.polygon("main", regular_star(0.15, 0.18, 0.11))
    pen.polygon("main", regular_star(0.87, 0.2, 0.09))


@motif("Christmas tree")
def _tree(pen: Pen) -> None:
    pen.rounded("main", 0.44, 0.8, 0.56, 0.95, 0.01)
    for top, bottom, half in ((0.44, 0.83, 0.37), (0.28, 0.62, 0.29), (0.14, 0.42, 0.2)):
        pen.path(
            "third",
            f"M .5 {top} Q {0.5 + half * 0.5} {bottom - 0.1} {0.5 + half} {bottom} "
            f"Q .5 {bottom + 0.05} {0.5 - half} {bottom} Q {0.5 - half * 0.5} {bottom - 0.1} .5 {top}",
        )
    for x, y in ((0.42, 0.36), (0.57, 0.45), (0.38, 0.57), (0.55, 0.63), (0.3, 0.77), (0.47, 0.76), (0.67, 0.76)):
        pen.ellipse("accent", x, y, 0.032)
    pen.polygon("main", regular_star(0.5, 0.13, 0.11))


@motif("daisy")
def _flower(pen: Pen) -> None:
    pen.line("third", outline("M .5 .5 Q .52 .75 .47 .96"), 0.035)
    leaf(pen, "third", 0.62, 0.8, 0.26, -35)
    leaf(pen, "third", 0.36, 0.84, 0.24, 215)
    for petal in range(8):
        angle = petal * math.pi / 4
        x, y = 0.5 + 0.2 * math.cos(angle), 0.34 + 0.2 * math.sin(angle)
        pen.polygon("accent", rotated(oval(x, y, 0.135, 0.075), petal * 45, x, y))
    pen.ellipse("main", 0.5, 0.34, 0.1)


@motif("sunflower")
def _sunflower(pen: Pen) -> None:
    for ring, shift in ((0.36, 0.0), (0.33, 0.5)):
        for petal in range(14):
            angle = (petal + shift) * 360 / 14
            x, y = 0.5 + ring * math.cos(math.radians(angle)), 0.5 + ring * math.sin(math.radians(angle))
            leaf(pen, "accent", x, y, 0.25, angle)
    pen.ellipse("main", 0.5, 0.5, 0.25)
    for seed in range(36):
        radius, angle = 0.035 * math.sqrt(seed) + 0.01, seed * 2.39996
        pen.ellipse("third", 0.5 + radius * math.cos(angle), 0.5 + radius * math.sin(angle), 0.014)


@motif("apricot blossom branch")
def _blossom(pen: Pen) -> None:
    pen.line("main", outline("M .04 .9 Q .3 .8 .45 .58 Q .62 .36 .95 .2"), 0.035)
    pen.line("main", outline("M .42 .62 Q .6 .66 .8 .78"), 0.025)
    pen.line("main", outline("M .6 .42 Q .58 .28 .5 .14"), 0.025)
    for cx, cy, size in ((0.36, 0.42, 0.17), (0.72, 0.44, 0.2), (0.55, 0.78, 0.15), (0.86, 0.16, 0.11)):
        for petal in range(5):
            angle = math.radians(petal * 72 - 90)
            pen.ellipse("accent", cx + size * 0.55 * math.cos(angle), cy + size * 0.55 * math.sin(angle), size * 0.46)
        pen.ellipse("third", cx, cy, size * 0.3)
    for x, y in ((0.5, 0.13), (0.81, 0.79), (0.22, 0.81)):
        pen.ellipse("accent", x, y, 0.045)


@motif("four-leaf clover")
def _clover(pen: Pen) -> None:
    pen.line("third", outline("M .5 .5 Q .52 .8 .66 .95"), 0.04)
    lobe = "M .5 .5 C .3 .42 .24 .26 .32 .16 C .4 .08 .48 .12 .5 .22 C .52 .12 .6 .08 .68 .16 C .76 .26 .7 .42 .5 .5"
    for quarter in range(4):
        pen.polygon("third", rotated(outline(lobe), quarter * 90 + 45))
    pen.ellipse("accent", 0.5, 0.5, 0.04)


@motif("snowflake")
def _snowflake(pen: Pen) -> None:
    for arm in range(6):
        pen.line("accent", rotated([(0.5, 0.5), (0.5, 0.07)], arm * 60), 0.035)
        for y, reach in ((0.16, 0.1), (0.29, 0.12)):
            twig = [(0.5 - reach, y - reach * 0.55), (0.5, y + 0.03), (0.5 + reach, y - reach * 0.55)]
            pen.line("accent", rotated(twig, arm * 60), 0.028)
    pen.polygon("main", regular_star(0.5, 0.5, 0.09, tips=6, inner=0.6))


@motif("sun over waves")
def _sun(pen: Pen) -> None:
    for ray in range(12):
        pen.polygon("accent", rotated([(0.46, 0.2), (0.5, 0.04), (0.54, 0.2)], ray * 30, 0.5, 0.46))
    pen.ellipse("accent", 0.5, 0.46, 0.22)
    pen.rounded(None, 0, 0.68, 1, 1, 0)
    waves: tuple[tuple[float, Ink], ...] = ((0.74, "main"), (0.85, "third"))
    for y, ink in waves:
        pen.line(ink, [(step / 40, y + 0.028 * math.sin(step * 0.9)) for step in range(3, 38)], 0.035)


@motif("mountains and pine trees")
def _mountain(pen: Pen) -> None:
    pen.ellipse("accent", 0.68, 0.27, 0.16)
    pen.polygon("third", [(0.36, 0.82), (0.7, 0.3), (1.0, 0.82)])
    pen.polygon("main", [(0.0, 0.82), (0.38, 0.16), (0.72, 0.82)])
    pen.polygon(None, [(0.38, 0.16), (0.29, 0.32), (0.34, 0.37), (0.38, 0.31), (0.43, 0.38), (0.47, 0.33)])
    pen.rounded("main", 0.0, 0.82, 1.0, 0.86, 0.01)
    for x in (0.12, 0.22, 0.8, 0.9):
        pen.polygon("third" if x < 0.5 else "main", [(x - 0.06, 0.84), (x, 0.6), (x + 0.06, 0.84)])


@motif("crescent moon and stars")
def _moon(pen: Pen) -> None:
    pen.ellipse("accent", 0.46, 0.5, 0.38)
    pen.ellipse(None, 0.6, 0.42, 0.32)
    for x, y, size in ((0.62, 0.4, 0.13), (0.84, 0.2, 0.08), (0.84, 0.66, 0.07)):
        pen.polygon("main", regular_star(x, y, size))


@motif("rainbow")
def _rainbow(pen: Pen) -> None:
    bands: tuple[tuple[float, Ink | None], ...] = ((0.42, "main"), (0.34, "accent"), (0.26, "third"), (0.18, None))
    for radius, ink in bands:
        pen.ellipse(ink, 0.5, 0.66, radius)
    pen.rounded(None, 0, 0.67, 1, 1.1, 0)
    for side in (0.17, 0.83):
        for dx, dy, radius in ((-0.08, 0.0, 0.08), (0.01, -0.05, 0.1), (0.09, 0.01, 0.075)):
            pen.ellipse("third", side + dx, 0.7 + dy, radius)


@motif("cross with laurel")
def _cross(pen: Pen) -> None:
    pen.rounded("main", 0.45, 0.1, 0.55, 0.86, 0.015)
    pen.rounded("main", 0.27, 0.3, 0.73, 0.4, 0.015)
    for side in (-1, 1):
        for step in range(5):
            x, y = 0.5 + side * (0.1 + 0.07 * step), 0.9 - 0.018 * step * step
            leaf(pen, "accent", x, y, 0.15, -side * (18 + 14 * step))


@motif("heart with pulse line")
def _heartbeat(pen: Pen) -> None:
    pen.path("accent", HEART)
    line = [(0.0, 0.52), (0.24, 0.52), (0.31, 0.4), (0.4, 0.68), (0.5, 0.26), (0.58, 0.6), (0.64, 0.52), (1.0, 0.52)]
    pen.line(None, line, 0.085)
    pen.line("main", line, 0.035)
