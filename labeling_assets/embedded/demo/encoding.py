"""From a photo to the bytes that an image host delivers, in good forms and in broken ones.

A `Recipe` is all that decides the bytes, so equal recipes give equal bytes.
"""

from __future__ import annotations

import hashlib
import io
import struct
import zlib
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw

from labeling_assets.embedded.demo.drawing import DRAWING_VERSION, Photo, draw_photo

Form = Literal[
    "jpeg", "png", "webp",
    "small jpeg", "transparent png", "palette png", "grey png", "16-bit grey png", "cmyk jpeg", "rotated jpeg",
    "truncated jpeg", "html", "tiny png", "bomb png",
]  # fmt: skip
CONTENT_TYPES: dict[str, str] = {"jpg": "image/jpeg", "png": "image/png", "webp": "image/webp", "html": "text/html"}
BOMB_EDGE_PX = 16_000
_EXIF_ORIENTATION = 0x0112


@dataclass(frozen=True)
class Recipe:
    """What makes the bytes of one image.

    Attributes:
        photo: What is shown; None for what shows nothing.
        form: File form.
        quality: JPEG and WEBP quality.
    """

    photo: Photo | None
    form: Form = "jpeg"
    quality: int = 88

    @property
    def name(self) -> str:
        """A short name that differs when the bytes may differ."""
        stem = self.photo.product if self.photo else "file"
        return f"{stem}-{hashlib.sha256(f'{DRAWING_VERSION} {self!r}'.encode()).hexdigest()[:12]}"

    @property
    def file_type(self) -> str:
        """Suffix that suits the bytes."""
        return self.form.split()[-1].replace("jpeg", "jpg")


def make_bytes(recipe: Recipe) -> bytes:
    """The bytes of an image; the same for equal recipes."""
    if recipe.form == "bomb png":
        return bomb_png(BOMB_EDGE_PX)
    if recipe.form == "html":
        return b"<!doctype html><html><head><title>Sign in</title></head><body><h1>Please sign in</h1></body></html>\n"
    if recipe.photo is None:
        msg = f"A recipe of the form {recipe.form!r} needs a photo."
        raise ValueError(msg)
    return _encoded(draw_photo(recipe.photo), recipe)


def _encoded(image: Image.Image, recipe: Recipe) -> bytes:
    """A photo in the form of a recipe."""
    jpeg = partial(_saved, kind="JPEG", quality=recipe.quality)
    png = partial(_saved, kind="PNG", compress_level=3)
    match recipe.form:
        case "png":
            return png(image)
        case "webp":
            return _saved(image, kind="WEBP", quality=recipe.quality, method=0)
        case "small jpeg":
            return jpeg(image.resize((image.width * 3 // 4, image.height * 3 // 4), Image.Resampling.LANCZOS))
        case "transparent png":
            return png(_cut_out(image))
        case "palette png":
            return png(image.quantize(64))
        case "grey png":
            return png(image.convert("L"))
        case "16-bit grey png":
            return png(Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257))
        case "cmyk jpeg":
            return jpeg(image.convert("CMYK"))
        case "rotated jpeg":
            return _rotated_jpeg(image, recipe.quality)
        case "truncated jpeg":
            whole = jpeg(image)
            return whole[: len(whole) * 2 // 5]
        case "tiny png":
            return png(image.resize((20, 20), Image.Resampling.LANCZOS))
        case _:
            return jpeg(image)


def _saved(image: Image.Image, *, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _cut_out(image: Image.Image) -> Image.Image:
    """The photo with transparent round corners, as shops cut out their products; what is transparent is black."""
    alpha = Image.new("L", image.size)
    ImageDraw.Draw(alpha).rounded_rectangle((0, 0, image.width - 1, image.height - 1), image.width // 8, fill=255)
    cut = Image.composite(image, Image.new("RGB", image.size), alpha)
    cut.putalpha(alpha)
    return cut


def _rotated_jpeg(image: Image.Image, quality: int) -> bytes:
    """Pixels that lie on their side, with the EXIF orientation (6) that stands them up again."""
    exif = Image.Exif()
    exif[_EXIF_ORIENTATION] = 6
    return _saved(image.transpose(Image.Transpose.ROTATE_90), kind="JPEG", quality=quality, exif=exif)


def bomb_png(edge_px: int) -> bytes:
    """A valid black RGB PNG of edge_px squared that is a thousandth of its decoded size.

    Made without holding the pixels: deflate blocks that end in a full flush can be repeated.
    """
    row = bytes(1 + 3 * edge_px)
    rows_per_block = 100 if edge_px % 100 == 0 else 1
    deflate = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    block = deflate.compress(row * rows_per_block) + deflate.flush(zlib.Z_FULL_FLUSH)
    end = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS).flush()
    length = edge_px * len(row)
    adler = (length % 65521) << 16 | 1  # Adler-32 of zeros: a stays 1, b counts the bytes (RFC 1950)
    pixels = b"\x78\xda" + block * (edge_px // rows_per_block) + end + struct.pack(">I", adler)
    header = struct.pack(">IIBBBBB", edge_px, edge_px, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", pixels), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_png_chunk(kind, data) for kind, data in chunks)


def _png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
