"""Plans the labeling of days: reads what PostgreSQL knows of their rows, images and labels, and estimates the rest.

Nothing is fetched and no model is asked about an image. The arithmetic is in `products/plan.py`. A day is in memory at
a time, and the keys of the images of all days.
"""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from labeling_assets.errors import ConfigurationError, ServiceUnavailableError
from labeling_assets.products.dedupe import distinct_products
from labeling_assets.products.label_versions import LabelVersion
from labeling_assets.products.labels import SCHEMA_VERSION
from labeling_assets.products.plan import DayImages, DayPlan, LabelUse, estimate, total_of
from labeling_assets.products.prompt import PROMPT_VERSION
from labeling_assets.products.raw import raw_products
from labeling_assets.services.connect import Services
from labeling_assets.services.images.history import ImageHistory
from labeling_assets.services.ledger_use import LedgerUse
from labeling_assets.services.vision import VisionModel
from labeling_assets.settings import Settings

LOOK_UP_URLS = 1_000


@dataclass(frozen=True)
class Plan:
    """What labeling some days would take.

    Attributes:
        version: Model, prompt and schema in use.
        problem: Why the model's digest is not known; empty where it is. Ledger hits are then counted by its name.
        slots: Requests that the model servers serve at once; where that is to be found, one for each server.
        are_slots_known: Whether they are set.
        use: What an image has taken so far; None where no label was ever made.
        has_prices: Whether anything costs anything.
        days: Each day.
        total: Their sums, without a day of its own.
    """

    version: LabelVersion
    problem: str
    slots: int
    are_slots_known: bool
    use: LabelUse | None
    has_prices: bool
    days: Sequence[DayPlan]
    total: DayPlan


def current_version(model: VisionModel) -> tuple[LabelVersion, str]:
    """What decides the labels made now, and why the model's digest is missing there; empty where it is not.

    The server is asked for its list of models, not about an image.
    """
    try:
        model.check()
        digest, problem = model.digest, ""
    except (ConfigurationError, ServiceUnavailableError) as error:
        digest, problem = "", str(error)
    return LabelVersion(model.name, digest, PROMPT_VERSION, SCHEMA_VERSION), problem


def known_slots(settings: Settings, model: VisionModel) -> tuple[int, bool]:
    """Requests that the model servers serve at once, and whether that is set; if not, one for each server.

    Where the slots are to be found, `model.slots` is the most that is tried, and few servers have so many.
    """
    if settings.vision_slots or not settings.vision_hosts:
        return max(model.slots, 1), True
    return len(set(settings.vision_hosts)), False


def plan_days(settings: Settings, first: dt.date, last: dt.date) -> Plan:
    """Plan the days from `first` to `last`, both included.

    Args:
        settings: With all addresses filled in.
        first: First day.
        last: Last day, not before the first.

    Raises:
        ConfigurationError: The range is empty, or the source table or a column is missing.
        ServiceUnavailableError: PostgreSQL does not answer.
    """
    if first > last:
        raise ConfigurationError(f"{first} is after {last}.", "Give --start and --end in the order of time.")
    services = Services(settings)
    model = services.vision_model
    version, problem = current_version(model)
    ledger = LedgerUse(services.product_database.engine)
    use, prices = ledger.seen(version.key), settings.prices
    slots, are_slots_known = known_slots(settings, model)
    days = [first + dt.timedelta(days=number) for number in range((last - first).days + 1)]
    contents = list(_DayReader(services, ledger, version).read(days))
    plans = [
        DayPlan(day, content, estimate(content.to_label, use, slots, prices))
        for day, content in zip(days, contents, strict=True)
    ]
    total = total_of(contents)
    return Plan(
        version=version,
        problem=problem,
        slots=slots,
        are_slots_known=are_slots_known,
        use=use,
        has_prices=any(vars(prices).values()),
        days=plans,
        total=DayPlan(last, total, estimate(total.to_label, use, slots, prices)),
    )


class _DayReader:
    """Counts the images of days, one day after the other, each image once."""

    def __init__(self, services: Services, ledger: LedgerUse, version: LabelVersion) -> None:
        self._database = services.product_database
        self._history = ImageHistory(self._database.engine)
        self._ledger = ledger
        self._version = version
        self._seen: set[str] = set()

    def read(self, days: Sequence[dt.date]) -> Iterator[DayImages]:
        return map(self._read_day, days)

    def _read_day(self, day: dt.date) -> DayImages:
        rows, products, urls = self._urls(day)
        shas: set[str] = set()
        unknown: set[str] = set()
        unusable = 0
        ordered = sorted(urls)
        for start in range(0, len(ordered), LOOK_UP_URLS):
            batch = ordered[start : start + LOOK_UP_URLS]
            known = self._history.look_up(batch)
            for url in batch:
                remembered = known.get(url)
                if remembered and remembered.sha256:
                    shas.add(remembered.sha256)
                elif remembered and remembered.error:
                    unusable += 1
                else:
                    unknown.add(url)
        new_shas, new_urls = shas - self._seen, unknown - self._seen
        self._seen |= new_shas | new_urls
        hits = self._ledger.known(sorted(new_shas), self._version.key)
        return DayImages(
            rows=rows,
            products=products,
            images=len(shas) + len(unknown) + unusable,
            never_fetched=len(unknown),
            unusable=unusable,
            of_earlier_days=len(shas) + len(unknown) - len(new_shas) - len(new_urls),
            ledger_hits=len(hits),
            to_label=len(new_shas) - len(hits) + len(new_urls),
        )

    def _urls(self, day: dt.date) -> tuple[int, int, set[str]]:
        """Rows of a day, distinct products, and the image URLs that a run would fetch."""
        with self._database.snapshot() as snapshot:
            rows = itertools.chain.from_iterable(self._database.crawl_day(snapshot, day))
            records, failures = raw_products(rows, self._database.zone)
        products = distinct_products(records)
        return len(records) + len(failures), len(products), {row.image.strip() for row, _ in products.values()}
