"""Shapes of what is worn or carried: T-shirt, hoodie, cap, tote bag, key ring, phone case; see `shapes.py`."""

from __future__ import annotations

from labeling_assets.embedded.demo.shapes import ShapeBuilder, product
from labeling_assets.embedded.demo.vector import mirrored, outline, oval, rotated


@product
def tshirt(b: ShapeBuilder) -> None:
    """A T-shirt laid flat."""
    b.view, b.print_box = "surface", (0.3, 0.24, 0.7, 0.68)
    b.part("body").polygon(
        mirrored(
            "M .5 .085 L .38 .07 Q .3 .1 .24 .125 Q .17 .16 .13 .25 L .03 .44 Q .1 .5 .19 .52 L .26 .4 "
            "Q .275 .6 .255 .9 Q .38 .93 .5 .928"
        )
    )
    inside = b.part("body")
    inside.polygon(outline("M .385 .075 Q .5 .125 .615 .075 Q .5 .04 .385 .075 Z"))
    b.shade(outline("M .39 .075 Q .5 .12 .61 .075 Q .5 .045 .39 .075 Z"), 80, 0.006)
    b.part("detail").polygon(
        outline(
            "M .372 .07 Q .39 .205 .5 .205 Q .61 .205 .628 .07 L .602 .076 Q .58 .172 .5 .172 Q .42 .172 .398 .076 Z"
        )
    )
    seam = outline(
        "M .372 .07 Q .39 .205 .5 .205 Q .61 .205 .628 .07 L .64 .075 Q .615 .22 .5 .22 Q .385 .22 .36 .075 Z"
    )
    b.shade(seam, 60, 0.004)
    _fold_sleeves(b, 0.27)
    b.fold((0.3, 0.9), (0.36, 0.72))
    b.fold((0.68, 0.9), (0.62, 0.74))
    b.fold((0.45, 0.92), (0.47, 0.8), 30)
    b.shade([(0.25, 0.88), (0.75, 0.88), (0.75, 0.9), (0.25, 0.9)], 28, 0.006)


def _fold_sleeves(b: ShapeBuilder, armpit: float) -> None:
    """Creases where sleeves meet the body."""
    for side in (0, 1):

        def at(x: float, y: float, side: int = side) -> tuple[float, float]:
            return (1 - x, y) if side else (x, y)

        b.fold(at(armpit - 0.01, 0.42), at(armpit + 0.06, 0.22), 50)
        b.fold(at(armpit, 0.44), at(armpit + 0.08, 0.36), 44)
        b.shade(
            [at(armpit - 0.03, 0.42), at(armpit + 0.015, 0.42), at(armpit + 0.01, 0.9), at(armpit - 0.05, 0.9)],
            44,
            0.014,
        )
        b.fold(at(0.12, 0.44), at(0.2, 0.3), 34)


@product
def hoodie(b: ShapeBuilder) -> None:
    """A hooded sweatshirt laid flat."""
    b.view, b.print_box = "surface", (0.315, 0.335, 0.685, 0.672)
    b.part("body").polygon(
        mirrored(
            "M .5 .16 Q .36 .14 .29 .17 Q .19 .2 .16 .32 L .05 .82 Q .1 .87 .18 .865 L .27 .5 "
            "Q .275 .7 .265 .93 L .5 .945"
        )
    )
    b.part("body").polygon(mirrored("M .5 .03 C .38 .02 .31 .1 .33 .22 Q .42 .29 .5 .3"))
    inside = outline("M .5 .07 C .42 .07 .385 .13 .4 .2 Q .46 .26 .5 .27 Q .54 .26 .6 .2 C .615 .13 .58 .07 .5 .07 Z")
    b.part("detail").polygon(inside)
    b.shade(inside, 95, 0.012)
    for side in (-1, 1):
        cord = b.part("white")
        cord.line([(0.5 + side * 0.06, 0.24), (0.5 + side * 0.066, 0.315)], 0.011)
    b.part("body").polygon(mirrored("M .5 .71 L .37 .71 L .31 .82 L .31 .89 L .5 .89"))
    b.shade(
        mirrored("M .5 .705 L .37 .705 L .305 .82 L .305 .895 L .325 .88 L .325 .825 L .38 .72 L .5 .72"), 60, 0.006
    )
    b.shade(mirrored("M .5 .9 L .26 .9 L .26 .91 L .5 .91"), 70, 0.005)
    for side in (0, 1):
        cuff = [(0.06, 0.79), (0.2, 0.8), (0.2, 0.815), (0.055, 0.805)]
        b.shade([(1 - x, y) if side else (x, y) for x, y in cuff], 60, 0.005)
    _fold_sleeves(b, 0.275)
    b.fold((0.33, 0.66), (0.4, 0.54), 34)
    b.fold((0.67, 0.66), (0.61, 0.54), 34)


