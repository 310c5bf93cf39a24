"""Prints: how lines of text and a motif are arranged in a print area."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from PIL import Image, ImageDraw

from labeling_assets.embedded.demo.lettering import FontStyle, line_height_px, line_mask, line_width_px
from labeling_assets.embedded.demo.motifs import Ink, motif_masks

Layout = Literal["motif above", "motif between", "motif below", "badge", "side by side", "framed"]
TALL_LAYOUTS: tuple[Layout, ...] = ("motif above", "motif between", "motif below", "badge")
WIDE_LAYOUTS: tuple[Layout, ...] = ("side by side", "framed")
_LARGEST_RATIO = 1.9  # between the sizes of two lines of one print


@dataclass(frozen=True)
class Print:
    """What is printed.

    Attributes:
        lines: Text, line by line, exactly as printed.
        emphasis: Index of the line in the accent ink; -1 for none.
        motif: Name of the motif.
        layout: Arrangement.
        font: Style of the lettering.
    """

    lines: tuple[str, ...]
    emphasis: int
    motif: str
    layout: Layout
    font: FontStyle


@dataclass(frozen=True)
class Stamp:
    """One mask (mode L) to print in one ink with its top left corner at (x, y) of the print area."""

    ink: Ink
    mask: Image.Image
    x: int
    y: int


def arrange(design: Print, width_px: int, height_px: int) -> list[Stamp]:
    """The stamps of a design in a print area of width_px x height_px."""
    width, height = width_px, height_px
    lines = list(enumerate(design.lines))
    if design.layout == "side by side":
        size = round(min(height * 0.86, width * 0.28))
        left = _motif(design.motif, size, width * 0.005, (height - size) / 2)
        return left + _text(design, lines, (width * 0.31, height * 0.04, width, height * 0.96))
    if design.layout == "framed":
        size = round(height * 0.22)
        rules = _rules(width, height, size)
        middle = _motif(design.motif, size, (width - size) / 2, 0)
        return rules + middle + _text(design, lines, (width * 0.03, height * 0.27, width * 0.97, height * 0.86))
    if design.layout == "badge":
        return _badge(design, width, height)
    share = 0.46 if len(lines) < 3 else 0.38
    size = round(min(height * share, width * 0.8))
    centre = (width - size) / 2
    text_height = height - size - height * 0.05
    if design.layout == "motif above" or len(lines) == 1:
        return _motif(design.motif, size, centre, 0) + _text(design, lines, (0, height - text_height, width, height))
    if design.layout == "motif below":
        return _text(design, lines, (0, 0, width, text_height)) + _motif(design.motif, size, centre, height - size)
    first = (len(lines) + 1) // 2
    above = text_height * first / len(lines)
    upper = _text(design, lines[:first], (0, 0, width, above - height * 0.01))
    lower = _text(design, lines[first:], (0, above + size + height * 0.05, width, height))
    return upper + _motif(design.motif, size, centre, above + height * 0.02) + lower


def _motif(name: str, size_px: int, x: float, y: float) -> list[Stamp]:
    return [Stamp(ink, mask, round(x), round(y)) for ink, mask in motif_masks(name, max(size_px, 8)).items()]


def _text(design: Print, lines: Sequence[tuple[int, str]], box: tuple[float, float, float, float]) -> list[Stamp]:
    """Lines centred in a box, each as large as the box and its neighbours allow."""
    left, top, right, bottom = box
    width, height = right - left, bottom - top
    fitting = [100 * width / max(line_width_px(text, design.font, 100), 1) for _, text in lines]
    sizes = [min(size, _LARGEST_RATIO * min(fitting), height) for size in fitting]
    gap = 0.24 * sum(sizes) / len(sizes)
    full_height = sum(line_height_px(text, design.font, size) for size, (_, text) in zip(sizes, lines, strict=True))
    scale = min(1.0, height / (full_height + gap * (len(lines) - 1)))
    masks = [
        line_mask(text, design.font, max(10, int(size * scale))) for size, (_, text) in zip(sizes, lines, strict=True)
    ]
    y = top + (height - sum(mask.height for mask in masks) - gap * scale * (len(masks) - 1)) / 2
    stamps = []
    for (index, _), mask in zip(lines, masks, strict=True):
        ink: Ink = "accent" if index == design.emphasis else "main"
        stamps.append(Stamp(ink, mask, round(left + (width - mask.width) / 2), round(y)))
        y += mask.height + gap * scale
    return stamps


def _rules(width: float, height: float, gap_px: int) -> list[Stamp]:
    """A line on each side of the motif above, and one below."""
    thickness = max(2, round(height * 0.012))
    side = max(8, round((width - gap_px * 1.5) / 2 - width * 0.04))
    short = Image.new("L", (side, thickness), 255)
    long = Image.new("L", (round(width * 0.92), thickness), 255)
    y = round(gap_px / 2)
    return [
        Stamp("third", short, round(width * 0.04), y),
        Stamp("third", short, round(width * 0.96) - side, y),
        Stamp("third", long, round(width * 0.04), round(height * 0.95)),
    ]


def _badge(design: Print, width: int, height: int) -> list[Stamp]:
    """A ring with motif and text inside."""
    edge = min(width, height)
    x, y = (width - edge) / 2, (height - edge) / 2
    big = Image.new("L", (edge * 2, edge * 2))
    draw = ImageDraw.Draw(big)
    for inset, thickness in ((0.01, 0.022), (0.05, 0.008)):
        low, high = inset * 2 * edge, (1 - inset) * 2 * edge
        draw.ellipse((low, low, high, high), outline=255, width=max(2, round(thickness * 2 * edge)))
    ring = Stamp("main", big.reduce(2), round(x), round(y))
    size = round(edge * 0.31)
    motif = _motif(design.motif, size, x + (edge - size) / 2, y + edge * 0.09)
    box = (x + edge * 0.145, y + edge * 0.42, x + edge * 0.855, y + edge * 0.77)
    return [ring, *motif, *_text(design, list(enumerate(design.lines)), box)]
