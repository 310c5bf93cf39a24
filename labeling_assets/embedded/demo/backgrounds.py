"""Backgrounds of the product photos: table scenes, surfaces seen from above, and walls.

Each is made once from smooth gradients and seeded noise; a photo takes a crop of it. They are made at half size and
enlarged, which is four times faster and looks like the soft focus behind a product.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

View = Literal["table", "surface", "wall"]
RGB = tuple[int, int, int]
Pixels = np.ndarray[tuple[int, ...], np.dtype[np.float32]]
MASTER_PX = 1000
_EDGE = 500
_HORIZON = 0.60


def _noise(name: str, rows: int, columns: int, size: tuple[int, int] = (_EDGE, _EDGE)) -> Pixels:
    """Smooth noise in -1..1 of shape (height, width), from a grid of rows x columns; the same for the same name."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    grid = Image.fromarray(rng.random((rows, columns), dtype=np.float32))
    pixels: Pixels = np.asarray(grid.resize(size, Image.Resampling.BICUBIC), np.float32) * 2 - 1
    return pixels


def _flat(colour: RGB, width: int = _EDGE, height: int = _EDGE) -> Pixels:
    return np.broadcast_to(np.asarray(colour, np.float32), (height, width, 3)).copy()


def _image(pixels: np.ndarray[Any, Any]) -> Image.Image:
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8), "RGB")


def _vignette(strength: float, cx: float = 0.5, cy: float = 0.45) -> Pixels:
    """Factors around 1, brighter about (cx, cy); shape (_EDGE, _EDGE, 1)."""
    y, x = np.mgrid[0 : 1 : _EDGE * 1j, 0 : 1 : _EDGE * 1j].astype(np.float32)
    distance = np.hypot(x - cx, y - cy)
    factors: Pixels = (1.0 + strength * (0.35 - distance))[..., None].astype(np.float32)
    return factors


