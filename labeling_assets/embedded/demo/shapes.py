"""What a product looks like without its print: masks of its parts, its light and shade, its shadow, its print area.

Here: the form (`ProductShape`), the builder, and the registry. The products themselves are in `shapes_wear.py` (what is
worn or carried) and `shapes_home.py` (what stands, hangs or lies at home).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from PIL import Image, ImageChops, ImageDraw, ImageFilter

from labeling_assets.embedded.demo.backgrounds import View
from labeling_assets.embedded.demo.vector import Mask, Point

Material = Literal["body", "detail", "white", "dark", "metal", "gold", "wood", "rope", "glass"]
Box = tuple[float, float, float, float]
_SHADE_PX = 200
_OVERSAMPLING = 2
_BUILDERS: dict[str, Callable[[ShapeBuilder], None]] = {}


@dataclass(frozen=True)
class Layer:
    """A mask (mode L), cropped to what it holds, with its top left corner in the square of the product."""

    mask: Image.Image
    x: int
    y: int

    @classmethod
    def cropped(cls, mask: Image.Image) -> Layer:
        """A layer of a mask of the whole square."""
        box = mask.getbbox() or (0, 0, 1, 1)
        return cls(mask.crop(box), box[0], box[1])


@dataclass(frozen=True)
class ProductShape:
    """One product at one size.

    Attributes:
        view: Which backgrounds suit it.
        parts: Materials and where they are, in painting order.
        dark: Strength of black over everything, print included.
        light: Strength of white over everything.
        shadow: Strength of the shadow on the background.
        print_box: Left, top, right, bottom of the print area, in units of the size.
        sag: How far the middle of the print hangs below its sides on a round body, in units of the size.
    """

    view: View
    parts: tuple[tuple[Material, Layer], ...]
    dark: Layer
    light: Layer
    shadow: Layer
    print_box: Box
    sag: float


class ShapeBuilder:
    """Collects the parts of one product; coordinates are units of the size."""

    def __init__(self, size_px: int) -> None:
        self._size_px = size_px
        self._parts: list[tuple[Material, Mask]] = []
        self._soft: dict[bool, Image.Image] = {key: Image.new("L", (_SHADE_PX, _SHADE_PX)) for key in (True, False)}
        self._contact: Image.Image | None = None
        self.view: View = "surface"
        self.print_box: Box = (0.2, 0.2, 0.8, 0.8)
        self.sag = 0.0
        self.drop = (0.012, 0.02)

    def part(self, material: Material) -> Mask:
        """Begin a part that covers those before it."""
        mask = Mask(self._size_px, _OVERSAMPLING)
        self._parts.append((material, mask))
        return mask

    def shade(self, points: Sequence[Point], strength: int, blur: float = 0.02) -> None:
        """Darken an area softly, or lighten it where `strength` (of 255) is negative."""
        layer = Image.new("L", (_SHADE_PX, _SHADE_PX))
        ImageDraw.Draw(layer).polygon([(x * _SHADE_PX, y * _SHADE_PX) for x, y in points], fill=abs(strength))
        layer = layer.filter(ImageFilter.GaussianBlur(blur * _SHADE_PX))
        is_dark = strength > 0
        self._soft[is_dark] = ImageChops.add(self._soft[is_dark], layer)

    def fold(self, start: Point, end: Point, strength: int = 46, width: float = 0.02) -> None:
        """Shade a crease of cloth, with a light ridge beside it."""
        (x0, y0), (x1, y1) = start, end
        dx, dy = x1 - x0, y1 - y0
        length = max((dx * dx + dy * dy) ** 0.5, 1e-6)
        nx, ny = -dy / length * width, dx / length * width
        self.shade([(x0, y0), (x1 + nx, y1 + ny), (x1, y1)], strength, 0.012)
        self.shade([(x0, y0), (x1 - nx, y1 - ny), (x1, y1)], -strength // 2, 0.012)

    def round_body(self, left: float, right: float, top: float, bottom: float) -> None:
        """Shade an upright cylinder that is lit from the left."""
        width = right - left
        for share, strength in ((0.10, 36), (0.22, 22), (0.36, 14)):
            self.shade(
                [
                    (right - width * share, top),
                    (right + 0.1, top),
                    (right + 0.1, bottom),
                    (right - width * share, bottom),
                ],
                strength,
                0.03,
            )
        self.shade(
            [(left - 0.1, top), (left + width * 0.06, top), (left + width * 0.06, bottom), (left - 0.1, bottom)],
            40,
            0.022,
        )
        self.shade(
            [
                (left + width * 0.17, top + 0.03),
                (left + width * 0.23, top + 0.03),
                (left + width * 0.23, bottom - 0.04),
                (left + width * 0.17, bottom - 0.04),
            ],
            -70,
            0.014,
        )

    def contact(self, cx: float, cy: float, rx: float, ry: float) -> None:
        """Add the shadow of a standing product on its table."""
        layer = Image.new("L", (_SHADE_PX, _SHADE_PX))
        for grow, strength in ((1.16, 60), (1.0, 150)):
            wide = Image.new("L", (_SHADE_PX, _SHADE_PX))
            box = [
                (cx - rx * grow) * _SHADE_PX,
                (cy - ry * grow) * _SHADE_PX,
                (cx + rx * grow) * _SHADE_PX,
                (cy + ry * grow) * _SHADE_PX,
            ]
            ImageDraw.Draw(wide).ellipse(box, fill=strength)
            layer = ImageChops.lighter(layer, wide.filter(ImageFilter.GaussianBlur(3)))
        self._contact = layer

    def finish(self) -> ProductShape:
        """The finished shape."""
        parts = [(material, mask.finish()) for material, mask in self._parts]
        silhouette = parts[0][1]
        for _, mask in parts[1:]:
            silhouette = ImageChops.lighter(silhouette, mask)
        shape = (self._size_px, self._size_px)
        soft = {key: image.resize(shape, Image.Resampling.BILINEAR) for key, image in self._soft.items()}
        return ProductShape(
            view=self.view,
            parts=tuple((material, Layer.cropped(mask)) for material, mask in parts),
            dark=Layer.cropped(ImageChops.multiply(soft[True], silhouette)),
            light=Layer.cropped(ImageChops.multiply(soft[False], silhouette)),
            shadow=Layer.cropped((self._contact or self._dropped(silhouette)).resize(shape, Image.Resampling.BILINEAR)),
            print_box=self.print_box,
            sag=self.sag,
        )

    def _dropped(self, silhouette: Image.Image) -> Image.Image:
        """Shadow of a product that lies or hangs: its silhouette, moved and blurred, in two depths."""
        small = silhouette.resize((_SHADE_PX, _SHADE_PX), Image.Resampling.BOX)
        shadow = Image.new("L", small.size)
        for reach, blur, strength in ((1.0, 2.0, 0.55), (2.2, 6.0, 0.4)):
            moved = Image.new("L", small.size)
            moved.paste(small, (round(self.drop[0] * reach * _SHADE_PX), round(self.drop[1] * reach * _SHADE_PX)))
            soft = moved.filter(ImageFilter.GaussianBlur(blur)).point([round(v * strength) for v in range(256)])
            shadow = ImageChops.lighter(shadow, soft)
        return shadow


def product(builder: Callable[[ShapeBuilder], None]) -> Callable[[ShapeBuilder], None]:
    """Register a builder under its function's name."""
    _BUILDERS[builder.__name__] = builder
    return builder


def product_names() -> tuple[str, ...]:
    """Names of all products, sorted."""
    for module in ("shapes_wear", "shapes_home"):
        importlib.import_module(f"{__package__}.{module}")
    return tuple(sorted(_BUILDERS))


@lru_cache(maxsize=64)
def product_shape(name: str, size_px: int) -> ProductShape:
    """The shape of a product at a size."""
    product_names()
    builder = ShapeBuilder(size_px)
    _BUILDERS[name](builder)
    return builder.finish()
