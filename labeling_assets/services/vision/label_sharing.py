"""Labels shared among near duplicates: one image of a group is labeled, the others take its label.

Off unless LABELING_SHARE_LABELS is `near_duplicates`, because it can be wrong: a perceptual hash sees the picture as a
whole and not its small print. Mugs that differ in the name printed on them alone are near duplicates, and would all get
the text, and perhaps the recipient, of one. Share labels where a shop sells the same pictures again and again.

An image of which the ledger knows a label or a refusal keeps it. Of the others, one that is near no labeled image, of
any day, and near no earlier one of the same call is asked about; the rest take the label of the nearest labeled image.
What is asked, and who takes whose label, follows from the images and the ledger alone, not from the order of replies;
so a run that was killed goes on as it would have, and a repeated one gives the same. A day that is run again after
other days may find a nearer labeled image than it had before.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import replace

from labeling_assets.errors import RowError
from labeling_assets.products.labels import Label
from labeling_assets.products.near_duplicates import HashIndex, Near
from labeling_assets.products.records import ImagedProduct
from labeling_assets.services.near_duplicates import NearDuplicates
from labeling_assets.services.vision.labeler import Labeler

Outcomes = Generator[tuple[str, Label | RowError], None, None]


def label_products(
    labeler: Labeler,
    products: Iterable[ImagedProduct],
    read_jpeg: Callable[[str], bytes],
    near: NearDuplicates | None,
) -> Outcomes:
    """The label of each distinct image of the products, or why it has none; as `Labeler.label_all`.

    Args:
        labeler: Asks the model; counts what is done.
        products: Products with an image.
        read_jpeg: Gives the JPEG of an image.
        near: Where labels are shared, what knows near duplicates; None: every image is labeled itself.
    """
    if near is None:
        return labeler.label_all((str(product.image_sha256) for product in products), read_jpeg)
    images = {str(product.image_sha256): str(product.image_phash) for product in products}
    return label_sharing(labeler, images, read_jpeg, near)


def label_sharing(
    labeler: Labeler, images: Mapping[str, str], read_jpeg: Callable[[str], bytes], near: NearDuplicates
) -> Outcomes:
    """The label of each image, its own or that of a near duplicate, which `Label.shared_from` then names.

    Where a representative gets no label, the images near it are gone through again without it.

    Args:
        labeler: Asks the model; counts what is done.
        images: Hash by sha256, in any order.
        read_jpeg: Gives the JPEG of an image.
        near: The near duplicates of all days.

    Raises:
        ServiceUnavailableError: The model server or PostgreSQL does not answer.
        ConfigurationError: The model is gone.
    """
    known = labeler.known(images)
    yield from labeler.label_all(sorted(known), read_jpeg)
    waiting = {sha256: images[sha256] for sha256 in sorted(images.keys() - known.keys())}
    nearest = near.nearest_labeled(waiting, labeler.key)
    found = labeler.known({each.sha256 for each in nearest.values()})
    labels = {sha256: label for sha256, label in found.items() if isinstance(label, Label)}
    nearest = {sha256: each for sha256, each in nearest.items() if each.sha256 in labels}
    labeled_now = HashIndex(near.bits)
    while waiting:
        asked = _representatives(waiting, nearest, labeled_now, near.bits)
        with contextlib.closing(labeler.label_all(asked, read_jpeg)) as outcomes:
            for sha256, outcome in outcomes:
                if isinstance(outcome, Label):
                    labels[sha256] = outcome
                    labeled_now.add(sha256, waiting[sha256])
                del waiting[sha256]
                yield sha256, outcome
        for sha256, phash in list(waiting.items()):
            source = min(filter(None, (nearest.get(sha256), labeled_now.nearest(phash))), default=None)
            if source is not None:
                labeler.counts.rows += 1
                labeler.counts.distinct += 1
                labeler.counts.shared += 1
                del waiting[sha256]
                yield sha256, replace(labels[source.sha256], shared_from=source.sha256)


def _representatives(
    waiting: Mapping[str, str], nearest: Mapping[str, Near], labeled_now: HashIndex, bits: int
) -> list[str]:
    """Those of the waiting images, in their order, that are near no labeled one and near no earlier representative."""
    chosen, index = [], HashIndex(bits)
    for sha256, phash in waiting.items():
        if sha256 not in nearest and labeled_now.nearest(phash) is None and index.nearest(phash) is None:
            index.add(sha256, phash)
            chosen.append(sha256)
    return chosen
