"""Square product pictures, drawn from a number, as JPEGs of the size that shops deliver."""

from __future__ import annotations

import io
import random
import struct

from PIL import Image, ImageDraw

SHAPES = 150
START_OF_IMAGE = b"\xff\xd8"
COMMENT_MARKER = b"\xff\xfe"  # JPEG, ITU-T T.81, table B.1


def draw_jpeg(seed: int, edge_px: int) -> bytes:
    """A JPEG of `edge_px` squared that shows something else for each seed; 80 to 200 KB at 1,000 to 1,600 px."""
    chance = random.Random(seed)
    grain = Image.effect_noise((edge_px // 4, edge_px // 4), 40).resize((edge_px, edge_px), Image.Resampling.BICUBIC)
    image = Image.new("RGB", (edge_px, edge_px), "white")
    draw = ImageDraw.Draw(image)
    for _ in range(SHAPES):
        x, y = chance.randrange(edge_px), chance.randrange(edge_px)
        size = chance.randrange(edge_px // 50, edge_px // 6)
        draw.ellipse((x, y, x + size, y + size), fill=tuple(chance.randrange(256) for _ in range(3)))
    image = Image.blend(image, Image.merge("RGB", (grain, grain, grain)), 0.15)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=80)
    return file.getvalue()


def comment(number: int) -> bytes:
    """A comment segment, which changes the bytes of a JPEG and not its pixels; it goes behind the first marker."""
    text = f"picture {number}".encode()
    return COMMENT_MARKER + struct.pack(">H", len(text) + 2) + text
