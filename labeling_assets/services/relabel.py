"""Finds the products whose label contradicts the title, and makes the ledger forget those labels.

What a contradiction is stands in `products/contradictions.py`. The days are run again by the caller; until then the
stores keep the old labels, and this module finds the same products again.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from labeling_assets.products.contradictions import Contradiction, contradicting_rows
from labeling_assets.products.labels import SCHEMA_VERSION
from labeling_assets.products.prompt import PROMPT_VERSION
from labeling_assets.services import stale
from labeling_assets.services.connect import Services
from labeling_assets.services.day_tables import read_day
from labeling_assets.services.images.files import open_root
from labeling_assets.services.ledger import LabelKey, LabelLedger
from labeling_assets.settings import Settings

LABEL_STAGE = "qwen_labels"


@dataclass(frozen=True)
class ContradictingProduct:
    """A labeled product whose label contradicts its title.

    Attributes:
        day: Business day.
        id_sanpham: Key of the product.
        image_sha256: The image that was labeled, by which the label is kept.
        title: Its title.
        contradictions: What contradicts what.
    """

    day: dt.date
    id_sanpham: str
    image_sha256: str
    title: str
    contradictions: tuple[Contradiction, ...]


def labeled_days(settings: Settings, first: dt.date, last: dt.date) -> list[dt.date]:
    """The days from `first` to `last`, both included, that were ever labeled."""
    return stale.labeled_days(open_root(settings.storage_root), first, last)


def contradicting_products(settings: Settings, days: Sequence[dt.date]) -> list[ContradictingProduct]:
    """The products of the days whose label contradicts the title, as the Parquet files have them.

    Raises:
        DayError: A file cannot be read.
    """
    return [
        ContradictingProduct(day, row["id_sanpham"], row["image_sha256"], row["title"], tuple(contradictions))
        for day in days
        for row, contradictions in contradicting_rows(_labels(settings, day))
    ]


@dataclass(frozen=True)
class Reach:
    """Whom new labels for some images concern.

    Attributes:
        days: Days on which a product has one of the images.
        other_products: Products with one of the images that do not contradict; they get the new label too.
    """

    days: list[dt.date]
    other_products: int


def reach_of(settings: Settings, days: Sequence[dt.date], products: Collection[ContradictingProduct]) -> Reach:
    """Whom new labels for the products' images concern, among the products of the days.

    A day that has one of the images is run again although none of its own products contradicts, so that all products
    with the image have the same label.
    """
    shas = {product.image_sha256 for product in products}
    contradicting = {(product.day, product.id_sanpham) for product in products}
    concerned = [(day, id_sanpham) for day in days for id_sanpham, sha in _images(settings, day) if sha in shas]
    return Reach(sorted({day for day, _ in concerned}), len(set(concerned) - contradicting))


def forget_labels(settings: Settings, products: Collection[ContradictingProduct]) -> int:
    """Make the ledger forget the labels of the products' images under the current model, prompt and schema.

    The model is looked for first: nothing is forgotten while it could not be asked again.

    Returns:
        The number of labels forgotten. Fewer than images where the labels are of another model or prompt: those images
        are asked about again anyway.

    Raises:
        ConfigurationError: The model is not there.
        ServiceUnavailableError: The model server or PostgreSQL does not answer.
    """
    services = Services(settings)
    model = services.vision_model
    model.check()
    key = LabelKey(model.digest, PROMPT_VERSION, SCHEMA_VERSION)
    shas = sorted({product.image_sha256 for product in products})
    return LabelLedger(services.product_database.engine).forget_labels(shas, key)


def _images(settings: Settings, day: dt.date) -> Iterator[tuple[str, str]]:
    for row in _labels(settings, day).select(["id_sanpham", "image_sha256"]).to_pylist():
        yield row["id_sanpham"], row["image_sha256"]


def _labels(settings: Settings, day: dt.date) -> pa.Table:
    """The labels of a day; `image_sha256` is the image that was labeled, maybe in the place of the product's."""
    table = read_day(open_root(settings.storage_root), LABEL_STAGE, day)
    if "label_shared_from" not in table.column_names:
        return table
    labeled = pc.coalesce(table["label_shared_from"], table["image_sha256"])
    return table.set_column(table.schema.get_field_index("image_sha256"), "image_sha256", labeled)
