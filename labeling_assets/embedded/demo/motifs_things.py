"""Motifs of things: what people do, eat, play and celebrate with; see `motifs.py`."""

from __future__ import annotations

import math

from labeling_assets.embedded.demo.motifs import HEART, Ink, Pen, leaf, motif
from labeling_assets.embedded.demo.vector import mirrored, outline, oval, regular_star, rotated


@motif("coffee cup")
def _coffee(pen: Pen) -> None:
    for x in (0.34, 0.48, 0.62):
        pen.line("accent", outline(f"M {x} .36 C {x - 0.07} .28 {x + 0.07} .2 {x} .08"), 0.03)
    pen.ellipse("main", 0.76, 0.6, 0.16)
    pen.ellipse(None, 0.76, 0.6, 0.09)
    pen.path("main", "M .16 .42 L .8 .42 Q .8 .84 .6 .86 L .36 .86 Q .16 .84 .16 .42 Z")
    pen.ellipse("main", 0.48, 0.91, 0.42, 0.035)
    pen.polygon("accent", [(0.33 + 0.3 * x, 0.5 + 0.26 * y) for x, y in outline(HEART)])


@motif("open book")
def _book(pen: Pen) -> None:
    pen.polygon("main", mirrored("M .5 .36 Q .3 .22 .04 .32 L .04 .84 Q .3 .76 .5 .88"))
    pen.polygon(None, mirrored("M .5 .41 Q .3 .28 .09 .36 L .09 .78 Q .3 .71 .5 .82"))
    pen.line("main", [(0.5, 0.38), (0.5, 0.86)], 0.03)
    for y in (0.45, 0.54, 0.63):
        for side in (0, 1):
            row = outline(f"M .16 {y} Q .32 {y - 0.05} .44 {y + 0.05}")
            pen.line("third", [(1 - x, py) for x, py in row] if side else row, 0.02)
    for x, y, size in ((0.5, 0.15, 0.11), (0.3, 0.12, 0.06), (0.7, 0.12, 0.06)):
        pen.polygon("accent", regular_star(x, y, size))


@motif("crown")
def _crown(pen: Pen) -> None:
    pen.polygon("accent", [(0.08, 0.28), (0.3, 0.52), (0.5, 0.16), (0.7, 0.52), (0.92, 0.28), (0.84, 0.8), (0.16, 0.8)])
    pen.rounded("main", 0.15, 0.72, 0.85, 0.84, 0.02)
    for x, y in ((0.08, 0.26), (0.5, 0.14), (0.92, 0.26)):
        pen.ellipse("main", x, y, 0.055)
    for x in (0.3, 0.5, 0.7):
        pen.ellipse("third", x, 0.78, 0.035)


@motif("birthday cake with candles")
def _cake(pen: Pen) -> None:
    for x in (0.34, 0.5, 0.66):
        pen.rounded("main", x - 0.022, 0.22, x + 0.022, 0.42, 0.01)
        pen.path("accent", f"M {x} .06 Q {x + 0.06} .16 {x} .21 Q {x - 0.06} .16 {x} .06 Z")
    pen.rounded("third", 0.24, 0.4, 0.76, 0.62, 0.03)
    pen.rounded("main", 0.12, 0.6, 0.88, 0.88, 0.03)
    for tier, left, right in ((0.4, 0.24, 0.76), (0.6, 0.12, 0.88)):
        count = 5 if left > 0.2 else 7
        step = (right - left) / count
        for drop in range(count):
            pen.ellipse("accent", left + step * (drop + 0.5), tier + 0.03, step * 0.5, 0.055)
    pen.ellipse("main", 0.5, 0.91, 0.46, 0.03)


@motif("balloons")
def _balloons(pen: Pen) -> None:
    bunch: tuple[tuple[float, float, Ink], ...] = ((0.28, 0.34, "main"), (0.72, 0.34, "third"), (0.5, 0.26, "accent"))
    for x, y, ink in bunch:
        pen.line("main", outline(f"M {x} {y + 0.2} Q {x} .75 .5 .95"), 0.012)
        pen.ellipse(ink, x, y, 0.18, 0.22)
        pen.polygon(ink, [(x, y + 0.2), (x - 0.035, y + 0.26), (x + 0.035, y + 0.26)])
        pen.line(None, outline(f"M {x - 0.1} {y} Q {x - 0.1} {y - 0.1} {x - 0.03} {y - 0.14}"), 0.025)


