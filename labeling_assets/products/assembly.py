"""From the rows of one stage to the rows of the next, once the stage's outside work is done. Pure functions.

Each takes the rows of the stage before and the outcomes of the outside system by image or URL, and returns the rows of
the stage and the rows that fail there, by product. No row is lost: every row is in exactly one of the two.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from labeling_assets.errors import ImageError, RowError
from labeling_assets.products.cost import NO_PRICES, Prices
from labeling_assets.products.description import describe
from labeling_assets.products.images import StoredImage
from labeling_assets.products.labels import Label
from labeling_assets.products.records import DedupedProduct, EmbeddedProduct, ImagedProduct, LabeledProduct
from labeling_assets.products.vectors import record_hash

Failures = dict[str, RowError]


def imaged_products(
    products: Iterable[DedupedProduct], outcomes: Mapping[str, StoredImage | ImageError]
) -> tuple[list[ImagedProduct], Failures]:
    """Rows with the facts of their image; a row whose image failed stays in the table with the reason.

    Args:
        products: Rows of `deduped_products`.
        outcomes: Image or error by URL; a URL is stripped of white space around it.
    """
    rows, failures = [], Failures()
    for product in products:
        outcome = outcomes[product.image.strip()]
        if isinstance(outcome, ImageError):
            failures[product.id_sanpham] = outcome
            rows.append(_without_image(product, outcome))
        else:
            rows.append(_with_image(product, outcome))
    return rows, failures


def _without_image(product: DedupedProduct, error: ImageError) -> ImagedProduct:
    added = ImagedProduct.model_fields.keys() - DedupedProduct.model_fields.keys()
    nothing = dict.fromkeys(added)
    return ImagedProduct(**product.model_dump(), **nothing | {"quarantine_reason": f"{type(error).__name__}: {error}"})


def _with_image(product: DedupedProduct, image: StoredImage) -> ImagedProduct:
    return ImagedProduct(
        **product.model_dump(),
        image_sha256=image.sha256,
        image_size_bytes=image.size_bytes,
        image_width_px=image.width_px,
        image_height_px=image.height_px,
        image_format=image.format,
        image_phash=image.phash,
        model_image_size_bytes=image.model_size_bytes,
        model_image_width_px=image.model_width_px,
        model_image_height_px=image.model_height_px,
        image_path=image.path,
        quarantine_reason=None,
    )


def labeled_products(
    products: Iterable[ImagedProduct],
    outcomes: Mapping[str, Label | RowError],
    language: str,
    prices: Prices = NO_PRICES,
) -> tuple[list[LabeledProduct], Failures]:
    """Rows with labels and description.

    Args:
        products: Rows of `product_images` that have an image.
        outcomes: Label or error by sha256 of the image.
        language: Language of the description, `vi` or `en`.
        prices: What the model costs.
    """
    rows, failures = [], Failures()
    for product in products:
        outcome = outcomes[str(product.image_sha256)]
        if isinstance(outcome, RowError):
            failures[product.id_sanpham] = outcome
        else:
            rows.append(_labeled(product, outcome, language, prices))
    return rows, failures


def _labeled(product: ImagedProduct, label: Label, language: str, prices: Prices) -> LabeledProduct:
    description = describe(
        label.labels,
        title=product.title,
        name_store=product.name_store,
        platform=product.platform,
        id_sanpham=product.id_sanpham,
        language=language,
    )
    return LabeledProduct(
        **product.model_dump(),
        **label.labels.model_dump(),
        description=description,
        label_model=label.model,
        label_digest=label.digest,
        prompt_version=label.prompt_version,
        schema_version=label.schema_version,
        prompt_tokens=label.prompt_tokens,
        output_tokens=label.output_tokens,
        label_seconds=label.seconds,
        parse_step=label.parse_step,
        is_from_ledger=label.is_from_ledger,
        label_cost=prices.cost(label.prompt_tokens, label.output_tokens, label.seconds),
        label_shared_from=label.shared_from,
    )


def embedded_products(
    products: Sequence[LabeledProduct], vector_errors: Mapping[int, RowError], embedder: str
) -> tuple[list[EmbeddedProduct], list[int], Failures]:
    """Rows ready for Milvus.

    Args:
        products: Rows of `qwen_labels`.
        vector_errors: Error by position in `products`, for those whose image or text has no usable vector.
        embedder: `EmbedderIdentity.key` of the vectors.

    Returns:
        The rows, the position of each in `products` (its vectors' row), and the rows that fail.
    """
    rows, positions, failures = [], [], Failures()
    for position, product in enumerate(products):
        try:
            if position in vector_errors:
                raise vector_errors[position]
            digest = record_hash(product, embedder, has_image_vector=True)
        except RowError as error:
            failures[product.id_sanpham] = error
            continue
        added = {"embedder": embedder, "has_image_vector": True, "record_hash": digest}
        rows.append(EmbeddedProduct(**product.model_dump(), **added))
        positions.append(position)
    return rows, positions, failures


def data_label_rows(table: pa.Table) -> list[dict[str, Any]]:
    """The rows of `qwen_labels` as rows of `ai_craw.data_label`."""
    columns = ("id_sanpham", "description", "date", "platform", "name_store")
    rows = table.select(columns).to_pylist()
    return [{("date_created" if name == "date" else name): row[name] for name in columns} for row in rows]
