"""Shapes of what stands, hangs or lies at home: mug, tumbler, plaque, blanket …; see `shapes.py`."""

from __future__ import annotations

from labeling_assets.embedded.demo.shapes import ShapeBuilder, product
from labeling_assets.embedded.demo.vector import mirrored, outline, oval, rotated


@product
def mug(b: ShapeBuilder) -> None:
    """A coffee mug with its handle on the right."""
    b.view, b.print_box, b.sag = "table", (0.185, 0.34, 0.645, 0.77), 0.02
    b.contact(0.46, 0.85, 0.32, 0.045)
    handle = b.part("detail")
    handle.polygon(outline("M .68 .36 C .95 .28 .95 .8 .66 .72 L .66 .65 C .84 .7 .84 .38 .68 .43 Z"))
    b.shade(outline("M .8 .4 C .9 .46 .9 .66 .78 .7 L .86 .72 C .95 .6 .93 .42 .82 .36 Z"), 60, 0.014)
    b.part("body").polygon(
        outline("M .14 .24 L .69 .24 Q .695 .6 .67 .82 Q .6 .87 .415 .87 Q .23 .87 .16 .82 Q .135 .6 .14 .24 Z")
    )
    b.part("white").ellipse(0.415, 0.24, 0.276, 0.046)
    b.part("detail").ellipse(0.415, 0.243, 0.262, 0.039)
    b.shade(oval(0.415, 0.236, 0.255, 0.034), 70, 0.008)
    b.round_body(0.14, 0.69, 0.28, 0.87)
    b.shade(outline("M .15 .81 Q .41 .87 .68 .81 L .66 .88 L .17 .88 Z"), 50, 0.012)


@product
def tumbler(b: ShapeBuilder) -> None:
    """A tall insulated tumbler with a straw."""
    b.view, b.print_box, b.sag = "table", (0.33, 0.31, 0.67, 0.79), 0.014
    b.contact(0.5, 0.92, 0.2, 0.035)
    b.part("detail").line([(0.56, 0.2), (0.59, 0.01)], 0.024)
    lid = b.part("glass")
    lid.rounded(0.29, 0.14, 0.71, 0.2, 0.02)
    lid.rounded(0.34, 0.11, 0.66, 0.16, 0.02)
    b.part("metal").rounded(0.3, 0.185, 0.7, 0.215, 0.01)
    b.part("body").polygon(outline("M .295 .21 L .705 .21 L .655 .9 Q .62 .935 .5 .935 Q .38 .935 .345 .9 Z"))
    b.part("metal").polygon(outline("M .347 .89 L .653 .89 L .65 .905 Q .62 .935 .5 .935 Q .38 .935 .35 .905 Z"))
    b.round_body(0.31, 0.69, 0.12, 0.93)


@product
def candle(b: ShapeBuilder) -> None:
    """A candle in a glass jar with a label."""
    b.view, b.print_box, b.sag = "table", (0.245, 0.42, 0.755, 0.81), 0.018
    b.contact(0.5, 0.895, 0.33, 0.045)
    b.part("glass").polygon(outline("M .2 .24 L .8 .24 L .8 .86 Q .7 .925 .5 .925 Q .3 .925 .2 .86 Z"))
    b.part("detail").polygon(outline("M .215 .36 L .785 .36 L .785 .85 Q .7 .905 .5 .905 Q .3 .905 .215 .85 Z"))
    b.part("detail").ellipse(0.5, 0.36, 0.285, 0.04)
    b.part("glass").ellipse(0.5, 0.24, 0.3, 0.035)
    b.part("dark").line([(0.5, 0.36), (0.5, 0.29)], 0.009)
    b.part("gold").polygon(outline("M .5 .17 Q .54 .24 .52 .28 Q .5 .3 .48 .28 Q .46 .24 .5 .17 Z"))
    b.part("body").polygon(outline("M .2 .42 Q .5 .47 .8 .42 L .8 .8 Q .5 .85 .2 .8 Z"))
    b.shade(rotated(oval(0.5, 0.24, 0.09, 0.09), 0), -90, 0.04)
    b.round_body(0.2, 0.8, 0.26, 0.92)


