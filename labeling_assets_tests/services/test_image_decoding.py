from __future__ import annotations

import io
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from faulty_image_host import encoded, jpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageOps

from labeling_assets.errors import ImageError, ImageTooLargeError, ImageTooSmallError, InvalidImageError
from labeling_assets.services.images import decoding
from labeling_assets.services.images.decoding import decode, fit_within, thumbnail

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")


def photo(width: int = 640, height: int = 480) -> Image.Image:
    """A picture with a different colour in each corner, so that a turn shows."""
    image = Image.linear_gradient("L").resize((width, height)).convert("RGB")
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, width // 2, height // 2), fill="red")
    draw.ellipse((width // 2, height // 2, width - 1, height - 1), fill="blue")
    return image


def model_image(body: bytes) -> Image.Image:
    return Image.open(io.BytesIO(decode(body)[1]))


def pixel(image: Image.Image, x: int, y: int) -> tuple[int, ...]:
    colour = image.getpixel((x, y))
    assert isinstance(colour, tuple)
    return colour


def is_near(colour: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    return all(abs(one - other) <= 12 for one, other in zip(colour, wanted, strict=True))


def png_chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png_bomb(width: int, height: int) -> bytes:
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    packer = zlib.compressobj(9)
    rows = b"".join([*(packer.compress(bytes(1 + 3 * width)) for _ in range(height)), packer.flush()])
    return b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", rows) + png_chunk(b"IEND", b"")


def jpeg_bomb() -> bytes:
    body = bytearray(encoded(photo(64, 64), "JPEG"))
    frame = body.index(b"\xff\xc0")
    body[frame + 5 : frame + 9] = struct.pack(">HH", 65500, 65500)
    return bytes(body)


def webp_bomb() -> bytes:
    bits = (16383 - 1) | ((16383 - 1) << 14)
    stream = b"VP8L" + struct.pack("<I", 10) + b"\x2f" + struct.pack("<I", bits) + bytes(5)
    return b"RIFF" + struct.pack("<I", 4 + len(stream)) + b"WEBP" + stream


def gif_bomb(width: int, height: int) -> bytes:
    # Disposal 2: the decoder fills the screen with the background as soon as it reads the header.
    control = b"\x21\xf9\x04\x08\x00\x00\x00\x00"
    frame = b"\x2c" + struct.pack("<HHHH", 0, 0, width, height) + b"\x00\x02\x02\x44\x01\x00"
    return b"GIF89a" + struct.pack("<HH", width, height) + b"\x80\x00\x00" + bytes(6) + control + frame + b"\x3b"


def bmp_bomb() -> bytes:
    body = bytearray(encoded(photo(64, 64), "BMP"))
    body[18:26] = struct.pack("<ii", 30_000, 30_000)
    return bytes(body)


BOMBS = {
    "png": png_bomb(16_000, 4_000),
    "jpeg": jpeg_bomb(),
    "webp": webp_bomb(),
    "gif": gif_bomb(65_535, 65_535),
    "gif_filled_by_its_header": gif_bomb(12_000, 12_000),
    "bmp": bmp_bomb(),
}


@pytest.mark.parametrize("image_format", FORMATS)
def test_each_format_becomes_a_small_rgb_jpeg(image_format: str) -> None:
    body = encoded(photo(1200, 800), image_format)
    facts, small = decode(body)
    assert (facts.format, facts.size_bytes, facts.width_px, facts.height_px) == (image_format, len(body), 1200, 800)
    assert (facts.model_size_bytes, facts.model_width_px, facts.model_height_px) == (len(small), 512, 341)
    image = Image.open(io.BytesIO(small))
    assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (512, 341))
    assert image.info["progressive"] == 1
    assert is_near(pixel(image, 100, 80), (254, 0, 0))
    assert is_near(pixel(image, 384, 256), (0, 0, 254))
    assert len(facts.phash) == 16
    assert int(facts.phash, 16) >= 0


def test_the_model_jpeg_carries_no_metadata_of_the_original() -> None:
    body = encoded(photo(), "JPEG", comment=b"secret", exif=b"Exif\0\0" + Image.Exif().tobytes(), icc_profile=b"x" * 99)
    assert set(model_image(body).info) <= {
        "jfif",
        "jfif_version",
        "jfif_unit",
        "jfif_density",
        "progressive",
        "progression",
    }


def test_a_small_image_is_not_enlarged() -> None:
    facts, _ = decode(jpeg(size=(64, 48)))
    assert (facts.model_width_px, facts.model_height_px) == (64, 48)


@pytest.mark.parametrize(
    ("size", "fitted"),
    [((4000, 3000), (512, 384)), ((300, 5000), (31, 512)), ((512, 512), (512, 512)), ((1, 1), (1, 1))],
)
def test_an_image_is_fitted_with_its_aspect_kept(size: tuple[int, int], fitted: tuple[int, int]) -> None:
    assert fit_within(*size, 512) == fitted


@given(st.integers(1, 10**6), st.integers(1, 10**6))
def test_a_fitted_image_is_never_empty_nor_larger(width: int, height: int) -> None:
    fitted = fit_within(width, height, 512)
    assert all(1 <= now <= min(before, 512) for now, before in zip(fitted, (width, height), strict=True))


@pytest.mark.parametrize("size", [(20, 20), (27, 500), (500, 27), (1, 1), (2000, 100)])
def test_an_image_too_narrow_for_the_vision_model_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ImageTooSmallError, match="at least 28"):
        decode(encoded(Image.new("RGB", size), "PNG"))


def test_the_smallest_image_that_a_vision_model_reads_is_taken() -> None:
    assert decode(jpeg(size=(28, 28)))[0].width_px == 28


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP"])
def test_exif_orientation_is_applied(orientation: int, image_format: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    body = encoded(photo(), image_format, exif=exif)
    facts, small = decode(body)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(body)))
    assert (facts.width_px, facts.height_px) == upright.size
    wanted = np.asarray(upright.convert("RGB").resize((facts.model_width_px, facts.model_height_px)), dtype=float)
    assert np.abs(np.asarray(Image.open(io.BytesIO(small)), dtype=float) - wanted).mean() < 5


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # Pillow says that the EXIF is corrupt, and goes on
def test_damaged_exif_is_ignored() -> None:
    body = encoded(photo(), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\xff" * 40)
    assert decode(body)[0].width_px == 640


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
@pytest.mark.parametrize("image_format", ["PNG", "WEBP"])
def test_alpha_is_put_onto_white(mode: str, image_format: str) -> None:
    image = Image.new("RGBA", (800, 800), (0, 0, 0, 0))
    ImageDraw.Draw(image).rectangle((400, 0, 799, 799), fill=(0, 0, 0, 255))
    small = model_image(encoded(image.convert(mode), image_format, lossless=True))
    assert is_near(pixel(small, 60, 256), (255, 255, 255))
    assert is_near(pixel(small, 450, 256), (0, 0, 0))


def test_half_transparent_colour_is_mixed_with_white() -> None:
    assert is_near(
        pixel(model_image(encoded(Image.new("RGBA", (64, 64), (255, 0, 0, 128)), "PNG")), 9, 9), (254, 127, 127)
    )


@pytest.mark.parametrize("image_format", ["PNG", "GIF"])
def test_a_palette_image_with_transparency_is_put_onto_white(image_format: str) -> None:
    image = Image.new("P", (100, 100), 0)
    image.putpalette([0, 0, 0, 0, 128, 0])
    image.paste(1, (50, 0, 100, 100))
    small = model_image(encoded(image, image_format, transparency=0))
    assert is_near(pixel(small, 20, 50), (255, 255, 255))
    assert is_near(pixel(small, 80, 50), (0, 128, 0))


def test_a_transparent_colour_of_an_rgb_png_is_put_onto_white() -> None:
    body = encoded(Image.new("RGB", (64, 64), (1, 2, 3)), "PNG", transparency=(1, 2, 3))
    assert is_near(pixel(model_image(body), 9, 9), (255, 255, 255))


@pytest.mark.parametrize(("mode", "colour"), [("1", 1), ("L", 200), ("P", 0), ("CMYK", (0, 255, 255, 0))])
def test_other_colour_modes_become_rgb(mode: str, colour: int | tuple[int, ...]) -> None:
    image = Image.new(mode, (64, 64), colour)
    small = model_image(encoded(image, "JPEG" if mode == "CMYK" else "PNG"))
    assert small.mode == "RGB"
    assert is_near(pixel(small, 9, 9), pixel(image.convert("RGB"), 9, 9))


def test_sixteen_bits_of_grey_are_scaled_and_not_cut_off() -> None:
    grey = np.full((64, 64), 32_768, dtype=np.uint16)
    assert is_near(pixel(model_image(encoded(Image.fromarray(grey), "PNG")), 9, 9), (128, 128, 128))


def test_the_first_frame_of_an_animation_is_taken() -> None:
    first, second = Image.new("RGB", (64, 64), "red"), Image.new("RGB", (64, 64), "blue")
    for image_format in ("GIF", "WEBP", "PNG"):
        body = encoded(first, image_format, save_all=True, append_images=[second])
        assert is_near(pixel(model_image(body), 9, 9), (254, 0, 0))


def test_near_identical_images_have_near_hashes_and_others_have_not() -> None:
    original = decode(encoded(photo(1000, 750), "PNG"))[0]
    again = decode(encoded(photo(1000, 750).resize((700, 525)), "JPEG", quality=60))[0]
    other = decode(encoded(Image.effect_noise((1000, 750), 90), "PNG"))[0]

    def distance(one: str, two: str) -> int:
        return (int(one, 16) ^ int(two, 16)).bit_count()

    assert distance(original.phash, again.phash) <= 4
    assert distance(original.phash, other.phash) > 12


def test_decoding_the_same_bytes_twice_gives_the_same() -> None:
    body = encoded(photo(1500, 1100), "WEBP")
    assert decode(body) == decode(body)


@pytest.mark.parametrize("image_format", FORMATS)
@pytest.mark.parametrize("kept", [0.02, 0.5, 0.9])
def test_an_image_that_is_cut_off_is_invalid(image_format: str, kept: float) -> None:
    body = encoded(Image.effect_noise((400, 300), 80).convert("RGB"), image_format)
    with pytest.raises(InvalidImageError):
        decode(body[: int(len(body) * kept)])


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "not an image"),
        (b"hello", "not an image"),
        (b"\n <!DOCTYPE html><title>Not found</title>", "HTML or XML"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "HTML or XML"),
        (encoded(Image.new("RGB", (64, 64)), "TIFF"), "TIFF"),
        (b"\0\0\0\x20ftypavif" + bytes(40), "AVIF"),
        (b"%PDF-1.7", "not an image"),
        (b"RIFF\0\0\0\0WAVEfmt ", "damaged"),
    ],
)
def test_what_is_not_an_image_is_invalid(body: bytes, message: str) -> None:
    with pytest.raises(InvalidImageError, match=message):
        decode(body)


