"""What the demo catalogue consists of: rows of the source table, the images they name, their truth, and the traps."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field
from decimal import Decimal

from labeling_assets.embedded.demo.drawing import DRAWING_VERSION
from labeling_assets.embedded.demo.encoding import Recipe
from labeling_assets.embedded.demo.merchandise import Truth

LINK_PREFIX = "https://labeling-demo.example/"
"""The link of every demo row begins so and that of no other row can: `.example` is reserved (RFC 2606)."""
NOT_CRAWLED = "not crawled"
LABELED = "labeled"


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
        row_numbers: Their places in `Catalogue.rows`.
        expected: LABELED, NOT_CRAWLED, or the name of a class in errors.py.
    """

    name: str
    day: dt.date
    product_ids: tuple[str | None, ...]
    row_numbers: tuple[int, ...]
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

    def rows_of(self, trap: Trap) -> list[SourceRow]:
        """The rows of a trap."""
        return [self.rows[number] for number in trap.row_numbers]

    def trap(self, name: str) -> Trap:
        """The first trap of a name.

        Raises:
            KeyError: There is none.
        """
        for trap in self.traps:
            if trap.name == name:
                return trap
        raise KeyError(name)
