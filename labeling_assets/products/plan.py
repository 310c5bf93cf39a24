"""What labeling some days would take, from what is known beforehand: calls, tokens, hours and cost. Pure arithmetic.

Where the numbers come from is in `services/plan.py`; prices are in `cost.py`. An estimate is the mean of the labels
seen so far, with the range from the 10th to the 90th percentile of one image: for very many images the sum lies nearer
to the mean than that range tells.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass, fields

from labeling_assets.products.cost import SECONDS_AN_HOUR, Prices


@dataclass(frozen=True)
class Spread:
    """A number that differs from image to image.

    Attributes:
        low: 10th percentile, or the mean where that is lower.
        mean: Mean.
        high: 90th percentile, or the mean where that is higher.
    """

    low: float
    mean: float
    high: float

    @classmethod
    def of(cls, low: float, mean: float, high: float) -> Spread:
        """The spread of two percentiles and a mean, which few large numbers can take beyond them."""
        return cls(min(low, mean), mean, max(high, mean))

    def times(self, factor: float) -> Spread:
        """All three numbers, multiplied."""
        return Spread(self.low * factor, self.mean * factor, self.high * factor)


@dataclass(frozen=True)
class LabelUse:
    """What an image has taken so far.

    Attributes:
        images: Images in the ledger of which this is known.
        source: Whose labels they are, for people.
        calls: Requests an image, mean; more than 1 where replies were asked for again.
        prompt_tokens: Tokens read for an image.
        output_tokens: Tokens written for an image.
        seconds: Time of the model server for an image.
    """

    images: int
    source: str
    calls: float
    prompt_tokens: Spread
    output_tokens: Spread
    seconds: Spread


@dataclass(frozen=True)
class Estimate:
    """What some images would take.

    Attributes:
        calls: Requests to the model, re-asks included.
        prompt_tokens: Tokens read; None where nothing was seen to judge by, as in all that follow.
        output_tokens: Tokens written.
        hours: Time with every slot of the model server busy.
        cost: In the currency of the prices.
    """

    calls: float
    prompt_tokens: Spread | None = None
    output_tokens: Spread | None = None
    hours: Spread | None = None
    cost: Spread | None = None


@dataclass(frozen=True)
class DayImages:
    """What one day has to label. An image of several days counts for the first of them.

    Attributes:
        rows: Rows of the source with an image.
        products: Distinct products among them that can be stored.
        images: Distinct images of them: by content where the URL was fetched before, by URL where it never was.
        never_fetched: Of these, URLs never fetched; an upper bound of their images, since several may show the same.
        unusable: Of these, URLs whose content is known to be no usable image.
        of_earlier_days: Of these, images that an earlier day of the range has too.
        ledger_hits: Of the others, images that the ledger knows.
        to_label: What is left.
    """

    rows: int = 0
    products: int = 0
    images: int = 0
    never_fetched: int = 0
    unusable: int = 0
    of_earlier_days: int = 0
    ledger_hits: int = 0
    to_label: int = 0


@dataclass(frozen=True)
class DayPlan:
    """What one day has to label, and what that would take.

    Attributes:
        day: Business day.
        content: See `DayImages`.
        estimate: See `Estimate`.
    """

    day: dt.date
    content: DayImages
    estimate: Estimate


def total_of(days: Iterable[DayImages]) -> DayImages:
    """The sums over days."""
    sums = dict.fromkeys((field.name for field in fields(DayImages)), 0)
    for day in days:
        for name in sums:
            sums[name] += getattr(day, name)
    return DayImages(**sums)


def estimate(images: int, use: LabelUse | None, slots: int, prices: Prices) -> Estimate:
    """What labeling so many images would take.

    Args:
        images: Images that are to be labeled.
        use: What an image has taken so far; None where nothing was seen: each image is then one call.
        slots: Requests that the model servers serve at once.
        prices: Of the model.
    """
    if use is None:
        return Estimate(calls=float(images))
    read, written, seconds = (each.times(images) for each in (use.prompt_tokens, use.output_tokens, use.seconds))
    costs = [prices.cost(*of) for of in zip(*(vars(each).values() for each in (read, written, seconds)), strict=True)]
    return Estimate(
        calls=images * use.calls,
        prompt_tokens=read,
        output_tokens=written,
        hours=seconds.times(1 / (max(slots, 1) * SECONDS_AN_HOUR)),
        cost=Spread(*costs),
    )
