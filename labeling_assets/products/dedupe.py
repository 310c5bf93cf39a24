"""Which row of a product counts, and how it compares with what Milvus holds. Pure functions.

Of several rows with one id on one day the newest `published_at` wins; then the one with more impressions; then the one
with the greater row hash, so that the choice does not depend on the order of reading.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from typing import Protocol

from labeling_assets.products.records import DedupedProduct, ProductStatus, RawProduct


class Stored(Protocol):
    """What Milvus tells of a product it holds."""

    @property
    def row_hash(self) -> str:
        """Hash of the source row that was indexed."""

    @property
    def date(self) -> dt.date:
        """Business day under which it was indexed."""


def distinct_products(rows: Iterable[RawProduct]) -> dict[str, tuple[RawProduct, int]]:
    """The winning row of each id and how many other rows it stands for, in the order of first appearance."""
    chosen: dict[str, tuple[RawProduct, int]] = {}
    for row in rows:
        if row.id_sanpham not in chosen:
            chosen[row.id_sanpham] = (row, 0)
            continue
        winner, duplicates = chosen[row.id_sanpham]
        chosen[row.id_sanpham] = (max(winner, row, key=_rank), duplicates + 1)
    return chosen


def compare(products: Mapping[str, tuple[RawProduct, int]], stored: Mapping[str, Stored]) -> Iterable[DedupedProduct]:
    """Each distinct product with its status against Milvus."""
    for id_sanpham, (row, duplicates) in products.items():
        status = product_status(row, stored.get(id_sanpham))
        yield DedupedProduct(**row.model_dump(), status=status, duplicate_count=duplicates)


def product_status(row: RawProduct, stored: Stored | None) -> ProductStatus:
    """`new` when Milvus lacks the id; `unchanged` when it holds this row, or one of a newer day; else `changed`."""
    if stored is None:
        return "new"
    is_current = stored.date > row.date or (stored.row_hash, stored.date) == (row.row_hash, row.date)
    return "unchanged" if is_current else "changed"


def _rank(row: RawProduct) -> tuple[dt.datetime, int, str]:
    return row.published_at, row.impression or 0, row.row_hash