@pytest.mark.parametrize("name", BOMBS)
def test_a_decompression_bomb_is_refused_by_its_header(name: str) -> None:
    with pytest.raises(ImageTooLargeError):
        decode(BOMBS[name])


def test_bombs_take_less_than_100_mb_and_warn_of_nothing() -> None:
    script = """
import resource, sys
from PIL import Image
import test_image_decoding as bombs
from labeling_assets.services.images.decoding import decode
decode(bombs.jpeg())
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for body in bombs.BOMBS.values():
    try:
        decode(body)
    except bombs.ImageTooLargeError:
        pass
assert Image.MAX_IMAGE_PIXELS == 89478485
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run(
        [sys.executable, "-W", "always", "-c", script],
        cwd=__file__.rpartition("/")[0],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stderr == ""
    assert int(done.stdout) < 100_000  # kilobytes


def test_a_thumbnail_takes_a_few_kilobytes() -> None:
    small = thumbnail(decode(encoded(photo(2000, 1500), "JPEG"))[1], 96)
    assert Image.open(io.BytesIO(small)).size == (96, 72)
    assert len(small) < 5000


SEEDS = [encoded(photo(90, 60), image_format) for image_format in FORMATS] + [
    encoded(photo(90, 60), "JPEG", progressive=True, exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0"),
    encoded(photo(90, 60).convert("P"), "PNG", transparency=3),
    encoded(photo(90, 60).convert("RGBA"), "WEBP", lossless=True),
    encoded(photo(90, 60).quantize(16), "BMP"),
]


@given(st.binary(max_size=400), st.sampled_from([seed[:12] for seed in SEEDS]))
def test_random_bytes_only_ever_raise_an_image_error(body: bytes, start: bytes) -> None:
    for content in (body, start + body):
        with pytest.raises(ImageError):
            decode(content)


@settings(max_examples=600, deadline=None)
@given(
    st.sampled_from(SEEDS),
    st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=8),
    st.one_of(st.none(), st.integers(0, 10**6)),
    st.booleans(),
)
def test_a_damaged_image_is_decoded_or_raises_an_image_error(
    body: bytes, changes: list[tuple[int, int]], cut: int | None, is_in_header: bool
) -> None:
    damaged = bytearray(body)
    for place, value in changes:
        damaged[place % (min(100, len(damaged)) if is_in_header else len(damaged))] = value
    try:
        facts, small = decode(bytes(damaged if cut is None else damaged[: cut % len(damaged)]))
    except ImageError:
        return
    assert facts.model_size_bytes == len(small)


@given(width=st.integers(28, 512), height=st.integers(28, 512), edge_px=st.integers(0, 600))
def test_a_model_image_is_decoded_smaller_only_as_long_as_both_edges_suffice(
    width: int, height: int, edge_px: int
) -> None:
    small = decoding.model_image(jpeg(size=(width, height)), edge_px)
    assert small.width >= min(edge_px, width)
    assert small.height >= min(edge_px, height)
    assert (small.size != (width, height)) == (0 < 2 * edge_px <= min(width, height))
