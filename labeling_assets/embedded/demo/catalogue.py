"""Builds the demo catalogue as data; nothing is drawn or written, see `catalogue_folder.py` and `source_table.py`.

A day's rows follow from the seed and the calendar day alone, so a catalogue that ends a day later holds the same rows
for the days that both have.
"""

from __future__ import annotations

import datetime as dt

from labeling_assets.embedded.demo.contents import Catalogue, CatalogueIdentity
from labeling_assets.embedded.demo.merchandise import design_merchandise
from labeling_assets.embedded.demo.shop import Shop, stable_random
from labeling_assets.embedded.demo.traps import add_traps


def build_catalogue(
    seed: int = 7,
    days: int = 7,
    products_per_day: int = 40,
    *,
    last_day: dt.date,
    timezone: str = "Asia/Ho_Chi_Minh",
    image_reuse: float = 0.25,
    has_traps: bool = True,
) -> Catalogue:
    """The demo catalogue of `days` days up to and including `last_day`.

    Args:
        seed: Another seed gives other products.
        days: Number of business days.
        products_per_day: Ordinary products a day; the rows of the traps come on top.
        last_day: Last business day.
        timezone: IANA name of the business time zone.
        image_reuse: Share of products that show a picture of a common stock of best sellers.
        has_traps: Whether to add the traps; each is there at least once however few the days are.

    Raises:
        ValueError: A number is out of range.
    """
    if days < 1 or products_per_day < 1 or not 0 <= image_reuse <= 1:
        msg = "days and products_per_day must be at least 1, and image_reuse between 0 and 1"
        raise ValueError(msg)
    identity = CatalogueIdentity(seed, last_day, days, products_per_day, timezone, image_reuse, has_traps)
    catalogue = Catalogue(identity)
    stock_size = max(8, products_per_day // 5)
    stock = [design_merchandise(stable_random(seed, "best seller", number)) for number in range(stock_size)]
    for day in catalogue.days:
        shop = Shop(catalogue, day, stable_random(seed, day, "shop"))
        for number in range(products_per_day):
            merchandise = shop.best_seller(stock) if shop.rng.random() < image_reuse else design_merchandise(shop.rng)
            shop.sell(merchandise, number)
        if has_traps:
            add_traps(shop, slots=min(days, 7))
    return catalogue
