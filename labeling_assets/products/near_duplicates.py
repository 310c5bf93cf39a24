"""Near duplicates among images: pictures whose perceptual hashes differ in few bits, and groups of them.

Hashes are found by multi-index hashing (Norouzi, Punjani, Fleet: Fast Search in Hamming Space with Multi-Index Hashing,
CVPR 2012): a hash is cut into four bands of 16 bits. Where two hashes differ in at most seven bits, one of the four
bands differs in at most one bit; so 4 x 17 look-ups find every near duplicate, and of a million hashes that are spread
evenly they touch a thousand. The same holds in PostgreSQL, see `services/near_duplicates.py`.

A group is a star: every member is near its representative. Pictures that are near a member but not the representative
start a group of their own, so that a chain of small steps never joins two different pictures. Flat hashes, of blank
pictures, are near nothing, not even one another.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from labeling_assets.products.perceptual_hash import is_flat

BANDS = 4
BAND_BITS = 16
MAX_BITS = 2 * BANDS - 1
"""Most differing bits for which one of the bands differs in at most one bit."""


@dataclass(frozen=True, order=True)
class Near:
    """An image near another one, in the order of nearness, then of the sha256.

    Attributes:
        distance: Bits of 64 in which the hashes differ.
        sha256: The image.
    """

    distance: int
    sha256: str


@dataclass(frozen=True)
class Group:
    """Near duplicates, two images or more.

    Attributes:
        representative: sha256 of the image that the others are near.
        members: The others, nearest first.
    """

    representative: str
    members: tuple[Near, ...]


def probe_masks(bits: int) -> list[int]:
    """What to flip in a band to meet every hash that differs in at most `bits` bits.

    Raises:
        ValueError: More than seven bits, or fewer than none.
    """
    if not 0 <= bits <= MAX_BITS:
        msg = f"near duplicates differ in 0 to {MAX_BITS} bits, not {bits}"
        raise ValueError(msg)
    return [0] if bits < BANDS else [0, *(1 << bit for bit in range(BAND_BITS))]


class HashIndex:
    """Hashes in memory that answer for one new hash without looking at all.

    Args:
        bits: Bits in which near duplicates differ at most, 0 to 7.
    """

    def __init__(self, bits: int) -> None:
        self._bits = bits
        self._masks = probe_masks(bits)
        self._bands: list[dict[int, list[tuple[int, str]]]] = [defaultdict(list) for _ in range(BANDS)]

    def add(self, sha256: str, phash: str) -> None:
        """Add an image; a flat hash is never found."""
        if not is_flat(phash):
            number = int(phash, 16)
            for values, band in zip(self._bands, _bands(number), strict=True):
                values[band].append((number, sha256))

    def nearest(self, phash: str) -> Near | None:
        """The nearest image within the bits, of equally near ones the first by sha256; None for a flat hash."""
        return None if is_flat(phash) else min(self._found(phash), default=None)

    def _found(self, phash: str) -> Iterator[Near]:
        number = int(phash, 16)
        for values, band in zip(self._bands, _bands(number), strict=True):
            for mask in self._masks:
                for other, sha256 in values.get(band ^ mask, ()):
                    if (bits := (number ^ other).bit_count()) <= self._bits:
                        yield Near(bits, sha256)


def star_groups(images: Mapping[str, str], bits: int) -> list[Group]:
    """The groups among some images, in the order of their representatives.

    An image becomes a representative unless it is near an earlier one; then every other image joins the representative
    that is nearest. The same images in the same order give the same groups.

    Args:
        images: Hash by sha256, the oldest image first.
        bits: Bits in which near duplicates differ at most, 0 to 7.
    """
    index = HashIndex(bits)
    members: dict[str, list[Near]] = {}
    others: list[str] = []
    for sha256, phash in images.items():
        if index.nearest(phash) is None:
            index.add(sha256, phash)
            members[sha256] = []
        else:
            others.append(sha256)
    for sha256 in others:
        near = index.nearest(images[sha256])
        if near is not None:  # it was near a representative before, and still is
            members[near.sha256].append(Near(near.distance, sha256))
    return [Group(sha256, tuple(sorted(near))) for sha256, near in members.items() if near]


def _bands(number: int) -> tuple[int, ...]:
    """The bands of a hash, the highest bits first."""
    return tuple(number >> BAND_BITS * place & 0xFFFF for place in reversed(range(BANDS)))
