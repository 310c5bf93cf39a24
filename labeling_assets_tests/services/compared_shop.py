"""A small shop for the tests of comparisons: images in the store, two days of files, and a truth of some of them."""

from __future__ import annotations

import datetime as dt
import json
from hashlib import sha256
from pathlib import Path
from typing import Any

from upath import UPath

from labeling_assets.products.labels import ProductLabels
from labeling_assets.products.records import LABEL_LISTS, ImagedProduct, LabeledProduct, to_table
from labeling_assets.services.day_tables import write_table
from labeling_assets.services.images.decoding import decode
from labeling_assets.services.images.files import ImageFiles, model_jpeg_path, original_path
from labeling_assets.settings import Settings
from labeling_assets_tests.services.faulty_image_host import jpeg
from labeling_assets_tests.services.milvus_samples import product

TODAY = dt.datetime.now(Settings().zone).date()
LABELED_DAY, UNLABELED_DAY = TODAY - dt.timedelta(days=3), TODAY - dt.timedelta(days=2)
TYPES = ("Mug", "mug", "T-shirt")
TITLE = "<b>Mug</b> & more"


def label(**changes: Any) -> ProductLabels:
    values = {name: ["Mom"] for name in LABEL_LISTS} | {"text": "Best Mom", "main_subject": "cat"}
    return ProductLabels.model_validate(values | {"trademark_level": "No TM"} | changes)


class ComparedShop:
    """Five images, of which three are labeled by product type and the truth of the first is known.

    Attributes:
        storage: LABELING_STORAGE.
        shas: The images.
        model_shas: The JPEGs of them that models read.
    """

    def __init__(self, storage: Path, home: Path) -> None:
        self.storage = storage
        self.shas, self.model_shas = zip(*map(self._picture, range(5)), strict=True)
        labeled = [self._product(number, LABELED_DAY, product_type=[TYPES[number]]) for number in range(3)]
        unlabeled = [self._product(number, UNLABELED_DAY) for number in (3, 4)]
        without_image = self._product(4, UNLABELED_DAY).model_copy(update={"image_sha256": None})
        self._write("qwen_labels", LABELED_DAY, labeled, LabeledProduct)
        self._write("product_images", LABELED_DAY, labeled, ImagedProduct)
        self._write("product_images", UNLABELED_DAY, [*unlabeled, without_image], ImagedProduct)
        (home / "demo" / "photos").mkdir(parents=True)
        (home / "demo" / "photos" / "0.jpg").write_bytes(self._body(0))
        (home / "demo" / "truth.json").write_text(json.dumps({"photos/0.jpg": label().model_dump()}))

    def _body(self, number: int) -> bytes:
        return jpeg((40 * number, 0, 200), (80 + number, 64))

    def _picture(self, number: int) -> tuple[str, str]:
        body, files = self._body(number), ImageFiles(str(self.storage))
        sha, (_, small) = sha256(body).hexdigest(), decode(body)
        files.write(original_path(sha), body)
        files.write(model_jpeg_path(sha), small)
        return sha, sha256(small).hexdigest()

    def _product(self, number: int, day: dt.date, **changes: Any) -> LabeledProduct:
        given = {"image_sha256": self.shas[number], "image": f"http://host/photos/{number}.jpg", "title": TITLE}
        return LabeledProduct.model_validate(product(f"P{number}", day, **given, **changes).model_dump())

    def _write(self, asset: str, day: dt.date, rows: list[LabeledProduct], model: Any) -> None:
        records = [model.model_validate(row.model_dump()) for row in rows]
        write_table(UPath(self.storage / asset / f"{day}.parquet"), to_table(records, model))