@product
def plaque(b: ShapeBuilder) -> None:
    """A wooden sign that hangs on a rope."""
    b.view, b.print_box = "wall", (0.13, 0.33, 0.87, 0.79)
    b.part("metal").ellipse(0.5, 0.06, 0.014, 0.014)
    b.part("rope").line([(0.2, 0.31), (0.5, 0.065), (0.8, 0.31)], 0.013)
    b.part("body").rounded(0.07, 0.27, 0.93, 0.85, 0.035)
    for x in (0.2, 0.8):
        b.part("rope").ellipse(x, 0.31, 0.016, 0.016)
    b.shade([(0.07, 0.27), (0.93, 0.27), (0.93, 0.283), (0.07, 0.283)], -110, 0.005)
    b.shade([(0.07, 0.832), (0.93, 0.832), (0.93, 0.85), (0.07, 0.85)], 120, 0.006)
    b.shade([(0.915, 0.27), (0.93, 0.27), (0.93, 0.85), (0.915, 0.85)], 90, 0.006)
    b.drop = (0.014, 0.026)


@product
def acrylic(b: ShapeBuilder) -> None:
    """An acrylic plaque on a wooden stand."""
    b.view, b.print_box = "table", (0.215, 0.19, 0.785, 0.76)
    b.contact(0.5, 0.9, 0.38, 0.035)
    b.part("glass").rounded(0.16, 0.1, 0.84, 0.84, 0.06)
    b.part("body").rounded(0.17, 0.11, 0.83, 0.84, 0.055)
    b.part("wood").rounded(0.12, 0.81, 0.88, 0.9, 0.02)
    b.shade([(0.12, 0.875), (0.88, 0.875), (0.88, 0.91), (0.12, 0.91)], 90, 0.008)
    b.shade(outline("M .2 .1 L .4 .1 L .18 .6 L .16 .6 Z"), -70, 0.006)
    b.shade([(0.82, 0.12), (0.84, 0.12), (0.84, 0.8), (0.82, 0.8)], 60, 0.006)


@product
def ornament(b: ShapeBuilder) -> None:
    """A round ceramic ornament on a ribbon."""
    b.view, b.print_box = "wall", (0.255, 0.36, 0.745, 0.82)
    b.part("detail").line(outline("M .485 .21 Q .42 .08 .47 -.04"), 0.02)
    b.part("detail").line(outline("M .515 .21 Q .58 .08 .53 -.04"), 0.02)
    for side in (0, 1):
        bow = outline("M .5 .19 C .4 .1 .29 .12 .31 .19 C .32 .26 .42 .25 .5 .19 Z")
        tail = outline("M .5 .19 L .4 .3 L .44 .31 Z")
        shape = b.part("detail")
        shape.polygon([(1 - x, y) if side else (x, y) for x, y in bow])
        shape.polygon([(1 - x, y) if side else (x, y) for x, y in tail])
    disc = b.part("body")
    disc.ellipse(0.5, 0.59, 0.37, 0.37)
    disc.ellipse(0.5, 0.255, 0.015, 0.015, 0)
    ring = b.part("gold")
    ring.ellipse(0.5, 0.59, 0.37, 0.37)
    ring.ellipse(0.5, 0.59, 0.358, 0.358, 0)
    b.part("detail").ellipse(0.5, 0.195, 0.022, 0.022)
    b.shade(oval(0.36, 0.42, 0.2, 0.14), -60, 0.04)
    b.shade(outline("M .87 .5 Q .9 .9 .5 .98 Q .3 .97 .2 .86 Q .7 .94 .82 .5 Z"), 50, 0.035)


@product
def poster(b: ShapeBuilder) -> None:
    """A framed print on a wall."""
    b.view, b.print_box = "wall", (0.235, 0.15, 0.765, 0.85)
    b.part("dark").rounded(0.1, 0.03, 0.9, 0.97, 0.004)
    b.part("white").rounded(0.125, 0.055, 0.875, 0.945, 0.0)
    b.part("body").rounded(0.185, 0.11, 0.815, 0.89, 0.0)
    b.shade([(0.125, 0.055), (0.875, 0.055), (0.875, 0.068), (0.125, 0.068)], 90, 0.006)
    b.shade([(0.125, 0.055), (0.138, 0.055), (0.138, 0.945), (0.125, 0.945)], 70, 0.006)
    b.shade(outline("M .5 .05 L .72 .05 L .3 .95 L .12 .95 L .12 .85 Z"), -20, 0.012)
    b.drop = (0.018, 0.03)


