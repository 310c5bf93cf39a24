"""Bodies that a hostile host may send instead of a photo: cut off, stretched, nested, or larger inside than outside."""

from __future__ import annotations

import struct
import zlib

from faulty_image_host import encoded
from PIL import Image

from labeling_assets.errors import ImageError

PNG_START = b"\x89PNG\r\n\x1a\n"


def is_clear(error: ImageError) -> bool:
    """Whether the error says something, in sentences."""
    return len(str(error)) > 20 and str(error).endswith(".")


def picture(width: int, height: int) -> Image.Image:
    """A picture of gradients and of detail."""
    bands = (
        Image.linear_gradient("L"),
        Image.radial_gradient("L"),
        Image.effect_mandelbrot((256, 256), (-2, -1, 1, 1), 9),
    )
    return Image.merge("RGB", [band.resize((width, height)) for band in bands])


def png_chunk(name: bytes, content: bytes) -> bytes:
    """A chunk of a PNG with its checksum."""
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def samples(width: int, height: int) -> dict[str, bytes]:
    """One ordinary picture in every format and coding that is decoded."""
    image = picture(width, height)
    return {
        "jpeg": encoded(image, "JPEG", quality=60),
        "jpeg in scans": encoded(image, "JPEG", quality=60, progressive=True),
        "jpeg in grey": encoded(image.convert("L"), "JPEG", quality=60),
        "png": encoded(image, "PNG"),
        "png with a palette": encoded(image.quantize(16), "PNG", transparency=3),
        "gif": encoded(image.quantize(16), "GIF"),
        "webp": encoded(image, "WEBP", quality=60),
        "webp without loss": encoded(image.convert("RGBA"), "WEBP", lossless=True),
        "bmp": encoded(image, "BMP"),
        "bmp with a palette": encoded(image.quantize(16), "BMP"),
    }


SMALL = samples(30, 28)


