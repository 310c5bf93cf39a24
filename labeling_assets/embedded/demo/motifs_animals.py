"""Motifs of animals and what they leave behind; see `motifs.py`."""

from __future__ import annotations

from labeling_assets.embedded.demo.motifs import Ink, Pen, leaf, motif
from labeling_assets.embedded.demo.vector import mirrored, outline, oval, rotated


@motif("paw print")
def _paw(pen: Pen) -> None:
    pen.path(
        "main",
        "M .5 .48 C .66 .48 .82 .68 .8 .8 C .77 .93 .62 .88 .5 .88 C .38 .88 .23 .93 .2 .8 C .18 .68 .34 .48 .5 .48 Z",
    )
    for x, y, tilt in ((0.15, 0.47, -25), (0.37, 0.25, -8), (0.63, 0.25, 8), (0.85, 0.47, 25)):
        pen.polygon("main", rotated(oval(x, y, 0.095, 0.14), tilt, x, y))


@motif("cat face")
def _cat(pen: Pen) -> None:
    pen.polygon("main", mirrored("M .5 .26 Q .42 .25 .35 .28 L .17 .08 Q .1 .3 .13 .5 C .1 .8 .3 .92 .5 .92"))
    pen.polygon("accent", [(0.19, 0.17), (0.29, 0.3), (0.19, 0.36)])
    pen.polygon("accent", [(0.81, 0.17), (0.71, 0.3), (0.81, 0.36)])
    for x in (0.33, 0.67):
        pen.ellipse(None, x, 0.53, 0.075, 0.085)
        pen.ellipse("main", x, 0.53, 0.03, 0.075)
    pen.path("accent", "M .44 .65 L .56 .65 L .5 .72 Z")
    pen.line(None, outline("M .5 .72 Q .47 .8 .4 .78"), 0.02)
    pen.line(None, outline("M .5 .72 Q .53 .8 .6 .78"), 0.02)
    for side in (-1, 1):
        for dy in (-0.05, 0.02, 0.09):
            pen.line("third", [(0.5 + side * 0.2, 0.7 + dy * 0.4), (0.5 + side * 0.48, 0.68 + dy)], 0.014)


@motif("dog face")
def _dog(pen: Pen) -> None:
    pen.polygon("main", mirrored("M .5 .14 C .3 .14 .24 .28 .24 .5 C .24 .8 .34 .93 .5 .93"))
    for side in (0, 1):
        ear = outline("M .3 .17 C .14 .12 .04 .3 .06 .55 C .08 .68 .2 .68 .24 .55 C .28 .42 .3 .3 .3 .17 Z")
        pen.polygon("accent", [(1 - x, y) if side else (x, y) for x, y in ear])
    pen.ellipse("third", 0.5, 0.72, 0.17, 0.16)
    pen.path("third", "M .46 .14 Q .44 .5 .4 .66 L .6 .66 Q .56 .5 .54 .14 Z")
    for x in (0.36, 0.64):
        pen.ellipse(None, x, 0.44, 0.05)
    pen.path("main", "M .4 .6 Q .5 .55 .6 .6 Q .6 .7 .5 .72 Q .4 .7 .4 .6 Z")
    pen.line("main", outline("M .5 .7 L .5 .77 Q .45 .83 .39 .79"), 0.022)
    pen.line("main", outline("M .5 .77 Q .55 .83 .61 .79"), 0.022)
    pen.path("accent", "M .46 .81 L .54 .81 Q .55 .92 .5 .92 Q .45 .92 .46 .81 Z")


@motif("fish on a hook")
def _fishing(pen: Pen) -> None:
    pen.line("main", outline("M .82 .02 L .82 .34 Q .82 .46 .72 .44"), 0.022)
    pen.path("main", "M .9 .5 C .8 .3 .5 .26 .28 .52 C .5 .8 .8 .74 .9 .56 L .82 .53 Z")
    pen.polygon("main", [(0.34, 0.54), (0.04, 0.34), (0.1, 0.54), (0.04, 0.76)])
    pen.path("accent", "M .5 .37 Q .56 .22 .72 .26 L .68 .37 Z")
    pen.path("accent", "M .56 .7 Q .56 .82 .46 .84 L .48 .68 Z")
    pen.ellipse(None, 0.76, 0.45, 0.042)
    pen.ellipse("main", 0.765, 0.45, 0.02)
    pen.line(None, outline("M .67 .38 Q .62 .52 .67 .66"), 0.024)
    for x, y in ((0.42, 0.5), (0.5, 0.45), (0.5, 0.57), (0.58, 0.51)):
        pen.line(None, outline(f"M {x} {y} Q {x - 0.03} {y + 0.03} {x} {y + 0.06}"), 0.014)


@motif("butterfly")
def _butterfly(pen: Pen) -> None:
    for side in (0, 1):
        wings: tuple[tuple[Ink, str], ...] = (
            ("main", "M .5 .45 C .4 .1 .1 .05 .05 .2 C .02 .4 .2 .55 .5 .5 Z"),
            ("main", "M .5 .5 C .3 .5 .12 .62 .16 .78 C .22 .95 .42 .85 .5 .58 Z"),
            ("accent", "M .44 .42 C .36 .2 .16 .14 .12 .23 C .1 .36 .24 .46 .44 .46 Z"),
            ("accent", "M .45 .56 C .34 .56 .2 .64 .22 .75 C .27 .86 .39 .78 .45 .62 Z"),
        )
        for ink, path in wings:
            wing = outline(path)
            pen.polygon(ink, [(1 - x, y) for x, y in wing] if side else wing)
        pen.ellipse("third", 0.8 if side else 0.2, 0.28, 0.035)
        pen.line("main", outline("M .5 .34 Q .44 .2 .36 .17" if side else "M .5 .34 Q .56 .2 .64 .17"), 0.014)
    pen.ellipse("main", 0.5, 0.53, 0.03, 0.22)


