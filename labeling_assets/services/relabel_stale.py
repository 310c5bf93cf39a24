"""Makes stale labels anew: the most viewed images first, into the ledger, as far as a budget goes.

A run of a day labels all of it with the model and prompt in use. So the images are labeled into the ledger first, and
the caller then runs the days of which all images are there; the others stay as they are, and what was labeled of them
is paid for. Which labels are stale is in `stale.py`.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from upath import UPath

from labeling_assets.products.label_versions import LabelVersion
from labeling_assets.services.checked_files import BrokenFileError, read_columns
from labeling_assets.services.ledger_use import LedgerUse
from labeling_assets.services.stale import DayLabels

IMAGES = "product_images"
COLUMNS = ("image_sha256", "impression", "like")


@dataclass(frozen=True)
class StaleImages:
    """The images of days with stale labels.

    Attributes:
        by_day: All usable images of each day, by sha256; a run of the day asks about each, those without a label too.
        problems: Why days with stale labels are left out: their file of images is missing or broken.
        to_label: Those of all days that the ledger does not know yet under the version in use, most viewed first.
    """

    by_day: Mapping[dt.date, set[str]]
    problems: Mapping[dt.date, str]
    to_label: Sequence[str]


def stale_images(root: UPath, days: Sequence[DayLabels], ledger: LedgerUse, current: LabelVersion) -> StaleImages:
    """The images of the days that have stale labels.

    Views are impressions, of all products of those days that show the image; among images with as many, likes decide.

    Raises:
        ServiceUnavailableError: PostgreSQL or the storage does not answer.
    """
    by_day: dict[dt.date, set[str]] = {}
    problems: dict[dt.date, str] = {}
    impressions, likes = Counter[str](), Counter[str]()
    for day in (each.day for each in days if each.stale(current)):
        try:
            table = read_columns(root, IMAGES, day, COLUMNS)
        except BrokenFileError as error:
            problems[day] = f"{IMAGES} cannot be read: {error}"
            continue
        rows = [row for row in table.to_pylist() if row["image_sha256"]]
        by_day[day] = {row["image_sha256"] for row in rows}
        for row in rows:
            impressions[row["image_sha256"]] += row["impression"] or 0
            likes[row["image_sha256"]] += row["like"]
    shas = set[str]().union(*by_day.values())
    unknown = shas - ledger.known(sorted(shas), current.key)
    return StaleImages(by_day, problems, sorted(unknown, key=lambda sha: (-impressions[sha], -likes[sha], sha)))


def complete_days(images: StaleImages, ledger: LedgerUse, current: LabelVersion) -> list[dt.date]:
    """The days of which the ledger now knows every image under the version in use.

    Raises:
        ServiceUnavailableError: PostgreSQL does not answer.
    """
    known = ledger.known(sorted(set[str]().union(*images.by_day.values())), current.key)
    return sorted(day for day, shas in images.by_day.items() if shas <= known)
