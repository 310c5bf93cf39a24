"""Draws a sample of images in which every kind of product is represented, the same one every time.

What is compared on such a sample holds for the catalogue: a plain sample of a shop that sells mugs says nothing of its
blankets. Where the images come from is in `services/comparison.py`.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class SampledImage:
    """An image that may be drawn.

    Attributes:
        sha256: Of its bytes, hex; its name in the image store.
        stratum: The kind of product that it stands for.
        title: Title of a product that shows it.
        url: Where that product has it from.
    """

    sha256: str
    stratum: str
    title: str
    url: str


def stratified_sample(images: Iterable[SampledImage], size: int, seed: int) -> list[SampledImage]:
    """At most `size` distinct images, each stratum in proportion and represented while the size allows it.

    The order in which images come does not matter. Within a stratum, images are taken in the order of a digest of seed
    and name, so that a larger sample holds nearly all of a smaller one, whose labels are not paid for again.

    Args:
        images: All that there are; of several with one name, the least in the order of their values counts.
        size: At least 0.
        seed: Another one draws another sample.
    """
    distinct: dict[str, SampledImage] = {}
    for image in images:
        known = distinct.get(image.sha256)
        if known is None or _values(image) < _values(known):
            distinct[image.sha256] = image
    strata: dict[str, list[SampledImage]] = defaultdict(list)
    for image in distinct.values():
        strata[image.stratum].append(image)
    shares = allocate({name: len(members) for name, members in strata.items()}, size)
    return [
        image
        for name, members in sorted(strata.items())
        for image in sorted(members, key=lambda image: _draw(seed, image.sha256))[: shares[name]]
    ]


def allocate(sizes: Mapping[str, int], total: int) -> dict[str, int]:
    """How many of `total` each stratum gets: one each, the largest first, and the rest by the largest remainder.

    Args:
        sizes: Members of each stratum, at least 1.
        total: What is shared out; a stratum never gets more than it has.
    """
    total = min(total, sum(sizes.values()))
    largest_first = sorted(sizes, key=lambda name: (-sizes[name], name))
    shares = {name: int(place < total) for place, name in enumerate(largest_first)}
    rest, room = total - sum(shares.values()), {name: sizes[name] - shares[name] for name in largest_first}
    open_places = sum(room.values())
    if rest <= 0 or not open_places:
        return shares
    parts = {name: divmod(rest * room[name], open_places) for name in largest_first}
    for name, (whole, _) in parts.items():
        shares[name] += whole
    left = total - sum(shares.values())
    for name in sorted(largest_first, key=lambda name: (-parts[name][1], name))[:left]:
        shares[name] += 1
    return shares


def _values(image: SampledImage) -> tuple[str, str, str]:
    return image.stratum, image.title, image.url


def _draw(seed: int, sha256: str) -> str:
    return hashlib.sha256(f"{seed}/{sha256}".encode()).hexdigest()
