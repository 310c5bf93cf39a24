"""The demo catalogue as data: rows of the source table, the images they name, the truth of each, and the traps.

A day's rows follow from the seed and the calendar day alone, so a catalogue that ends a day later holds the same rows for
the days that both have. Nothing here draws or writes; see `catalogue_folder.py` and `source_table.py`.
"""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from labeling_assets.embedded.demo.drawing import DRAWING_VERSION
from labeling_assets.embedded.demo.encoding import CONTENT_TYPES, Form, Recipe
from labeling_assets.embedded.demo.merchandise import Merchandise, Truth, design_merchandise, title_of, truth_of

LINK_PREFIX = "https://labeling-demo.example/"
"""Every demo row's link begins so and no other row's can: `.example` is reserved (RFC 2606)."""
NOT_CRAWLED = "not crawled"
LABELED = "labeled"
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


@dataclass(frozen=True)
class SourceRow:
    """One row of the source table; `image` is a path on the image host, an absolute URL, blank or None."""

    product_id: str | None
    image: str | None
    published_at: dt.datetime
    title: str | None
    store: str | None
    gp_code: str | None
    link: str
    spend: Decimal | None
    clicks: int | None
    unique_clicks: int | None
    unique_atc: int | None
    impression: int | None
    reach: int | None
    quantity: int | None


@dataclass(frozen=True)
class HostedImage:
    """What the image host answers for one path.

    Attributes:
        recipe: What makes the body; None where there is none.
        content_type: Content-Type of the answer, be it true or not.
        status: 200, 404 …; 302 redirects to `location`.
        first_status: Status of the first answer after a start, such as 503; None for `status` at once.
        location: Path that a redirect leads to.
        truth: The label fields as the maker knows them; None where nothing can be labeled.
    """

    recipe: Recipe | None
    content_type: str
    status: int = 200
    first_status: int | None = None
    location: str | None = None
    truth: Truth | None = None


@dataclass(frozen=True)
class Trap:
    """Something that real catalogues contain and that must end in a known way.

    Attributes:
        name: What it is.
        day: Business day of its rows.
        product_ids: Product ids of its rows as in the source, in row order.
        expected: LABELED, NOT_CRAWLED, or the name of a class in errors.py.
    """

    name: str
    day: dt.date
    product_ids: tuple[str | None, ...]
    expected: str


@dataclass(frozen=True)
class CatalogueIdentity:
    """What decides a catalogue."""

    seed: int
    last_day: dt.date
    days: int
    products_per_day: int
    timezone: str
    image_reuse: float
    has_traps: bool
    drawing_version: int = DRAWING_VERSION


@dataclass
class Catalogue:
    """The demo catalogue.

    Attributes:
        identity: What decides it.
        rows: Rows of the source table, oldest day first.
        images: What the image host serves, by path such as `images/mug-0a1b2c.jpg`.
        traps: The traps among the rows.
    """

    identity: CatalogueIdentity
    rows: list[SourceRow] = field(default_factory=list)
    images: dict[str, HostedImage] = field(default_factory=dict)
    traps: list[Trap] = field(default_factory=list)

    @property
    def days(self) -> list[dt.date]:
        """The business days, oldest first."""
        last = self.identity.last_day
        return [last - dt.timedelta(days=back) for back in reversed(range(self.identity.days))]

    def truth_of(self, row: SourceRow) -> Truth | None:
        """The label fields of a row's image, redirects followed; None where nothing can be labeled."""
        image = self.images.get(row.image or "")
        if image is not None and image.location is not None:
            image = self.images[image.location]
        return image.truth if image is not None else None

    def trap(self, name: str) -> Trap:
        """The first trap of a name.

        Raises:
            KeyError: There is none.
        """
        for trap in self.traps:
            if trap.name == name:
                return trap
        raise KeyError(name)


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
    from labeling_assets.embedded.demo.traps import add_traps

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

    def sell(self, merchandise: Merchandise, number: int) -> SourceRow:
        """Add an ordinary product."""
        form: Form = self.rng.choices(("jpeg", "webp", "png"), (90, 6, 4))[0]
        # The stock's pictures must not differ between rows, so form and quality follow from the picture.
        picture = stable_random(merchandise.photo.name)
        recipe = Recipe(merchandise.photo, form if form == "jpeg" else "jpeg", picture.choice((82, 86, 90)))
        if picture.random() < 0.1:
            recipe = Recipe(merchandise.photo, picture.choice(("webp", "png")), 84)
        path = self.host(recipe, merchandise)
        return self.add_row(self.ordinary_id(number), path, merchandise)

    def ordinary_id(self, number: int) -> str:
        """A product id in one of the styles of the platforms."""
        serial = self.day.toordinal() * 100_000 + number
        return self.rng.choices((str(serial), f"SKU-{serial:X}", f"gid_{serial}_{number % 7}"), (7, 2, 1))[0]

    def host(self, recipe: Recipe, merchandise: Merchandise | None, variant: str = "", **answer: Any) -> str:  # noqa: ANN401 - fields of HostedImage
        """Put an image on the host and return its path; a `variant` makes another URL of the same bytes."""
        stem = merchandise.photo.name if merchandise else "file"
        parts = [stem, *([recipe.form.replace(" ", "-")] if " " in recipe.form else []), *([variant] if variant else [])]
        suffix = "jpg" if recipe.form == "html" else recipe.file_type
        path = f"images/{'-'.join(parts)}.{suffix}"
        answer.setdefault("content_type", CONTENT_TYPES[recipe.file_type])
        answer.setdefault("truth", truth_of(merchandise) if merchandise else None)
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
        slug_of_title = "-".join(merchandise.photo.design.motif.split())
        number = self.rng.randrange(10**9)
        row = SourceRow(
            product_id=product_id,
            image=image,
            published_at=published_at or self.time_of_day(),
            title=title_of(merchandise, self.rng) if self.rng.random() > 0.02 else None,
            store=store,
            gp_code=self.rng.choice(_PLATFORMS),
            link=f"{LINK_PREFIX}{slug}/products/{slug_of_title}-{merchandise.photo.product}-{number}?utm_source=demo",
            **marketing(self.rng),
        )
        self.catalogue.rows.append(row)
        return row

    def add_trap(self, name: str, expected: str, rows: list[SourceRow]) -> None:
        """Tell that rows of this day are a trap."""
        self.catalogue.traps.append(Trap(name, self.day, tuple(row.product_id for row in rows), expected))

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


def images_as_json(catalogue: Catalogue) -> Iterator[tuple[str, dict[str, Any]]]:
    """Path and plain values of each image, for files."""
    for path, image in sorted(catalogue.images.items()):
        yield path, asdict(image)