@product
def pillow(b: ShapeBuilder) -> None:
    """A square cushion."""
    b.view, b.print_box = "surface", (0.21, 0.24, 0.79, 0.78)
    edge = "M .5 .1 Q .2 .1 .045 .045 Q .1 .3 .1 .5 Q .1 .75 .045 .955 Q .2 .9 .5 .9"
    b.part("body").polygon(mirrored(edge))
    b.shade(outline("M .06 .06 Q .5 .16 .94 .06 L .9 .14 Q .5 .2 .1 .14 Z"), -50, 0.02)
    b.shade(outline("M .06 .94 Q .5 .83 .94 .94 L .9 .8 Q .5 .78 .1 .8 Z"), 56, 0.04)
    b.shade(outline("M .94 .06 Q .84 .5 .94 .94 L .8 .85 Q .76 .5 .8 .15 Z"), 44, 0.04)
    b.shade(oval(0.4, 0.38, 0.25, 0.2), -24, 0.08)
    for x, y, dx, dy in (
        (0.07, 0.07, 0.14, 0.13),
        (0.93, 0.07, -0.14, 0.13),
        (0.07, 0.93, 0.14, -0.13),
        (0.93, 0.93, -0.14, -0.13),
    ):
        b.fold((x, y), (x + dx, y + dy), 60, 0.03)


@product
def blanket(b: ShapeBuilder) -> None:
    """A fleece blanket with a turned corner and fringe."""
    b.view, b.print_box = "surface", (0.14, 0.15, 0.86, 0.74)
    fringe = b.part("detail")
    for strand in range(44):
        x = 0.065 + strand * 0.0202
        fringe.line([(x, 0.93), (x + (0.004 if strand % 2 else -0.004), 0.975)], 0.009)
    b.part("body").polygon(
        outline(
            "M .05 .06 Q .3 .045 .5 .06 Q .75 .075 .95 .055 L .945 .76 L .79 .94 Q .5 .93 .055 .94 Q .045 .5 .05 .06 Z"
        )
    )
    b.part("detail").polygon(outline("M .945 .76 Q .86 .77 .8 .79 Q .79 .86 .79 .94 Z"))
    b.shade(outline("M .95 .74 Q .84 .74 .775 .77 Q .765 .86 .775 .95 L .8 .94 Q .8 .86 .81 .8 L .95 .77 Z"), 80, 0.014)
    for start, end, strength in (
        ((0.06, 0.3), (0.3, 0.2), 34),
        ((0.94, 0.25), (0.7, 0.33), 34),
        ((0.2, 0.93), (0.27, 0.7), 40),
        ((0.5, 0.93), (0.46, 0.78), 34),
        ((0.35, 0.06), (0.4, 0.2), 30),
        ((0.94, 0.55), (0.78, 0.5), 30),
    ):
        b.fold(start, end, strength, 0.035)
    b.shade(outline("M .05 .05 L .3 .05 L .05 .4 Z"), -30, 0.05)
    b.shade(outline("M .95 .5 L .95 .95 L .5 .95 Z"), 26, 0.06)


@product
def doormat(b: ShapeBuilder) -> None:
    """A coir doormat."""
    b.view, b.print_box = "surface", (0.115, 0.3, 0.885, 0.74)
    b.part("dark").rounded(0.045, 0.225, 0.955, 0.815, 0.012)
    b.part("body").rounded(0.055, 0.235, 0.945, 0.805, 0.01)
    border = b.part("detail")
    border.rounded(0.075, 0.255, 0.925, 0.785, 0.005)
    border.rounded(0.085, 0.265, 0.915, 0.775, 0.004, 0)
    b.shade(outline("M .05 .23 L .6 .23 L .2 .81 L .05 .81 Z"), -20, 0.06)
    b.shade([(0.055, 0.785), (0.945, 0.785), (0.945, 0.81), (0.055, 0.81)], 70, 0.008)