@motif("gift box")
def _gift(pen: Pen) -> None:
    pen.rounded("main", 0.14, 0.42, 0.86, 0.92, 0.02)
    pen.rounded("main", 0.08, 0.32, 0.92, 0.48, 0.02)
    pen.line(None, [(0.1, 0.485), (0.9, 0.485)], 0.012)
    pen.rounded("accent", 0.43, 0.32, 0.57, 0.92, 0.0)
    for side in (0, 1):
        bow = outline("M .5 .32 C .3 .34 .14 .26 .22 .14 C .32 .04 .46 .16 .5 .32 Z")
        hole = outline("M .45 .28 C .34 .28 .26 .24 .29 .19 C .34 .14 .41 .2 .45 .28 Z")
        pen.polygon("accent", [(1 - x, y) for x, y in bow] if side else bow)
        pen.polygon(None, [(1 - x, y) for x, y in hole] if side else hole)


@motif("music notes")
def _music(pen: Pen) -> None:
    pen.line("main", [(0.36, 0.2), (0.36, 0.76)], 0.045)
    pen.line("main", [(0.8, 0.12), (0.8, 0.68)], 0.045)
    pen.polygon("main", [(0.34, 0.16), (0.82, 0.07), (0.82, 0.22), (0.34, 0.31)])
    for x, y in ((0.27, 0.78), (0.71, 0.7)):
        pen.polygon("accent", rotated(oval(x, y, 0.13, 0.095), -20, x, y))


