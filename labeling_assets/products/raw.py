r"""From a source row to a `RawProduct`: key, defaults, estimated engagement, business day and row hash.

Pure functions of the row: the same row gives the same record on every run and machine.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import itertools
import json
import math
from collections.abc import Collection, Iterable, Mapping
from typing import Any
from zoneinfo import ZoneInfo

from labeling_assets.errors import InvalidRowError
from labeling_assets.products.queries import SOURCE_COLUMNS
from labeling_assets.products.records import RawProduct
from labeling_assets.products.vectors import MAX_ID_BYTES, MAX_TEXT_BYTES, MAX_TITLE_BYTES

# Shares of impressions, lowest and highest, as the source system estimates them.
LIKE_SHARE = (0.01, 0.06)
COMMENT_SHARE = (0.001, 0.011)
SHARE_SHARE = (0.0005, 0.0055)
NUMBERS = ("spend", "clicks", "unique_clicks", "unique_atc", "impression", "reach", "quantity")
MAX_NUMBER = 2**62
"""Well inside 64 bits, which Parquet and Milvus give to an integer."""


def raw_products(
    rows: Iterable[Mapping[str, Any]], zone: ZoneInfo
) -> tuple[list[RawProduct], dict[str, InvalidRowError]]:
    """The records of source rows, and the rows that cannot be stored, by product."""
    records: list[RawProduct] = []
    failures: dict[str, InvalidRowError] = {}
    for row in rows:
        try:
            records.append(raw_product(row, zone))
        except InvalidRowError as error:
            failures[_failure_key(row, failures)] = error
    return records, failures


def raw_product(row: Mapping[str, Any], zone: ZoneInfo) -> RawProduct:
    """The record of one source row.

    Args:
        row: Mapping with the columns of `queries.SOURCE_COLUMNS`.
        zone: Business time zone.

    Raises:
        InvalidRowError: A value cannot be stored: too long, not finite, or beyond 64 bits.
    """
    values = {name: row[name] for name in SOURCE_COLUMNS} | {name: _number(row, name) for name in NUMBERS}
    check_sizes(values)
    id_sanpham = product_key(values)
    like, comment, share = estimated_engagement(id_sanpham, values["impression"])
    return RawProduct(
        **values,
        id_sanpham=id_sanpham,
        date=values["published_at"].astimezone(zone).date(),
        platform=_text(values["gp_code"]) or "Website",
        name_store=_text(values["store"]) or "unknown",
        link_redirect=_text(values["link"]),
        like=like,
        comment=comment,
        share=share,
        is_engagement_estimated=True,
        row_hash=_sha256(values),
    )


def product_key(row: Mapping[str, Any]) -> str:
    """`product_id` as text; for a row without one `SP_` and 8 hex digits of its identity.

    The identity is what stays when a row is crawled again: image, link, title and store, but neither time nor numbers.
    """
    if product_id := _text(row["product_id"]):
        return product_id
    return "SP_" + _sha256({name: row[name] for name in ("image", "link", "title", "store")})[:8]


def estimated_engagement(id_sanpham: str, impression: int | None) -> tuple[int, int, int]:
    """Likes, comments and shares estimated from impressions; the same for the same product on every run."""
    digest = hashlib.sha256(id_sanpham.encode()).digest()
    counts = []
    for position, (lowest, highest) in enumerate((LIKE_SHARE, COMMENT_SHARE, SHARE_SHARE)):
        fraction = int.from_bytes(digest[position * 8 : position * 8 + 8], "big") / 2**64
        counts.append(int(max(impression or 0, 0) * (lowest + (highest - lowest) * fraction)))
    return counts[0], counts[1], counts[2]


def check_sizes(row: Mapping[str, Any]) -> None:
    """Refuse texts that no later stage can store.

    Raises:
        InvalidRowError: Names the column, its size and the limit.
    """
    limits = {
        "product_id": MAX_ID_BYTES,
        "image": MAX_TEXT_BYTES,
        "link": MAX_TEXT_BYTES,
        "title": MAX_TITLE_BYTES,
        "store": MAX_TITLE_BYTES,
        "gp_code": MAX_TITLE_BYTES,
    }
    for name, limit in limits.items():
        size = len((row[name] or "").encode())
        if size > limit:
            raise InvalidRowError(f"{name} has {size} bytes; the limit is {limit}.", "Shorten it in the source.")


def _number(row: Mapping[str, Any], name: str) -> float | int | None:
    """A number of the row: spend as float, the counters as integers, fractions cut off."""
    value = row[name]
    if value is None:
        return None
    if not math.isfinite(value) or abs(value) > MAX_NUMBER:
        raise InvalidRowError(f"{name} is {value}, which cannot be stored.", "Correct it in the source.")
    return float(value) if name == "spend" else int(value)


def _failure_key(row: Mapping[str, Any], taken: Collection[str]) -> str:
    """The product's key, cut where it is too long, and numbered where the product has failed before."""
    key = product_key(row)
    if len(key.encode()) > MAX_ID_BYTES:
        key = f"{key[:40]}… sha256 {_sha256({'id': key})[:16]}"
    return key if key not in taken else next(f"{key} #{n}" for n in itertools.count(2) if f"{key} #{n}" not in taken)


def _text(value: str | None) -> str:
    return (value or "").strip()


def _sha256(values: Mapping[str, Any]) -> str:
    canonical = json.dumps(values, sort_keys=True, ensure_ascii=False, default=_canonical)
    return hashlib.sha256(canonical.encode()).hexdigest()


def _canonical(value: object) -> str:
    if isinstance(value, dt.datetime):
        return value.astimezone(dt.UTC).isoformat()
    msg = f"{type(value).__name__} has no canonical form"
    raise TypeError(msg)
