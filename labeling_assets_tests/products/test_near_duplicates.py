"""The index of hashes in memory, and groups as stars, against what a full comparison finds."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labeling_assets.products.near_duplicates import Group, HashIndex, Near, probe_masks, star_groups
from labeling_assets.products.perceptual_hash import distance, is_flat

FLAT = "8000000000000000"
BASE = 0x0F0F_3C3C_5A5A_9696
HASHES = st.integers(0, 2**64 - 1).map(lambda number: f"{number:016x}")
BITS = st.integers(0, 7)


def flipped(number: int, *bits: int) -> str:
    for bit in bits:
        number ^= 1 << bit
    return f"{number:016x}"


@st.composite
def near_hashes(draw: st.DrawFn) -> list[str]:
    """Hashes of which many are near one another."""
    bases = draw(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=3))
    flips = st.lists(st.integers(0, 63), max_size=8, unique=True)
    return [flipped(draw(st.sampled_from(bases)), *draw(flips)) for _ in range(draw(st.integers(1, 12)))]


def named(hashes: list[str]) -> dict[str, str]:
    return {f"image {number:02}": phash for number, phash in enumerate(hashes)}


def full_comparison(images: dict[str, str], phash: str, bits: int) -> Near | None:
    near = [Near(distance(phash, other), name) for name, other in images.items() if not is_flat(other)]
    return min((each for each in near if each.distance <= bits and not is_flat(phash)), default=None)


@given(near_hashes(), HASHES, BITS)
def test_the_index_finds_what_a_full_comparison_finds(hashes: list[str], stranger: str, bits: int) -> None:
    images, index = named(hashes), HashIndex(bits)
    for name, phash in images.items():
        index.add(name, phash)
    for phash in [*hashes, stranger]:
        assert index.nearest(phash) == full_comparison(images, phash, bits)


@pytest.mark.parametrize("bits", range(8))
def test_every_way_of_differing_in_so_many_bits_is_found(bits: int) -> None:
    chance, index = random.Random(bits), HashIndex(bits)
    index.add("image", f"{BASE:016x}")
    for _ in range(500):
        assert index.nearest(flipped(BASE, *chance.sample(range(64), bits))) == Near(bits, "image")
        assert index.nearest(flipped(BASE, *chance.sample(range(64), bits + 1))) is None


@given(near_hashes(), BITS)
def test_groups_are_stars_that_hold_every_image_with_a_near_one_once(hashes: list[str], bits: int) -> None:
    images = named(hashes)
    groups = star_groups(images, bits)
    grouped = [name for group in groups for name in (group.representative, *(near.sha256 for near in group.members))]
    assert len(grouped) == len(set(grouped))
    assert groups == star_groups(dict(images), bits)
    for group in groups:
        assert group.members
        for near in group.members:
            assert near.distance == distance(images[group.representative], images[near.sha256]) <= bits
    lonely = [phash for name, phash in images.items() if name not in grouped and not is_flat(phash)]
    assert all(distance(one, other) > bits for one, other in itertools.combinations(lonely, 2))


def test_a_chain_of_small_steps_does_not_join_its_ends() -> None:
    chain = [flipped(BASE, *range(5 * step)) for step in range(4)]
    assert star_groups(named(chain), 5) == [
        Group("image 00", (Near(5, "image 01"),)),
        Group("image 02", (Near(5, "image 03"),)),
    ]


def test_an_image_joins_the_nearest_representative() -> None:
    images = named([flipped(BASE), flipped(BASE, *range(6)), flipped(BASE, *range(9))])
    assert star_groups(images, 6) == [Group("image 02", (Near(3, "image 01"),))]


def test_blank_pictures_are_near_nothing() -> None:
    images = {f"blank {number}": FLAT for number in range(9)} | {"nearly": "8000000000000001"}
    assert star_groups(images, 7) == []


@pytest.mark.parametrize("bits", [-1, 8])
def test_more_bits_than_the_bands_can_find_are_refused(bits: int) -> None:
    with pytest.raises(ValueError, match="0 to 7"):
        probe_masks(bits)
