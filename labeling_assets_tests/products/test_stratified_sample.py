"""The sample: every kind of product in it, the same one every time, never more than there is."""

from __future__ import annotations

import itertools
import random
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from labeling_assets.products.stratified_sample import SampledImage, allocate, stratified_sample

SIZES = st.dictionaries(st.text(max_size=3), st.integers(1, 30), max_size=8)


def images(**sizes: int) -> list[SampledImage]:
    return [
        SampledImage(f"{stratum}{number}", stratum, "", "") for stratum, size in sizes.items() for number in range(size)
    ]


@given(SIZES, st.integers(0, 300))
def test_shares_add_up_and_no_stratum_gives_more_than_it_has(sizes: dict[str, int], total: int) -> None:
    shares = allocate(sizes, total)
    assert shares.keys() == sizes.keys()
    assert sum(shares.values()) == min(total, sum(sizes.values()))
    assert all(0 <= shares[name] <= size for name, size in sizes.items())


@given(SIZES, st.integers(0, 300))
def test_every_stratum_is_represented_while_the_sample_lasts(sizes: dict[str, int], total: int) -> None:
    shares = allocate(sizes, total)
    assert sum(share > 0 for share in shares.values()) == min(total, len(sizes))


@given(SIZES, st.integers(1, 300))
def test_a_larger_stratum_never_gets_less(sizes: dict[str, int], total: int) -> None:
    shares = allocate(sizes, total)
    by_size = sorted(sizes, key=lambda name: sizes[name])
    assert all(shares[small] <= shares[large] + 1 for small, large in itertools.pairwise(by_size))


def test_a_sample_has_one_of_each_and_the_rest_in_proportion() -> None:
    drawn = stratified_sample(images(mug=81, shirt=16, plaque=3), 20, seed=1)
    assert Counter(image.stratum for image in drawn) == {"mug": 15, "shirt": 4, "plaque": 1}


@given(st.integers(0, 2**32), st.integers(0, 40))
def test_the_same_seed_draws_the_same_images_in_whatever_order_they_come(seed: int, size: int) -> None:
    all_images = images(mug=20, shirt=9, plaque=2)
    shuffled = random.Random(seed).sample(all_images, len(all_images))
    assert stratified_sample(shuffled, size, 5) == stratified_sample(all_images, size, 5)


def test_another_seed_draws_others() -> None:
    all_images = images(mug=50)
    assert stratified_sample(all_images, 10, 1) != stratified_sample(all_images, 10, 2)


def test_a_larger_sample_holds_a_smaller_one_of_one_stratum() -> None:
    all_images = images(mug=50)
    assert set(stratified_sample(all_images, 10, 1)) <= set(stratified_sample(all_images, 20, 1))


def test_an_image_of_several_products_is_drawn_once() -> None:
    twice = [SampledImage("a", "mug", "second", "u"), SampledImage("a", "mug", "first", "u")]
    for order in (twice, twice[::-1]):
        assert stratified_sample(order, 5, 0) == [SampledImage("a", "mug", "first", "u")]