@motif("guitar")
def _guitar(pen: Pen) -> None:

    def tilt(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
        return rotated(points, 35)

    pen.polygon("main", tilt(outline("M .46 .02 L .54 .02 L .54 .5 L .46 .5 Z")))
    pen.polygon("main", tilt(outline("M .44 .0 L .56 .0 L .55 .12 L .45 .12 Z")))
    pen.polygon(
        "accent", tilt(mirrored("M .5 .46 C .36 .42 .3 .5 .34 .6 C .36 .66 .26 .7 .26 .82 C .26 .98 .4 1 .5 1"))
    )
    pen.polygon("main", tilt(oval(0.5, 0.68, 0.075, 0.075)))
    pen.polygon("main", tilt(outline("M .41 .86 L .59 .86 L .59 .9 L .41 .9 Z")))
    for x in (0.48, 0.52):
        pen.line("third", tilt([(x, 0.08), (x, 0.86)]), 0.01)


@motif("soccer ball")
def _ball(pen: Pen) -> None:
    pen.ellipse("main", 0.5, 0.5, 0.44)
    pen.ellipse(None, 0.5, 0.5, 0.405)
    pen.polygon("main", [(0.5 + 0.15 * math.sin(k * 1.2566), 0.5 - 0.15 * math.cos(k * 1.2566)) for k in range(5)])
    for k in range(5):
        angle = k * 1.2566
        sin, cos = math.sin(angle), -math.cos(angle)
        pen.line("main", [(0.5 + 0.14 * sin, 0.5 + 0.14 * cos), (0.5 + 0.3 * sin, 0.5 + 0.3 * cos)], 0.025)
        patch = [(angle + spread, radius) for spread, radius in ((-0.22, 0.3), (0.22, 0.3), (0.3, 0.43), (-0.3, 0.43))]
        pen.polygon("main", [(0.5 + r * math.sin(a), 0.5 - r * math.cos(a)) for a, r in patch])
        seam = [(angle + 0.22, 0.3), (angle + 1.2566 / 2, 0.27), (angle + 1.2566 - 0.22, 0.3)]
        pen.line("main", [(0.5 + r * math.sin(a), 0.5 - r * math.cos(a)) for a, r in seam], 0.02)


@motif("camper van")
def _camper(pen: Pen) -> None:
    pen.rounded("accent", 0.06, 0.26, 0.94, 0.76, 0.12)
    pen.rounded("main", 0.06, 0.52, 0.94, 0.76, 0.06)
    for x0, x1 in ((0.13, 0.34), (0.39, 0.6), (0.65, 0.87)):
        pen.rounded(None, x0, 0.33, x1, 0.48, 0.03)
    pen.rounded("third", 0.2, 0.17, 0.74, 0.25, 0.03)
    for x in (0.27, 0.73):
        pen.ellipse(None, x, 0.77, 0.135)
        pen.ellipse("main", x, 0.77, 0.11)
        pen.ellipse("third", x, 0.77, 0.05)
    pen.ellipse("third", 0.9, 0.61, 0.03)


@motif("jack-o'-lantern pumpkin")
def _pumpkin(pen: Pen) -> None:
    pen.path("third", "M .46 .26 Q .46 .12 .6 .06 L .64 .12 Q .55 .17 .55 .27 Z")
    for x, rx in ((0.24, 0.19), (0.76, 0.19), (0.38, 0.2), (0.62, 0.2), (0.5, 0.19)):
        pen.ellipse("accent", x, 0.57, rx, 0.34)
    for side in (0, 1):
        eye = [(0.24, 0.5), (0.36, 0.38), (0.44, 0.52)]
        pen.polygon(None, [(1 - x, y) for x, y in eye] if side else eye)
    pen.polygon(None, [(0.46, 0.62), (0.5, 0.55), (0.54, 0.62)])
    pen.path(None, "M .2 .64 Q .5 .78 .8 .64 Q .7 .86 .58 .84 L .58 .77 L .5 .77 L .5 .85 Q .28 .86 .2 .64 Z")


@motif("ghost with a heart")
def _ghost(pen: Pen) -> None:
    pen.path(
        "main",
        "M .18 .9 L .18 .45 C .18 .0 .82 .0 .82 .45 L .82 .9 Q .76 .98 .71 .9 Q .66 .82 .61 .9 "
        "Q .55 .98 .5 .9 Q .45 .82 .39 .9 Q .34 .98 .29 .9 Q .24 .82 .18 .9 Z",
    )
    for x in (0.38, 0.62):
        pen.ellipse(None, x, 0.4, 0.055, 0.08)
    pen.polygon("accent", [(0.38 + 0.24 * x, 0.55 + 0.22 * y) for x, y in outline(HEART)])


@motif("red envelope with a coin")
def _envelope(pen: Pen) -> None:
    pen.rounded("accent", 0.2, 0.06, 0.8, 0.94, 0.05)
    pen.path("third", "M .2 .1 Q .2 .06 .25 .06 L .75 .06 Q .8 .06 .8 .1 Q .74 .34 .5 .36 Q .26 .34 .2 .1 Z")
    pen.ellipse("main", 0.5, 0.38, 0.12)
    pen.rounded(None, 0.46, 0.34, 0.54, 0.42, 0.0)
    for y in (0.62, 0.78):
        pen.line("third", outline(f"M .3 {y} Q .4 {y - 0.09} .5 {y} Q .6 {y + 0.09} .7 {y}"), 0.028)


@motif("paper lanterns")
def _lantern(pen: Pen) -> None:
    for x, y, size in ((0.32, 0.36, 0.24), (0.74, 0.46, 0.19)):
        pen.line("main", [(x, 0.0), (x, y - size)], 0.016)
        pen.ellipse("accent", x, y, size, size * 0.95)
        for reach in (0.0, 0.55):
            for side in (-1, 1):
                rib = outline(f"M {x} {y - size} Q {x + side * reach * size * 2} {y} {x} {y + size}")
                pen.line("third", rib, 0.01)
        pen.rounded("main", x - size * 0.45, y - size * 1.06, x + size * 0.45, y - size * 0.84, 0.01)
        pen.rounded("main", x - size * 0.45, y + size * 0.84, x + size * 0.45, y + size * 1.06, 0.01)
        for dx in (-0.05, 0.0, 0.05):
            pen.line("third", [(x + dx, y + size * 1.06), (x + dx, y + size * 1.7)], 0.014)


@motif("graduation cap")
def _graduation(pen: Pen) -> None:
    pen.path("main", "M .26 .5 L .74 .5 L .74 .7 Q .5 .86 .26 .7 Z")
    pen.polygon(None, [(0.5, 0.2), (1.0, 0.425), (0.5, 0.65), (0.0, 0.425)])
    pen.polygon("main", [(0.5, 0.2), (0.98, 0.41), (0.5, 0.62), (0.02, 0.41)])
    pen.line("accent", [(0.5, 0.41), (0.86, 0.47), (0.86, 0.74)], 0.024)
    pen.ellipse("accent", 0.5, 0.41, 0.03)
    pen.polygon("accent", [(0.86, 0.7), (0.81, 0.9), (0.91, 0.9)])


@motif("airplane")
def _plane(pen: Pen) -> None:
    body = outline(
        "M .5 .04 Q .56 .1 .56 .3 L .94 .54 L .94 .62 L .56 .52 L .55 .76 L .66 .86 L .66 .92 L .5 .87 "
        "L .34 .92 L .34 .86 L .45 .76 L .44 .52 L .06 .62 L .06 .54 L .44 .3 Q .44 .1 .5 .04 Z"
    )
    pen.polygon("main", rotated(body, 50))
    for k in range(3):
        pen.ellipse("accent", 0.1 + 0.07 * k, 0.94 - 0.06 * k, 0.022)


@motif("dumbbell and star")
def _dumbbell(pen: Pen) -> None:
    pen.rounded("main", 0.2, 0.62, 0.8, 0.7, 0.02)
    for x, half in ((0.12, 0.14), (0.23, 0.24), (0.77, 0.24), (0.88, 0.14)):
        pen.rounded("main", x - 0.045, 0.66 - half, x + 0.045, 0.66 + half, 0.03)
    pen.polygon("accent", regular_star(0.5, 0.3, 0.2))


@motif("wine glasses")
def _wine(pen: Pen) -> None:
    for side in (0, 1):
        shapes: tuple[tuple[Ink, str], ...] = (
            ("main", "M .16 .1 L .48 .1 Q .5 .5 .32 .52 Q .14 .5 .16 .1 Z"),
            ("accent", "M .18 .26 L .465 .26 Q .45 .47 .32 .485 Q .19 .47 .18 .26 Z"),
            ("main", "M .3 .5 L .34 .5 L .34 .84 L .46 .9 L .18 .9 L .3 .84 Z"),
        )
        for ink, path in shapes:
            glass = rotated(outline(path), 9, 0.32, 0.5)
            pen.polygon(ink, [(1 - x, y) for x, y in glass] if side else glass)
    for angle in (-35, 0, 35):
        pen.line("third", rotated([(0.5, 0.06), (0.5, -0.02)], angle, 0.5, 0.2), 0.02)


@motif("chef hat")
def _chef(pen: Pen) -> None:
    for degrees in (-40, 40):
        pen.polygon("accent", rotated(outline("M .48 .3 L .52 .3 L .52 .95 L .48 .95 Z"), degrees, 0.5, 0.66))
    for x, y, radius in ((0.28, 0.3, 0.18), (0.72, 0.3, 0.18), (0.5, 0.24, 0.2)):
        pen.ellipse("main", x, y, radius)
    pen.path("main", "M .24 .34 L .76 .34 L .74 .7 Q .5 .76 .26 .7 Z")
    pen.line(None, outline("M .26 .6 Q .5 .66 .74 .6"), 0.025)
    for x in (0.4, 0.5, 0.6):
        pen.line(None, [(x, 0.42), (x, 0.54)], 0.016)


@motif("apple on books")
def _teacher(pen: Pen) -> None:
    pen.rounded("main", 0.1, 0.82, 0.9, 0.94, 0.02)
    pen.rounded("third", 0.16, 0.7, 0.84, 0.81, 0.02)
    pen.path(
        "accent",
        "M .5 .34 C .38 .24 .22 .3 .24 .48 C .26 .64 .38 .72 .5 .68 C .62 .72 .74 .64 .76 .48 "
        "C .78 .3 .62 .24 .5 .34 Z",
    )
    pen.line("main", outline("M .5 .34 Q .5 .22 .56 .16"), 0.03)
    leaf(pen, "third", 0.64, 0.2, 0.2, -25)


@motif("hammer and wrench")
def _tools(pen: Pen) -> None:
    wrench = outline("M .46 .3 L .54 .3 L .54 .92 Q .5 .98 .46 .92 Z")
    pen.polygon("accent", rotated(wrench, 45))
    pen.polygon("accent", rotated(oval(0.5, 0.2, 0.13, 0.13), 45))
    pen.polygon(None, rotated([(0.45, 0.02), (0.55, 0.02), (0.55, 0.2), (0.45, 0.2)], 45))
    pen.polygon("main", rotated(outline("M .46 .2 L .54 .2 L .55 .95 L .45 .95 Z"), -45))
    pen.polygon("main", rotated(outline("M .28 .06 L .66 .06 Q .78 .1 .8 .22 L .66 .2 L .28 .22 Z"), -45))


@motif("anchor")
def _anchor(pen: Pen) -> None:
    pen.ellipse("main", 0.5, 0.15, 0.1)
    pen.ellipse(None, 0.5, 0.15, 0.055)
    pen.line("main", [(0.5, 0.24), (0.5, 0.9)], 0.07)
    pen.line("main", [(0.3, 0.34), (0.7, 0.34)], 0.06)
    pen.line("main", outline("M .12 .6 Q .18 .9 .5 .91 Q .82 .9 .88 .6"), 0.07)
    pen.polygon("main", [(0.03, 0.66), (0.12, 0.5), (0.24, 0.64)])
    pen.polygon("main", [(0.97, 0.66), (0.88, 0.5), (0.76, 0.64)])
    pen.line("accent", outline("M .44 .1 C .2 .3 .86 .4 .5 .56 C .2 .7 .8 .7 .64 .96"), 0.026)