@motif("bee")
def _bee(pen: Pen) -> None:
    for x, tilt in ((0.4, -35), (0.58, 20)):
        pen.polygon("third", rotated(oval(x, 0.3, 0.11, 0.22), tilt, x, 0.46))
    pen.polygon("accent", oval(0.5, 0.6, 0.32, 0.21))
    for x in (0.4, 0.54, 0.68):
        pen.line("main", outline(f"M {x} .42 Q {x + 0.05} .6 {x} .78"), 0.06)
    pen.ellipse("main", 0.22, 0.58, 0.12, 0.12)
    pen.ellipse(None, 0.19, 0.55, 0.025)
    pen.line("main", outline("M .18 .48 Q .12 .38 .06 .4"), 0.018)
    pen.line("main", outline("M .24 .47 Q .2 .34 .14 .32"), 0.018)
    pen.polygon("main", [(0.8, 0.55), (0.93, 0.6), (0.8, 0.65)])


@motif("bear face")
def _bear(pen: Pen) -> None:
    for x in (0.22, 0.78):
        pen.ellipse("main", x, 0.24, 0.15)
        pen.ellipse("accent", x, 0.24, 0.08)
    pen.ellipse("main", 0.5, 0.54, 0.4, 0.38)
    pen.ellipse("third", 0.5, 0.69, 0.19, 0.16)
    for x in (0.34, 0.66):
        pen.ellipse(None, x, 0.47, 0.045)
    pen.ellipse("main", 0.5, 0.62, 0.07, 0.05)
    pen.line("main", outline("M .5 .65 L .5 .72 Q .45 .78 .4 .74"), 0.02)
    pen.line("main", outline("M .5 .72 Q .55 .78 .6 .74"), 0.02)


@motif("deer head")
def _deer(pen: Pen) -> None:
    for side in (0, 1):
        for path, width in (
            ("M .44 .42 Q .3 .36 .22 .06", 0.04),
            ("M .3 .28 Q .16 .26 .08 .12", 0.034),
            ("M .34 .33 Q .36 .2 .34 .1", 0.032),
        ):
            antler = outline(path)
            pen.line("accent", [(1 - x, y) for x, y in antler] if side else antler, width)
        leaf(pen, "main", 0.76 if side else 0.24, 0.46, 0.26, -18 if side else 198)
    pen.polygon("main", mirrored("M .5 .38 Q .38 .38 .36 .5 Q .38 .7 .43 .86 Q .45 .94 .5 .94"))
    for x in (0.42, 0.58):
        pen.ellipse(None, x, 0.55, 0.025)
    pen.path("accent", "M .44 .82 L .56 .82 Q .56 .9 .5 .92 Q .44 .9 .44 .82 Z")


@motif("rabbit with a bow tie")
def _bunny(pen: Pen) -> None:
    for x, tilt in ((0.37, -10), (0.63, 10)):
        for ink, rx, ry in _EAR:
            pen.polygon(ink, rotated(oval(x, 0.24, rx, ry), tilt, x, 0.5))
    pen.ellipse("main", 0.5, 0.62, 0.29, 0.27)
    for x in (0.39, 0.61):
        pen.ellipse(None, x, 0.57, 0.035, 0.05)
    pen.path("accent", "M .46 .66 L .54 .66 L .5 .71 Z")
    pen.rounded(None, 0.465, 0.75, 0.535, 0.83, 0.01)
    for side in (-1, 1):
        pen.polygon("third", [(0.5, 0.93), (0.5 + side * 0.2, 0.86), (0.5 + side * 0.2, 1.0)])
    pen.ellipse("third", 0.5, 0.93, 0.04)


_EAR: tuple[tuple[Ink, float, float], ...] = (("main", 0.09, 0.23), ("accent", 0.045, 0.16))


@motif("cardinal bird on a branch")
def _bird(pen: Pen) -> None:
    pen.line("main", outline("M .05 .88 Q .5 .78 .97 .84"), 0.035)
    leaf(pen, "third", 0.2, 0.78, 0.18, -40)
    leaf(pen, "third", 0.82, 0.92, 0.18, 30)
    pen.path(
        "accent",
        "M .72 .06 Q .6 .14 .58 .28 C .4 .36 .3 .5 .28 .66 L .1 .96 L .2 .98 L .36 .8 "
        "C .56 .86 .76 .74 .78 .5 C .84 .46 .86 .36 .8 .28 Z",
    )
    pen.polygon("third", [(0.8, 0.32), (0.94, 0.38), (0.8, 0.44)])
    pen.path("main", "M .7 .3 Q .8 .28 .82 .34 L .8 .44 Q .72 .42 .7 .3 Z")
    pen.ellipse(None, 0.735, 0.325, 0.02)
    pen.path("main", "M .4 .5 Q .6 .44 .64 .58 Q .52 .72 .34 .72 Q .34 .6 .4 .5 Z")
