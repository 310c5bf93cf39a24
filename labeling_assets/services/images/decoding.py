"""From the bytes of an image to its facts and to the small JPEG that the models read. Pure functions, thread-safe.

The bytes come from outside. The header is checked before any pixel is decoded, so a decompression bomb costs nothing,
and large images are decoded one at a time, so many at once cannot fill the memory.

Decoded are the formats that shops put on web pages: JPEG, PNG, WebP, GIF (first frame) and BMP. TIFF, AVIF, HEIC and
SVG are not: no product page needs them, and each adds a decoder that outside bytes can attack.
"""

from __future__ import annotations

import contextlib
import io
import struct
import threading
import zlib
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from PIL import BmpImagePlugin, GifImagePlugin, Image, ImageFile, JpegImagePlugin, PngImagePlugin, WebPImagePlugin
from PIL.ExifTags import Base as ExifTag

from labeling_assets.errors import ImageTooLargeError, ImageTooSmallError, InvalidImageError
from labeling_assets.products.images import ImageFacts
from labeling_assets.products.perceptual_hash import SQUARE_PX, phash_squares, to_hex

# Changes whenever the same bytes would give another small JPEG: size, quality, resampling, background.
MODEL_JPEG_VERSION = "jpeg512-1"
MODEL_EDGE_PX = 512
JPEG_QUALITY = 90

MAX_PIXELS = 50_000_000
# Qwen2.5-VL reads patches of 28 px; the model server breaks on an image with a shorter edge (ollama issue 11297).
MIN_EDGE_PX = 28
# A scan costs a pass over the whole picture, however few bytes it has. Encoders write about ten.
MAX_JPEG_SCANS = 100
# Pixels in memory from which on images are decoded one at a time.
LARGE_PIXELS = 4_000_000
_large_images = threading.Lock()
# Twice the square that is hashed: enough pixels for the hash to be the same as that of the whole image.
HASH_DRAFT_PX = 2 * SQUARE_PX

# Image.open is not used: it warns of large images through filters that all threads of the process share.
_OPENERS: dict[bytes, Callable[[io.BytesIO], ImageFile.ImageFile]] = {
    b"\xff\xd8\xff": JpegImagePlugin.JpegImageFile,
    b"\x89PNG\r\n\x1a\n": PngImagePlugin.PngImageFile,
    b"GIF87a": GifImagePlugin.GifImageFile,
    b"GIF89a": GifImagePlugin.GifImageFile,
    b"RIFF": WebPImagePlugin.WebPImageFile,
    b"BM": BmpImagePlugin.BmpImageFile,
}
_NOT_DECODED = {b"II*\0": "TIFF", b"MM\0*": "TIFF", b"<": "HTML or XML"}

# What Pillow's decoders raise on damaged bytes; its warnings of damaged EXIF too, where warnings are errors.
_DECODER_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    UserWarning,
    ValueError,
    struct.error,
    zlib.error,
)

# EXIF 2.3, tag 0x0112: how to turn the pixels so that the picture stands upright.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode(body: bytes) -> tuple[ImageFacts, bytes]:
    """The facts of an image, and the JPEG that the models read (RGB, upright, alpha on white, at most 512 px).

    Raises:
        InvalidImageError: Not an image, cut off, or of a format that is not decoded.
        ImageTooLargeError: More pixels than are decoded.
        ImageTooSmallError: An edge is, or after shrinking to fit would be, shorter than a vision model reads.
    """
    with _open(body) as image:
        width, height = image.size
        target = fit_within(width, height, MODEL_EDGE_PX)
        if min(target) < MIN_EDGE_PX:
            raise ImageTooSmallError(
                f"The image has {width} x {height} px; fitted into {MODEL_EDGE_PX} px, its shorter edge has "
                f"{min(target)} px, and a vision model reads at least {MIN_EDGE_PX}."
            )
        small = _shrink(image, target)
        orientation = _orientation(image)  # after the pixels, since a PNG may hold its EXIF behind them
        image_format = str(image.format)
    if orientation in _UPRIGHT:
        small = small.transpose(_UPRIGHT[orientation])
    if orientation in {5, 6, 7, 8}:
        width, height = height, width
    jpeg = _to_jpeg(small, JPEG_QUALITY)
    facts = ImageFacts(
        size_bytes=len(body),
        width_px=width,
        height_px=height,
        format=image_format,
        phash=to_hex(phash_squares(_square(small)[np.newaxis])[0]),
        model_size_bytes=len(jpeg),
        model_width_px=small.width,
        model_height_px=small.height,
    )
    return facts, jpeg


def model_image(jpeg: bytes, edge_px: int = 0) -> Image.Image:
    """The pixels of a JPEG that `decode` made: RGB, at most 512 px.

    Args:
        jpeg: The JPEG.
        edge_px: The image is decoded at half, a quarter or an eighth of its size, as long as both edges have at least
            so many pixels; 0: at its full size.

    Raises:
        InvalidImageError: The JPEG is damaged or cut off.
    """
    with _open(jpeg) as image:
        if edge_px:
            image.draft("RGB", (edge_px, edge_px))
        try:
            image.load()
        except _DECODER_ERRORS as error:
            raise InvalidImageError("The stored image is damaged or cut off.") from error
        return image


