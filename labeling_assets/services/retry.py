"""What must be forgotten so that a row in quarantine is really tried again, and not answered from memory."""

from __future__ import annotations

from collections.abc import Sequence

from labeling_assets.services.connect import Services
from labeling_assets.services.day_tables import day_file, read_day
from labeling_assets.services.images.files import open_root
from labeling_assets.services.ledger import LabelLedger
from labeling_assets.services.quarantine import QuarantinedRow
from labeling_assets.settings import Settings

IMAGE_STAGE, LABEL_STAGE = "product_images", "qwen_labels"


def forget_outcomes(settings: Settings, rows: Sequence[QuarantinedRow]) -> None:
    """Forget the remembered failures of the rows' images and labels.

    Args:
        settings: With all addresses filled in.
        rows: Rows of the quarantine.
    """
    services = Services(settings)
    urls, shas = set(), set()
    for day in sorted({row.day for row in rows}):
        root = open_root(settings.storage_root)
        if not day_file(root, IMAGE_STAGE, day).exists():
            continue
        ids = {
            stage: {row.product_id for row in rows if (row.day, row.stage) == (day, stage)}
            for stage in (IMAGE_STAGE, LABEL_STAGE)
        }
        for product in read_day(root, IMAGE_STAGE, day).select(["id_sanpham", "image", "image_sha256"]).to_pylist():
            if product["id_sanpham"] in ids[IMAGE_STAGE]:
                urls.add(product["image"].strip())
            if product["id_sanpham"] in ids[LABEL_STAGE] and product["image_sha256"]:
                shas.add(product["image_sha256"])
    services.image_store.forget(sorted(urls))
    LabelLedger(services.product_database.engine).forget(sorted(shas))