@product
def cap(b: ShapeBuilder) -> None:
    """A baseball cap from the front."""
    b.view, b.print_box = "table", (0.27, 0.345, 0.73, 0.6)
    b.contact(0.5, 0.83, 0.4, 0.05)
    b.part("body").polygon(mirrored("M .5 .24 C .3 .24 .17 .4 .17 .68 Q .34 .62 .5 .62"))
    b.part("body").ellipse(0.5, 0.24, 0.03, 0.018)
    brim = "M .5 .615 C .36 .615 .2 .64 .15 .69 Q .1 .78 .15 .82 Q .32 .76 .5 .76"
    b.part("detail").polygon(mirrored(brim))
    b.shade(mirrored("M .5 .6 C .36 .6 .2 .625 .15 .675 L .16 .7 Q .34 .635 .5 .635"), 90, 0.008)
    b.shade(mirrored("M .5 .74 Q .32 .74 .15 .81 L .15 .83 Q .32 .78 .5 .78"), 60, 0.008)
    b.shade(outline("M .3 .3 Q .22 .45 .2 .64 L .26 .62 Q .28 .42 .36 .28 Z"), -40, 0.02)
    b.shade(outline("M .66 .27 Q .82 .4 .84 .68 L .76 .64 Q .76 .42 .66 .27 Z"), 60, 0.03)
    for x in (0.3, 0.7):
        b.part("dark").ellipse(x, 0.33, 0.008, 0.007)


@product
def tote(b: ShapeBuilder) -> None:
    """A canvas tote bag that hangs."""
    b.view, b.print_box = "wall", (0.235, 0.43, 0.765, 0.86)
    b.part("body").line(outline("M .345 .4 C .345 -.06 .655 -.06 .655 .4"), 0.04)
    b.shade(outline("M .36 .4 C .36 0 .64 0 .64 .4 L .61 .4 C .61 .05 .39 .05 .39 .4 Z"), 60, 0.006)
    b.part("body").polygon(outline("M .17 .35 Q .5 .36 .83 .35 L .86 .92 Q .5 .945 .14 .92 Z"))
    b.shade(outline("M .17 .385 L .83 .385 L .83 .392 L .17 .392 Z"), 70, 0.004)
    for x in (0.345, 0.655):
        stitch = [(x - 0.02, 0.36), (x + 0.02, 0.36), (x + 0.02, 0.41), (x - 0.02, 0.41)]
        b.shade(stitch, 46, 0.006)
    b.fold((0.2, 0.9), (0.3, 0.6), 40)
    b.fold((0.8, 0.9), (0.72, 0.62), 40)
    b.fold((0.34, 0.42), (0.3, 0.6), 30)
    b.fold((0.66, 0.42), (0.7, 0.58), 30)
    b.shade([(0.78, 0.35), (0.9, 0.35), (0.9, 0.95), (0.8, 0.95)], 40, 0.03)


@product
def keyring(b: ShapeBuilder) -> None:
    """A large tag on a ring with a chain."""
    b.view, b.print_box = "surface", (0.23, 0.45, 0.77, 0.83)
    ring = b.part("metal")
    ring.ellipse(0.5, 0.14, 0.12, 0.12)
    ring.ellipse(0.5, 0.14, 0.095, 0.095, 0)
    for y, wide in ((0.27, 1), (0.305, 0), (0.335, 1)):
        link = b.part("metal")
        link.ellipse(0.5, y, 0.022 if wide else 0.012, 0.024)
        link.ellipse(0.5, y, 0.011 if wide else 0.004, 0.013, 0)
    tag = b.part("body")
    tag.rounded(0.15, 0.35, 0.85, 0.91, 0.09)
    tag.ellipse(0.5, 0.39, 0.02, 0.02, 0)
    rim = b.part("metal")
    rim.rounded(0.15, 0.35, 0.85, 0.91, 0.09)
    rim.rounded(0.165, 0.365, 0.835, 0.895, 0.08, 0)
    b.shade(outline("M .15 .35 L .5 .35 L .3 .92 L .15 .92 Z"), -34, 0.04)
    b.shade(outline("M .62 .35 L .72 .35 L .52 .92 L .42 .92 Z"), -30, 0.01)
    b.shade(outline("M .15 .86 L .85 .86 L .85 .92 L .15 .92 Z"), 46, 0.015)
    b.shade(rotated(oval(0.56, 0.1, 0.07, 0.012), 40, 0.56, 0.1), -120, 0.006)


@product
def phonecase(b: ShapeBuilder) -> None:
    """A phone in its case, from behind."""
    b.view, b.print_box = "surface", (0.3, 0.36, 0.7, 0.88)
    b.part("dark").rounded(0.255, 0.035, 0.745, 0.965, 0.08)
    b.part("body").rounded(0.262, 0.042, 0.738, 0.958, 0.075)
    island = b.part("detail")
    island.rounded(0.29, 0.07, 0.5, 0.275, 0.05)
    for x, y in ((0.345, 0.125), (0.345, 0.22), (0.445, 0.172)):
        b.part("metal").ellipse(x, y, 0.038, 0.038)
        b.part("dark").ellipse(x, y, 0.03, 0.03)
        b.part("metal").ellipse(x - 0.01, y - 0.01, 0.006, 0.006)
    b.part("white").ellipse(0.445, 0.1, 0.014, 0.014)
    b.shade([(0.26, 0.04), (0.29, 0.04), (0.29, 0.96), (0.26, 0.96)], -90, 0.008)
    b.shade([(0.71, 0.04), (0.745, 0.04), (0.745, 0.96), (0.71, 0.96)], 80, 0.01)
    b.shade([(0.56, 0.04), (0.68, 0.04), (0.44, 0.96), (0.32, 0.96)], -22, 0.01)
