"""A product photo from its description: background, shadow, product, print, light.

The same `Photo` always gives the same pixels. Everything that depends on the product alone is cached, so that a photo
costs a few pastes.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageChops

from labeling_assets.embedded.demo.backgrounds import background, planks
from labeling_assets.embedded.demo.colours import PRODUCT_COLOURS, RGB, WOODEN, scheme_on
from labeling_assets.embedded.demo.designs import Print, arrange
from labeling_assets.embedded.demo.motifs import INKS, Ink
from labeling_assets.embedded.demo.shapes import Layer, Material, ProductShape, product_shape

_MATERIALS: dict[Material, RGB] = {
    "white": (246, 245, 242),
    "dark": (40, 38, 38),
    "metal": (182, 186, 192),
    "gold": (206, 166, 84),
    "wood": (190, 144, 96),
    "rope": (168, 136, 94),
    "glass": (222, 230, 232),
}
_SAG_STRIPS = 12
_ROUGHNESS = {"doormat": 20, "tote": 7, "pillow": 4, "blanket": 5}  # standard deviation of the weave, of 255
DRAWING_VERSION = 1
"""Raised with every change that gives other pixels or bytes, so that folders drawn by older code are drawn anew."""


@dataclass(frozen=True)
class Photo:
    """Everything that decides the pixels of a product photo.

    Attributes:
        product: Name of the shape.
        body: Colour name of the product.
        detail: Colour name of its handle, ribbon, fringe …
        design: What is printed on it.
        scheme: Name of the ink scheme.
        background: Name of the background, of the product's view.
        width_px: Width of the photo, at most 1000.
        height_px: Height of the photo, at most 1000.
        shift: Where the product stands in the free space, -1 (left, up) to 1.
    """

    product: str
    body: str
    detail: str
    design: Print
    scheme: str
    background: str
    width_px: int
    height_px: int
    shift: float


def draw_photo(photo: Photo) -> Image.Image:
    """The photo, mode RGB."""
    size = min(photo.width_px, photo.height_px)
    shape = product_shape(photo.product, size)
    canvas = background(shape.view, photo.background, photo.width_px, photo.height_px)
    x = round((photo.width_px - size) / 2 * (1 + 0.6 * photo.shift) + 0.02 * size * photo.shift)
    room = photo.height_px - size
    y = room if shape.view == "table" else round(room / 2 * (1 + 0.4 * photo.shift))
    _paint(canvas, (18, 14, 12), shape.shadow, x, y)
    texture = _texture(photo, size)
    colours = {**_MATERIALS, "body": PRODUCT_COLOURS[photo.body], "detail": PRODUCT_COLOURS[photo.detail]}
    for material, layer in shape.parts:
        fill = texture if texture and material == "body" else colours[material]
        _paint(canvas, fill, layer, x, y)
    _print(canvas, photo, shape, x, y, size)
    _paint(canvas, (0, 0, 0), shape.dark, x, y)
    _paint(canvas, (255, 255, 255), shape.light, x, y)
    return canvas


def _paint(canvas: Image.Image, fill: RGB | Image.Image, layer: Layer, x: int, y: int) -> None:
    """Paint a layer of a product whose square begins at (x, y), in a colour or with a texture of the whole square."""
    box = (layer.x, layer.y, layer.x + layer.mask.width, layer.y + layer.mask.height)
    source = fill.crop(box) if isinstance(fill, Image.Image) else fill
    canvas.paste(source, (x + box[0], y + box[1], x + box[2], y + box[3]), layer.mask)


def _texture(photo: Photo, size_px: int) -> Image.Image | None:
    """Wood, weave or coir, RGB, size_px squared; None for what is smooth."""
    if photo.body in WOODEN:
        return _wood(photo.body, size_px)
    roughness = _ROUGHNESS.get(photo.product)
    return _cloth(photo.body, roughness, size_px) if roughness else None


@lru_cache(maxsize=12)
def _wood(colour: str, size_px: int) -> Image.Image:
    return planks(colour, PRODUCT_COLOURS[colour], 5, 0.9).resize((size_px, size_px), Image.Resampling.BILINEAR)


@lru_cache(maxsize=48)
def _cloth(colour: str, roughness: int, size_px: int) -> Image.Image:
    noise = np.random.default_rng(roughness).normal(0, roughness, (size_px // 2, size_px // 2, 1))
    weave = Image.fromarray(np.clip(np.asarray(PRODUCT_COLOURS[colour]) + noise, 0, 255).astype(np.uint8), "RGB")
    return weave.resize((size_px, size_px), Image.Resampling.BILINEAR)


def _print(canvas: Image.Image, photo: Photo, shape: ProductShape, x: int, y: int, size_px: int) -> None:
    """Print the design into the print area, bent round the body where it is round."""
    left, top, right, bottom = (round(edge * size_px) for edge in shape.print_box)
    width, height = right - left, bottom - top
    scheme = scheme_on(photo.body, photo.scheme)
    colours: dict[Ink, RGB] = {"main": scheme.main, "accent": scheme.accent, "third": scheme.third}
    sag = round(shape.sag * size_px)
    layers: dict[Ink, Image.Image] = {}
    for stamp in arrange(photo.design, width, height):
        layer = layers.setdefault(stamp.ink, Image.new("L", (width, height + sag)))
        box = (stamp.x, stamp.y, stamp.x + stamp.mask.width, stamp.y + stamp.mask.height)
        layer.paste(ImageChops.lighter(layer.crop(box), stamp.mask), box)
    for ink in INKS:
        if ink in layers:
            bent = Layer.cropped(_bend(layers[ink], sag) if sag else layers[ink])
            canvas.paste(colours[ink], (x + left + bent.x, y + top + bent.y), bent.mask)


def _bend(mask: Image.Image, sag_px: int) -> Image.Image:
    """The mask as seen on an upright cylinder from slightly above: its middle hangs by `sag_px`."""
    edges = [round(mask.width * k / _SAG_STRIPS) for k in range(_SAG_STRIPS + 1)]
    mesh = []
    for left, right in itertools.pairwise(edges):
        falls = [sag_px * (1 - (2 * edge / mask.width - 1) ** 2) for edge in (left, right)]
        quad = (left, -falls[0], left, mask.height - falls[0], right, mask.height - falls[1], right, -falls[1])
        mesh.append(((left, 0, right, mask.height), quad))
    return mask.transform(mask.size, Image.Transform.MESH, mesh, Image.Resampling.BILINEAR)
