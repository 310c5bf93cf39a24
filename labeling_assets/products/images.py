"""What the platform knows of an image; how it is fetched, decoded and kept is in `services/images`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ImageFacts:
    """What is known of an image from its bytes.

    Attributes:
        size_bytes: Size as fetched.
        width_px: Width after EXIF rotation.
        height_px: Height after EXIF rotation.
        format: JPEG, PNG, WEBP, GIF or BMP.
        phash: 64-bit perceptual hash of the small image, 16 hex digits.
        model_size_bytes: Size of the JPEG that the models read.
        model_width_px: Its width, at most 512.
        model_height_px: Its height, at most 512.
    """

    size_bytes: int
    width_px: int
    height_px: int
    format: str
    phash: str
    model_size_bytes: int
    model_width_px: int
    model_height_px: int


@dataclass(frozen=True, kw_only=True)
class StoredImage(ImageFacts):
    """An image in the store.

    Attributes:
        sha256: Of the bytes as fetched, hex; the name of the image everywhere.
        path: Where the bytes as fetched are, relative to the root of the store.
        is_downloaded: Whether the bytes came over the network now; False where the host said that they are unchanged.
    """

    sha256: str
    path: str
    is_downloaded: bool
