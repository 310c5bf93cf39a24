"""A day's shop: adds ordinary rows and images, and the rows of traps, to a catalogue."""

from __future__ import annotations

import datetime as dt
import random
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from labeling_assets.embedded.demo.contents import LINK_PREFIX, Catalogue, HostedImage, SourceRow, Trap
from labeling_assets.embedded.demo.encoding import CONTENT_TYPES, Recipe
from labeling_assets.embedded.demo.merchandise import Merchandise, title_of, truth_of

_STORES: tuple[tuple[str | None, str], ...] = (
    ("GiftHaven", "gifthaven"),
    ("PawPrints & Co.", "pawprints"),
    ("Maple + Pine", "maple-pine"),
    ("The Daily Mug", "daily-mug"),
    ("Lucky Clover Gifts", "lucky-clover"),
    ("Nhà Quà Xinh", "nha-qua-xinh"),
    ("Tiệm Mít", "tiem-mit"),
    ("O'Malley's Prints", "omalleys"),
    (None, "no-name"),
)
_PLATFORMS = ("Etsy", "Etsy", "Amazon", "Shopify", "Shopify", "TikTok Shop", "Shopee", "eBay", None)
_COUNTERS = ("clicks", "unique_clicks", "unique_atc", "impression", "reach", "quantity")


def stable_random(*seeds: object) -> random.Random:
    """A generator that is the same for the same seeds on every machine and Python version."""
    return random.Random("/".join(map(str, seeds)))  # noqa: S311 - a catalogue, not a secret


class Shop:
    """Adds the rows and images of one day to a catalogue."""

    def __init__(self, catalogue: Catalogue, day: dt.date, rng: random.Random) -> None:
        self.catalogue = catalogue
        self.day = day
        self.rng = rng
        self.zone = ZoneInfo(catalogue.identity.timezone)

    def best_seller(self, stock: list[Merchandise]) -> Merchandise:
        """One of the stock, the first ones more often."""
        return stock[min(int(self.rng.expovariate(4 / len(stock))), len(stock) - 1)]

    def sell(self, merchandise: Merchandise, number: int) -> None:
        """Add an ordinary product."""
        self.add_row(self.ordinary_id(number), self.host(merchandise), merchandise)

    def ordinary_id(self, number: int) -> str:
        """A product id in one of the styles of the platforms."""
        serial = self.day.toordinal() * 100_000 + number
        return self.rng.choices((str(serial), f"SKU-{serial:X}", f"gid_{serial}_{number % 7}"), (7, 2, 1))[0]

    def host(
        self,
        merchandise: Merchandise,
        recipe: Recipe | None = None,
        variant: str = "",
        **answer: Any,  # noqa: ANN401 - fields of HostedImage
    ) -> str:
        """Put an image of a product on the host and return its path; a `variant` is another URL of the same bytes."""
        recipe = recipe or merchandise.recipe
        suffix = "jpg" if recipe.form == "html" else recipe.file_type
        path = f"images/{recipe.name}{'-' if variant else ''}{variant}.{suffix}"
        answer = {"content_type": CONTENT_TYPES[recipe.file_type], "truth": truth_of(merchandise)} | answer
        self.catalogue.images[path] = HostedImage(recipe, **answer)
        return path

    def add_row(
        self,
        product_id: str | None,
        image: str | None,
        merchandise: Merchandise,
        published_at: dt.datetime | None = None,
    ) -> SourceRow:
        """Add a row with plausible values."""
        store, slug = self.rng.choice(_STORES)
        slug = f"{slug}/products/{merchandise.photo.design.motif}-{merchandise.photo.product}"
        row = SourceRow(
            product_id=product_id,
            image=image,
            published_at=published_at or self.time_of_day(),
            title=title_of(merchandise, self.rng) if self.rng.random() > 0.02 else None,
            store=store,
            gp_code=self.rng.choice(_PLATFORMS),
            link=f"{LINK_PREFIX}{slug}-{self.rng.randrange(10**9)}?utm_source=demo",
            **marketing(self.rng),
        )
        self.catalogue.rows.append(row)
        return row

    def add_trap(self, name: str, expected: str, row_count: int = 1) -> None:
        """Tell that the last rows are a trap."""
        rows = self.catalogue.rows
        numbers = tuple(range(len(rows) - row_count, len(rows)))
        product_ids = tuple(rows[number].product_id for number in numbers)
        self.catalogue.traps.append(Trap(name, self.day, product_ids, numbers, expected))

    def start(self) -> dt.datetime:
        """First moment of the day, in UTC."""
        return dt.datetime.combine(self.day, dt.time(), self.zone).astimezone(dt.UTC)

    def end(self) -> dt.datetime:
        """First moment of the next day, in UTC."""
        return dt.datetime.combine(self.day + dt.timedelta(days=1), dt.time(), self.zone).astimezone(dt.UTC)

    def time_of_day(self) -> dt.datetime:
        """A time well inside the day, in UTC, to the microsecond."""
        span = (self.end() - self.start()) / dt.timedelta(microseconds=1)
        return self.start() + dt.timedelta(microseconds=int(span * self.rng.triangular(0.02, 0.98, 0.6)))


def marketing(rng: random.Random) -> dict[str, Any]:
    """Plausible spend and counters: each counter a share of the one before; some rows have none yet."""
    if rng.random() < 0.06:
        return {"spend": None} | dict.fromkeys(_COUNTERS)
    impression = int(rng.lognormvariate(8.6, 1.3)) + 12
    reach = int(impression * rng.uniform(0.6, 0.95))
    clicks = int(impression * rng.uniform(0.004, 0.05))
    unique_clicks = int(clicks * rng.uniform(0.7, 1.0))
    unique_atc = int(unique_clicks * rng.uniform(0.0, 0.3))
    values: dict[str, Any] = {
        "spend": Decimal(round(impression * rng.uniform(0.4, 1.4))) / 100,
        "clicks": clicks,
        "unique_clicks": unique_clicks,
        "unique_atc": unique_atc,
        "impression": impression,
        "reach": reach,
        "quantity": int(unique_atc * rng.uniform(0.0, 0.6)),
    }
    if rng.random() < 0.05:
        values[rng.choice(tuple(values))] = None
    return values