def planks(name: str, colour: RGB, count: int = 6, contrast: float = 1.0) -> Image.Image:
    """Wooden planks that lie across, half of MASTER_PX squared."""
    grain = _noise(name + "fine", 300, 6) * 9 + _noise(name + "long", 120, 3) * 8 + _noise(name + "knots", 14, 9) * 5
    tones = _noise(name + "tones", count, 1, (1, count))[:, 0] * 16
    bands = np.repeat(tones, -(-_EDGE // count))[:_EDGE]
    pixels = _flat(colour) + (grain + bands[:, None])[..., None] * contrast * np.array([1.0, 0.95, 0.85], np.float32)
    for edge in range(1, count):
        row = edge * _EDGE // count
        pixels[row - 1 : row + 1] *= 0.64
        pixels[row + 1 : row + 2] *= 1.05
    return _image(pixels)


def _marble(name: str, colour: RGB, vein: RGB) -> Image.Image:
    field = _noise(name + "a", 6, 6) + 0.5 * _noise(name + "b", 14, 14)
    veins = np.exp(-np.abs(field) * 16)[..., None] * 0.5 + np.exp(-np.abs(field + 0.55) * 30)[..., None] * 0.35
    soft = (_noise(name + "c", 5, 5) * 5)[..., None]
    return _image((_flat(colour) + soft) * (1 - veins) + _flat(vein) * veins)


def _linen(name: str, colour: RGB) -> Image.Image:
    weave = _noise(name + "x", 500, 60) * 5 + _noise(name + "y", 60, 500) * 5 + _noise(name + "fold", 5, 4) * 9
    return _image(_flat(colour) + weave[..., None])


def _plain(colour: RGB) -> Image.Image:
    return _image(_flat(colour) * _vignette(0.28, 0.38, 0.32))


def _window_light(name: str, colour: RGB) -> Image.Image:
    """A painted wall on which the light of a window falls."""
    light = Image.new("L", (_EDGE, _EDGE), 0)
    draw = ImageDraw.Draw(light)
    for column in range(2):
        for row in range(3):
            x, y = 45 + 165 * column, 30 + 145 * row - 45 * column
            draw.polygon([(x, y), (x + 145, y - 40), (x + 145, y + 85), (x, y + 125)], fill=255)
    glow = np.asarray(light.filter(ImageFilter.GaussianBlur(11)), np.float32)[..., None] / 255
    return _image(_flat(colour) * (0.93 + 0.12 * glow) + (_noise(name, 5, 5) * 2)[..., None])


def _shiplap(name: str, colour: RGB) -> Image.Image:
    pixels = np.asarray(planks(name, colour, 7, 0.22), np.float32) * _vignette(0.2, 0.4, 0.35)
    return _image(pixels)


def _brick(name: str, colour: RGB, mortar: RGB) -> Image.Image:
    rows, columns = 12, 6
    height, width = _EDGE / rows, _EDGE / columns
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    image = Image.new("RGB", (_EDGE, _EDGE), mortar)
    draw = ImageDraw.Draw(image)
    for row in range(rows):
        for column in range(-1, columns + 1):
            tone = float(rng.normal(0, 7))
            x, y = (column + 0.5 * (row % 2)) * width, row * height
            fill = tuple(int(np.clip(channel + tone, 0, 255)) for channel in colour)
            draw.rounded_rectangle((x + 2, y + 2, x + width - 2, y + height - 2), 2, fill=fill)
    soft = np.asarray(image.filter(ImageFilter.GaussianBlur(0.8)), np.float32)
    return _image(soft * _vignette(0.25) + (_noise(name, 90, 90) * 4)[..., None])


def _bokeh(name: str, wall: RGB, lights: tuple[RGB, ...]) -> Image.Image:
    """An evening room out of focus, with lights."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    image = _image(_flat(wall) * _vignette(0.5, 0.5, 0.3))
    glow = Image.new("RGB", image.size)
    for number in range(46):
        layer = Image.new("L", (80, 80), 0)
        radius = int(rng.integers(8, 23))
        ImageDraw.Draw(layer).ellipse((40 - radius, 40 - radius, 40 + radius, 40 + radius), int(rng.integers(50, 135)))
        x, y = int(rng.integers(-40, _EDGE)), int(rng.integers(-40, int(_EDGE * 0.5)))
        glow.paste(lights[number % len(lights)], (x, y), layer.filter(ImageFilter.GaussianBlur(2)))
    return _image(np.asarray(image, np.float32) + np.asarray(glow, np.float32) * 0.8)


def _on_table(wall: Image.Image, top: Image.Image) -> Image.Image:
    """A wall, slightly out of focus, behind a table top in perspective."""
    horizon = round(_EDGE * _HORIZON)
    scene = wall.filter(ImageFilter.GaussianBlur(1.5))
    depth = _EDGE - horizon
    # Source corners from top left counter-clockwise: the far edge shows more of the table than the near one.
    far_and_near = (0, 0, _EDGE * 0.24, _EDGE, _EDGE * 0.76, _EDGE, _EDGE, 0)
    table = top.transform((_EDGE, depth), Image.Transform.QUAD, far_and_near, Image.Resampling.BILINEAR)
    shade = np.linspace(0.86, 1.04, depth, dtype=np.float32)[:, None, None]
    scene.paste(_image(np.asarray(table, np.float32) * shade), (0, horizon))
    edge = np.asarray(scene, np.float32)
    fade = np.exp(-np.abs(np.arange(_EDGE, dtype=np.float32) - horizon) / 7)[:, None, None]
    return _image(edge * (1 - 0.16 * fade))


_WARM, _COOL = ((255, 205, 120), (255, 165, 90), (250, 225, 170)), ((255, 90, 80), (120, 220, 130), (255, 214, 120))
_SCENES: dict[View, dict[str, Callable[[], Image.Image]]] = {
    "table": {
        "white room": lambda: _on_table(_window_light("w1", (240, 238, 234)), _plain((247, 245, 242))),
        "oak table": lambda: _on_table(_plain((222, 226, 222)), planks("t2", (190, 146, 100), 7)),
        "walnut table": lambda: _on_table(_window_light("w3", (205, 196, 184)), planks("t3", (112, 76, 52), 7)),
        "marble counter": lambda: _on_table(_plain((200, 212, 216)), _marble("t4", (238, 238, 238), (160,) * 3)),
        "pink studio": lambda: _on_table(_plain((246, 214, 212)), _plain((240, 198, 198))),
        "mint studio": lambda: _on_table(_plain((207, 230, 220)), _plain((188, 218, 206))),
        "evening lights": lambda: _on_table(_bokeh("w7", (74, 54, 46), _WARM), planks("t7", (138, 94, 62), 7)),
        "christmas lights": lambda: _on_table(_bokeh("w8", (24, 62, 48), _COOL), planks("t8", (176, 140, 106), 7)),
    },
    "surface": {
        "white planks": lambda: planks("s1", (232, 228, 222), 6, 0.4),
        "oak planks": lambda: planks("s2", (201, 164, 122), 6),
        "dark planks": lambda: planks("s3", (92, 70, 56), 6, 0.8),
        "marble": lambda: _marble("s4", (240, 239, 238), (176, 176, 180)),
        "linen": lambda: _linen("s5", (226, 216, 200)),
        "grey": lambda: _plain((214, 216, 219)),
        "blush": lambda: _plain((245, 220, 214)),
        "sky": lambda: _plain((205, 224, 238)),
    },
    "wall": {
        "white wall": lambda: _window_light("a1", (240, 239, 236)),
        "sage wall": lambda: _window_light("a2", (188, 203, 186)),
        "sand wall": lambda: _window_light("a3", (228, 212, 190)),
        "shiplap": lambda: _shiplap("a4", (236, 234, 230)),
        "brick": lambda: _brick("a5", (226, 222, 216), (204, 200, 194)),
        "red brick": lambda: _brick("a6", (168, 98, 78), (196, 184, 172)),
        "navy wall": lambda: _plain((70, 86, 112)),
        "fireplace glow": lambda: _bokeh("a8", (96, 66, 50), _WARM),
    },
}


def background_names(view: View) -> tuple[str, ...]:
    """Names of the backgrounds for a view, in fixed order."""
    return tuple(_SCENES[view])


@lru_cache(maxsize=32)
def _master(view: View, name: str) -> Image.Image:
    return _SCENES[view][name]().resize((MASTER_PX, MASTER_PX), Image.Resampling.BILINEAR)


def background(view: View, name: str, width_px: int, height_px: int) -> Image.Image:
    """A fresh RGB image of at most MASTER_PX squared; table scenes keep the distance of the horizon from below."""
    left = (MASTER_PX - width_px) // 2
    top = MASTER_PX - height_px if view == "table" else (MASTER_PX - height_px) // 2
    return _master(view, name).crop((left, top, left + width_px, top + height_px))