def png(width: int, height: int, pixels: bytes, *before: bytes, colours: int = 0, bits: int = 8) -> bytes:
    """A PNG of zlib-packed rows, with other chunks before them."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colours, 0, 0, 0))
    return b"".join([PNG_START, header, *before, png_chunk(b"IDAT", pixels), png_chunk(b"IEND", b"")])


def zeros(size_bytes: int) -> bytes:
    """So many zero bytes, packed by zlib; a block that is packed once is repeated."""
    whole, rest = divmod(size_bytes, 1_000_000)
    checksum = (size_bytes % 65521) << 16 | 1  # RFC 1950, Adler-32 of zeros
    return b"\x78\xda" + _packed(1_000_000) * whole + _packed(rest) + b"\x03\0" + struct.pack(">I", checksum)


def _packed(size_bytes: int) -> bytes:
    packer = zlib.compressobj(9, wbits=-15)
    return packer.compress(bytes(size_bytes)) + packer.flush(zlib.Z_FULL_FLUSH)


def grey_png(width: int, height: int) -> bytes:
    """A black PNG of any size, of a few kilobytes."""
    return png(width, height, zeros((width + 1) * height))


def jpeg_in_scans(scans: int) -> bytes:
    """A JPEG whose last scan comes again and again: each costs a pass over all pixels."""
    body = encoded(picture(64, 64), "JPEG", progressive=True)
    last = body[body.rindex(b"\xff\xda") : -2]
    return body[:-2] + last * (scans - body.count(b"\xff\xda")) + body[-2:]


def jpeg_of(width: int, height: int) -> bytes:
    """A JPEG that tells of another size than it has pixels for."""
    body = bytearray(SMALL["jpeg"])
    frame = body.index(b"\xff\xc0")
    body[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    return bytes(body)


def gif_of(width: int, height: int) -> bytes:
    """A GIF whose screen and frame tell of another size than they have pixels for."""
    body = bytearray(SMALL["gif"])
    frame = body.index(b"\x2c\0\0\0\0", 13)
    body[6:10] = body[frame + 5 : frame + 9] = struct.pack("<HH", width, height)
    return bytes(body)


STRIPS = {
    f"{name} {width} x {height}": make(width, height)
    for name, make, edge in (("png", grey_png, 100_000), ("jpeg", jpeg_of, 65_500), ("gif", gif_of, 65_535))
    for width, height in ((edge, 1), (1, edge), (edge, 27), (27, edge), (edge, 400), (400, edge))
}

_ROWS = zeros(64 * 65)
_ENTRY = struct.pack(">HHII", 0x0112, 3, 0xFFFFFFFF, 8)
_BMP = SMALL["bmp with a palette"]
_FRAME = SMALL["gif"].index(b"\x2c\0\0\0\0", 13)


def deceptive() -> dict[str, bytes]:
    """Bodies that promise more than they are."""
    return {
        "png with a text of 1 GB": png(64, 64, _ROWS, png_chunk(b"zTXt", b"a\0\0" + zeros(1_000_000_000))),
        "png with an international text of 1 GB": png(
            64, 64, _ROWS, png_chunk(b"iTXt", b"a\0\1\0\0\0" + zeros(1_000_000_000))
        ),
        "png with a colour profile of 1 GB": png(64, 64, _ROWS, png_chunk(b"iCCP", b"a\0\0" + zeros(1_000_000_000))),
        "png with 1 GB behind its last row": png(64, 64, zeros(1_000_000_000)),
        "png with a chunk of 2 GB that is not there": PNG_START + struct.pack(">I", 2**31 - 1) + b"IHDR" + bytes(99),
        "png with 100,000 empty chunks": png(64, 64, _ROWS, png_chunk(b"tEXt", b"a\0b") * 100_000),
        "png of EXIF that points to itself": png(
            64, 64, _ROWS, png_chunk(b"eXIf", b"MM\0*\0\0\0\x08" + struct.pack(">H", 1000) + _ENTRY * 1000)
        ),
        "jpeg with 4 million entries of EXIF": encoded(
            picture(64, 64), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + _ENTRY * 5000
        ),
        "jpeg with 100,000 comments": SMALL["jpeg"][:2] + b"\xff\xfe\0\4hi" * 100_000 + SMALL["jpeg"][2:],
        "jpeg in 10,000 scans": jpeg_in_scans(10_000),
        "gif with 1,000,000 empty frames": SMALL["gif"][:-1] + b"\x2c" + bytes(9) + b"\2\0" * 1_000_000 + b";",
        "gif with 10 MB of comments": SMALL["gif"][:_FRAME]
        + b"\x21\xfe"
        + (b"\xff" + bytes(255)) * 40_000
        + b"\0"
        + SMALL["gif"][_FRAME:],
        "webp that tells of 4 GB": b"RIFF\xff\xff\xff\xffWEBPVP8X\x0a\0\0\0\x10\0\0\0" + b"\xff" * 6,
        "webp of 12,000 x 12,000": b"RIFF\x16\0\0\0WEBPVP8L\x0a\0\0\0\x2f"
        + struct.pack("<I", 11_999 | 11_999 << 14)
        + bytes(5),
        "bmp with a header of 4 GB": b"BM" + bytes(12) + b"\xff\xff\xff\x7f" + bytes(40),
        "bmp of run lengths that never end": SMALL["bmp with a palette"][:30]
        + b"\1"
        + SMALL["bmp with a palette"][31:],
    }


def strips() -> dict[str, bytes]:
    """Pictures of one edge that is far too long for the other."""
    return STRIPS


def largest() -> dict[str, bytes]:
    """Images with as many pixels as are decoded."""
    return {
        "png in grey": grey_png(7_000, 7_000),
        "png with alpha": png(7_000, 7_000, zeros((4 * 7_000 + 1) * 7_000), colours=6),
        "png of 16 bits": png(7_000, 7_000, zeros((2 * 7_000 + 1) * 7_000), bits=16),
        "jpeg in scans": encoded(Image.new("RGB", (7_000, 7_000), "navy"), "JPEG", progressive=True),
        "webp without loss": encoded(Image.new("RGBA", (16_000, 3_000), "navy"), "WEBP", lossless=True, method=0),
        "gif": encoded(Image.new("P", (7_000, 7_000)), "GIF"),
    }
