"""Near duplicates of all days: found by four indexes on table `images`, without looking at every image.

An index holds the four hex digits of one band of the hash, so a row is in it from the moment it is in the table. A
search looks up 17 values in each of the four indexes (the band, and the band with one bit flipped), and counts the
differing bits of what it meets; `products/near_duplicates.py` says why this finds all. Of a million images that are
spread evenly, a search meets a thousand: measured, 1,300 pages, and about 10 MB for each index.

Also here are the groups among the products of some days, which are made from the days' files.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from upath import UPath

from labeling_assets.products.near_duplicates import Group, Near, probe_masks, star_groups
from labeling_assets.products.perceptual_hash import is_flat
from labeling_assets.services.checked_files import day_of
from labeling_assets.services.day_tables import read_day, stored_names
from labeling_assets.services.ledger import LabelKey
from labeling_assets.services.postgres import database_errors, waits_out_outages

IMAGE_STAGE = "product_images"

# What `asked.phash` is near to. The masks flip at most one of the 16 bits of a band, and FLAT_BITS is 8. An image that
# agrees in several bands is met several times.
_NEAR = """
    select met.sha256, b.distance
    from (
        select image.* from unnest(cast(:masks as int[])) as m(mask) join labeling.images as image
        on substr(phash, 1, 4) = lpad(to_hex(('x' || substr(asked.phash, 1, 4))::bit(16)::int # mask), 4, '0')
        union all
        select image.* from unnest(cast(:masks as int[])) as m(mask) join labeling.images as image
        on substr(phash, 5, 4) = lpad(to_hex(('x' || substr(asked.phash, 5, 4))::bit(16)::int # mask), 4, '0')
        union all
        select image.* from unnest(cast(:masks as int[])) as m(mask) join labeling.images as image
        on substr(phash, 9, 4) = lpad(to_hex(('x' || substr(asked.phash, 9, 4))::bit(16)::int # mask), 4, '0')
        union all
        select image.* from unnest(cast(:masks as int[])) as m(mask) join labeling.images as image
        on substr(phash, 13, 4) = lpad(to_hex(('x' || substr(asked.phash, 13, 4))::bit(16)::int # mask), 4, '0')
    ) as met
    cross join lateral (select bit_count(('x' || met.phash)::bit(64) # ('x' || asked.phash)::bit(64))) as b(distance)
    where b.distance <= :bits and bit_count(('x' || met.phash)::bit(64)) > 8"""
_FIND = f"""
select distinct near.distance, near.sha256 from (values (cast(:phash as text))) as asked(phash)
cross join lateral ({_NEAR}) as near
order by near.distance, near.sha256 limit :limit"""  # noqa: S608 - put together from the constants of this file
_ASKED = "unnest(cast(:shas as text[]), cast(:phashes as text[])) as asked(sha256, phash)"
_COUNT = f"""
select count(*) from {_ASKED}
where exists (select from ({_NEAR}) as near where near.sha256 <> asked.sha256)"""  # noqa: S608 - idem
_NEAREST_LABELED = f"""
select asked.sha256 as asked, nearest.distance, nearest.sha256 from {_ASKED}
cross join lateral (
    select near.distance, near.sha256 from ({_NEAR}) as near
    join labeling.label_ledger as entry on entry.image_sha256 = near.sha256
    where near.sha256 <> asked.sha256 and entry.labels is not null and entry.model_digest = :model_digest
    and entry.prompt_version = :prompt_version and entry.schema_version = :schema_version
    order by near.distance, near.sha256 limit 1
) as nearest"""  # noqa: S608 - idem

# A search is done in the time that it takes to compile it or to start a worker.
_PLAIN_PLANS = sa.text(
    "select set_config('jit', 'off', true), set_config('max_parallel_workers_per_gather', '0', true)"
)


class NearDuplicates:
    """The near duplicates among all images of the platform. Thread-safe.

    Every method raises `ServiceUnavailableError` when PostgreSQL does not come back, and `ConfigurationError` when the
    server is older than PostgreSQL 14, which counts no bits.

    Attributes:
        bits: Bits of 64 in which the hashes of near duplicates differ at most.

    Args:
        engine: From `create_engine`, on a migrated database.
        bits: See above; 0 to 7.
    """

    def __init__(self, engine: sa.Engine, bits: int) -> None:
        self.bits = bits
        self._engine = engine
        self._masks = probe_masks(bits)

    def find(self, phash: str, limit: int = 1000) -> list[Near]:
        """The images near a hash, nearest first, also those that have it; none for a flat hash.

        Args:
            phash: 16 hex digits; it need not be of an image of the platform.
            limit: Images at most.
        """
        if is_flat(phash):
            return []
        rows = self._rows(_FIND, {"phash": phash, "limit": limit})
        return [Near(row["distance"], row["sha256"]) for row in rows]

    def count(self, images: Mapping[str, str]) -> int:
        """How many of some images have a near duplicate among all images of the platform; one query.

        Args:
            images: Hash by sha256.
        """
        (row,) = self._rows(_COUNT, _asked(images))
        return int(row["count"])

    def nearest_labeled(self, images: Mapping[str, str], key: LabelKey) -> dict[str, Near]:
        """For each of some images, the nearest other image that the ledger has a label of; one query.

        Args:
            images: Hash by sha256.
            key: Only labels under this key.

        Returns:
            By sha256; images without one are missing.
        """
        rows = self._rows(_NEAREST_LABELED, _asked(images) | vars(key))
        return {row["asked"]: Near(row["distance"], row["sha256"]) for row in rows}

    @waits_out_outages
    def _rows(self, query: str, values: Mapping[str, Any]) -> list[sa.RowMapping]:
        parameters = {**values, "masks": self._masks, "bits": self.bits}
        with database_errors("Near duplicates cannot be looked up"), self._engine.connect() as connection:
            connection.execute(_PLAIN_PLANS)
            return list(connection.execute(sa.text(query), parameters).mappings())


def _asked(images: Mapping[str, str]) -> dict[str, list[str]]:
    meaningful = {sha256: phash for sha256, phash in images.items() if not is_flat(phash)}
    return {"shas": list(meaningful), "phashes": list(meaningful.values())}


@dataclass(frozen=True)
class ImageUse:
    """A product that shows an image on a day."""

    day: dt.date
    id_sanpham: str
    name_store: str


@dataclass(frozen=True)
class DayImages:
    """The images of some days, and the products that show them.

    Attributes:
        phashes: Hash by sha256, in the order of the first day, then of the sha256.
        uses: Products by sha256, in the order of the days.
    """

    phashes: Mapping[str, str]
    uses: Mapping[str, list[ImageUse]]

    def groups(self, bits: int) -> list[Group]:
        """The groups of near duplicates among these images, as `star_groups`."""
        return star_groups(self.phashes, bits)


def days_with_images(storage: UPath, first: dt.date | None = None, last: dt.date | None = None) -> list[dt.date]:
    """The days of which there is a file of `product_images`, oldest first.

    Args:
        storage: Root of the files.
        first: First day; None: the first that there is.
        last: Last day, included; None: the last that there is.

    Raises:
        ServiceUnavailableError: The storage cannot be read.
    """
    days = [day for name in stored_names(storage, IMAGE_STAGE) if (day := day_of(name))]
    return [day for day in days if (first or dt.date.min) <= day <= (last or dt.date.max)]


def images_of_days(storage: UPath, days: Iterable[dt.date]) -> DayImages:
    """The images of some days, from their files of `product_images`.

    Args:
        storage: Root of the files.
        days: In any order.

    Raises:
        DayError: A file is missing or broken.
    """
    phashes: dict[str, str] = {}
    uses: dict[str, list[ImageUse]] = {}
    columns = ["id_sanpham", "name_store", "image_sha256", "image_phash"]
    for day in sorted(days):
        rows = [row for row in read_day(storage, IMAGE_STAGE, day).select(columns).to_pylist() if row["image_sha256"]]
        for row in sorted(rows, key=lambda row: (row["image_sha256"], row["id_sanpham"])):
            phashes.setdefault(row["image_sha256"], row["image_phash"])
            use = ImageUse(day, row["id_sanpham"], row["name_store"])
            uses.setdefault(row["image_sha256"], []).append(use)
    return DayImages(phashes, uses)