def thumbnail(jpeg: bytes, edge_px: int) -> bytes:
    """A JPEG of a few kilobytes from one that `decode` made, at most `edge_px` wide and high.

    Raises:
        InvalidImageError: The JPEG is damaged or cut off.
    """
    with _open(jpeg) as image:
        return _to_jpeg(_shrink(image, fit_within(*image.size, edge_px)), quality=80)


def grey_square(body: bytes) -> npt.NDArray[np.uint8]:
    """The pixels that a perceptual hash is made of, without decoding a JPEG in full.

    Returns:
        uint8, shape (32, 32): the image in grey, upright, alpha on white, stretched to a square.

    Raises:
        InvalidImageError: Not an image, cut off, or of a format that is not decoded.
        ImageTooLargeError: More pixels than are decoded.
    """
    with _open(body) as image:
        small = _shrink(image, (SQUARE_PX, SQUARE_PX), draft_mode="L", draft_px=HASH_DRAFT_PX)
        orientation = _orientation(image)
    return _square(small.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else small)


def _square(image: Image.Image) -> npt.NDArray[np.uint8]:
    grey = image.convert("L").resize((SQUARE_PX, SQUARE_PX), Image.Resampling.LANCZOS)
    return np.asarray(grey, dtype=np.uint8)


def fit_within(width_px: int, height_px: int, edge_px: int) -> tuple[int, int]:
    """Width and height with the same aspect, both at most `edge_px`, never enlarged and never 0."""
    scale = min(1.0, edge_px / max(width_px, height_px, 1))
    return max(1, round(width_px * scale)), max(1, round(height_px * scale))


def _open(body: bytes) -> ImageFile.ImageFile:
    """The image with its header read and no pixel decoded."""
    opener = next((opener for start, opener in _OPENERS.items() if body.startswith(start)), None)
    if opener is None:
        raise InvalidImageError(f"The body is {_what(body)}.")
    if opener is JpegImagePlugin.JpegImageFile and body.count(b"\xff\xda") > MAX_JPEG_SCANS:
        raise InvalidImageError(f"The JPEG is coded in more than {MAX_JPEG_SCANS} scans, which are not decoded.")
    if opener is GifImagePlugin.GifImageFile and len(body) >= 10:
        _check_pixels(*struct.unpack_from("<HH", body, 6))  # the decoder fills the screen while it reads the header
    try:
        image = opener(io.BytesIO(body))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageTooLargeError(f"The image has more than {MAX_PIXELS} pixels.") from error
    except _DECODER_ERRORS as error:
        raise InvalidImageError("The header of the image is damaged or cut off.") from error
    _check_pixels(*image.size)
    return image


def _what(body: bytes) -> str:
    """What a body is that no decoder takes."""
    name = next((name for start, name in _NOT_DECODED.items() if body[:100].lstrip().startswith(start)), None)
    name = "AVIF or HEIC" if body[4:8] == b"ftyp" else name
    if name is not None:
        return f"{name}, which is not decoded"
    return "not an image" if body else "empty, not an image"


def _check_pixels(width_px: int, height_px: int) -> None:
    if width_px * height_px > MAX_PIXELS:
        raise ImageTooLargeError(f"The image has {width_px} x {height_px} pixels; at most {MAX_PIXELS} are decoded.")


def _orientation(image: ImageFile.ImageFile) -> int:
    """The EXIF orientation; 1 where EXIF is absent or damaged, as browsers take it."""
    try:
        return int(image.getexif().get(ExifTag.Orientation, 1))
    except _DECODER_ERRORS:
        return 1


def _shrink(
    image: ImageFile.ImageFile, target: tuple[int, int], draft_mode: str | None = None, draft_px: int = 0
) -> Image.Image:
    """The image in RGB, alpha on white, resized to `target`.

    A JPEG is shrunk by 2, 4 or 8 while it is decoded, as long as it stays at least as large as the target and has edges
    of at least `draft_px`; with `draft_mode` "L", its colours are left out.
    """
    held_pixels = image.width * image.height
    draft = image.draft(draft_mode, (max(target[0], draft_px), max(target[1], draft_px)))
    if draft is not None and not image.info.get("progressive"):  # a progressive one is held in full all the same
        held_pixels = image.width * image.height
    with _large_images if held_pixels > LARGE_PIXELS else contextlib.nullcontext():
        try:
            image.load()
            box = draft[1] if draft else None
            resized = _plain(image).resize(target, Image.Resampling.LANCZOS, box, reducing_gap=2.0)
        except _DECODER_ERRORS as error:
            raise InvalidImageError("The image is damaged or cut off.") from error
    if resized.mode == "RGBA":
        resized = Image.alpha_composite(Image.new("RGBA", target, "white"), resized)
    small = resized.convert("RGB")
    small.info = {}  # Pillow would write the comment of the original again
    return small


def _plain(image: Image.Image) -> Image.Image:
    """The image in a mode that can be resampled: L, RGB, CMYK, or RGBA where it has transparency."""
    if image.mode.startswith("I;16"):
        return image.point(lambda value: value / 256).convert("L")  # 16 bits; a conversion alone cuts them off at 255
    if image.has_transparency_data:
        return image.convert("RGBA")
    return image if image.mode in {"L", "RGB", "CMYK"} else image.convert("RGB")


def _to_jpeg(image: Image.Image, quality: int) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality, optimize=True, progressive=True)
    return file.getvalue()
