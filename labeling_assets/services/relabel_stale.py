"""Makes stale labels anew: the most viewed images first, into the ledger, as far as a budget goes.

A run of a day labels all of it with the model and prompt in use. So the images are labeled into the ledger first, and
the caller then runs the days of which all images are there; the others stay as they are, and what was labeled of them
is paid for. Which labels are stale is in `stale.py`.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from upath import UPath

from labeling_assets.products.label_versions import LabelVersion
from labeling_assets.products.near_duplicates import HashIndex
from labeling_assets.services.checked_files import BrokenFileError, read_columns
from labeling_assets.services.ledger import LabelKey
from labeling_assets.services.ledger_use import LedgerUse
from labeling_assets.services.near_duplicates import NearDuplicates
from labeling_assets.services.stale import DayLabels

IMAGES = "product_images"
COLUMNS = ("image_sha256", "image_phash", "impression", "like")
LOOK_UP_IMAGES = 1_000


@dataclass(frozen=True)
class StaleImages:
    """The images of days with stale labels.

    Attributes:
        by_day: All usable images of each day, by sha256; a run of the day asks about each, those without a label too.
        problems: Why days with stale labels are left out: their file of images is missing or broken.
        phashes: Hash of each image of all days, by sha256, most viewed first.
    """

    by_day: Mapping[dt.date, set[str]]
    problems: Mapping[dt.date, str]
    phashes: Mapping[str, str]


def stale_images(root: UPath, days: Sequence[DayLabels], current: LabelVersion) -> StaleImages:
    """The images of the days that have stale labels.

    Views are impressions, of all products of those days that show the image; among images with as many, likes decide.

    Raises:
        ServiceUnavailableError: The storage does not answer.
    """
    by_day: dict[dt.date, set[str]] = {}
    problems: dict[dt.date, str] = {}
    phashes: dict[str, str] = {}
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
            phashes[row["image_sha256"]] = row["image_phash"]
            impressions[row["image_sha256"]] += row["impression"] or 0
            likes[row["image_sha256"]] += row["like"]
    ordered = sorted(phashes, key=lambda sha: (-impressions[sha], -likes[sha], sha))
    return StaleImages(by_day, problems, {sha: phashes[sha] for sha in ordered})


class Answers:
    """What a run under the version in use finds in the ledger, and what it would have to ask about.

    Every method raises `ServiceUnavailableError` when PostgreSQL does not answer.

    Args:
        ledger: Of all labels.
        current: Version in use, with its digest.
        near: Where labels are shared, what knows near duplicates; None: every image is labeled itself.
    """

    def __init__(self, ledger: LedgerUse, current: LabelVersion, near: NearDuplicates | None) -> None:
        self._ledger = ledger
        self._current = current
        self._near = near

    def missing(self, images: Mapping[str, str]) -> dict[str, str]:
        """Those of the images that the ledger does not know, and where labels are shared, that are near no labeled one.

        Args:
            images: Hash by sha256.

        Returns:
            The same of them, in their order.
        """
        known = self._ledger.known(list(images), self._current.key)
        waiting = {sha: phash for sha, phash in images.items() if sha not in known}
        if self._near is None:
            return waiting
        shas, key = list(waiting), LabelKey(**self._current.key)
        for start in range(0, len(shas), LOOK_UP_IMAGES):
            batch = {sha: waiting[sha] for sha in shas[start : start + LOOK_UP_IMAGES]}
            for sha in self._near.nearest_labeled(batch, key):
                del waiting[sha]
        return waiting

    def to_ask(self, missing: Mapping[str, str]) -> list[str]:
        """Those of the missing images that are to be asked about, in their order: of near duplicates the first."""
        if self._near is None:
            return list(missing)
        chosen, index = [], HashIndex(self._near.bits)
        for sha, phash in missing.items():
            if index.nearest(phash) is None:
                index.add(sha, phash)
                chosen.append(sha)
        return chosen

    def complete_days(
        self, images: StaleImages, missing: Mapping[str, str], failed: Collection[str] = ()
    ) -> list[dt.date]:
        """The days that can be run: of which no image is missing, but for some on which the model server failed.

        Args:
            images: Of the days.
            missing: Of them, those that were missing some time ago.
            failed: Images on which the server failed just now. Nothing is remembered of them, so that one on which it
                always fails would keep its day from ever being replaced; a run puts it into quarantine.
        """
        blocking = self.missing(missing).keys() - set(failed)
        return sorted(day for day, shas in images.by_day.items() if not shas & blocking)
