"""The products domain in seven assets, in the order in which data flows; one partition is one business day.

Each asset reads its input, calls the service that does the work, and reports. What the work is stands in `products/`
and `services/`. A row that fails goes to the quarantine with its reason; it never fails the day.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import dagster as dg
import numpy as np
import pyarrow as pa

from labeling_assets import metadata as md
from labeling_assets.defs.products import checks, partitions
from labeling_assets.defs.products.stage import TABLE, Stage, StageResult
from labeling_assets.products.assembly import data_label_rows, embedded_products, imaged_products, labeled_products
from labeling_assets.products.dedupe import compare, distinct_products
from labeling_assets.products.labels import SCHEMA_VERSION
from labeling_assets.products.prompt import PROMPT_VERSION
from labeling_assets.products.queries import SOURCE_COLUMNS
from labeling_assets.products.raw import raw_products as raw_records
from labeling_assets.products.records import (
    LABEL_FIELDS,
    DedupedProduct,
    EmbeddedProduct,
    ImagedProduct,
    LabeledProduct,
    RawProduct,
    from_table,
)
from labeling_assets.products.vectors import DESCRIPTION_VECTOR, IMAGE_VECTOR, milvus_records, with_vectors
from labeling_assets.resources import (
    EmbedderResource,
    ImageStoreResource,
    ProductDatabaseResource,
    StorageResource,
    VectorStoreResource,
    VisionModelResource,
)
from labeling_assets.services.day_tables import is_partial
from labeling_assets.services.embedding.cached import CachedEmbedder
from labeling_assets.services.images.store import FetchCounts
from labeling_assets.services.vision.labeler import Labeler
from labeling_assets.settings import Settings

GROUP = "products"
SETTINGS = Settings.load()
SOURCE_NAME = SETTINGS.source_table.split(".")[-1]
NETWORK_RETRIES = dg.RetryPolicy(max_retries=2, delay=10, backoff=dg.Backoff.EXPONENTIAL)
COMMON: dict[str, Any] = {
    "partitions_def": partitions.product_days,
    "group_name": GROUP,
    "owners": ["team:data-platform"],
}


class CrawlConfig(dg.Config):
    """How much of the day is crawled."""

    limit: int | None = None


@dg.asset(
    **COMMON,
    dagster_type=TABLE,
    deps=[SOURCE_NAME],
    kinds={"postgres", "parquet"},
    pool="product_database",
    retry_policy=NETWORK_RETRIES,
    check_specs=checks.specs("raw_products", "rows_lie_in_the_day"),
    metadata={
        "dagster/column_schema": md.table_schema(RawProduct),
        "dagster/column_lineage": md.column_lineage(
            RawProduct.model_fields, SOURCE_NAME, SOURCE_COLUMNS, md.RAW_DERIVED
        ),
    },
)
def raw_products(
    context: dg.AssetExecutionContext, config: CrawlConfig, product_database: ProductDatabaseResource
) -> StageResult:
    """One row per source row of the business day that has an image, newest first.

    - **Source** LABELING_SOURCE_TABLE, half-open day in LABELING_TIMEZONE, by a server-side cursor.
    - **Stored in** Parquet.
    - **Re-run** reads the day anew; the file is replaced.
    - **Cost** one query; likes, comments and shares are estimates.
    """
    with Stage(context, product_database) as stage:
        database = product_database.get()
        chunks = database.crawl_day(stage.day, config.limit)
        records, failures = raw_records(itertools.chain.from_iterable(chunks), database.zone)
        rows_in = len(records) + len(failures)
        table = stage.table(records, RawProduct, partial=config.limit is not None and rows_in >= config.limit)
        return stage.result(
            table,
            rows_in=rows_in,
            rows_out=len(records),
            failures=failures,
            metadata={
                "rows_without_image": database.rows_without_image(stage.day),
                "rows_without_product_id": sum(row.product_id is None for row in records),
                "preview": md.preview(
                    table, ["id_sanpham", "title", "name_store", "platform", "published_at", "image"]
                ),
                "platforms": md.bar_chart((row.platform for row in records), "Platforms"),
            },
            checks=[checks.rows_lie_in_the_day(table, stage.day)],
        )


@dg.asset(
    **COMMON,
    dagster_type=TABLE,
    kinds={"milvus", "parquet"},
    pool="milvus",
    retry_policy=NETWORK_RETRIES,
    check_specs=checks.specs("deduped_products", "ids_are_unique"),
    metadata={
        "dagster/column_schema": md.table_schema(DedupedProduct),
        "dagster/column_lineage": md.column_lineage(
            DedupedProduct.model_fields,
            "raw_products",
            RawProduct.model_fields,
            {"status": ["id_sanpham", "row_hash", "date"], "duplicate_count": ["id_sanpham"]},
        ),
    },
)
def deduped_products(
    context: dg.AssetExecutionContext,
    raw_products: pa.Table,
    product_database: ProductDatabaseResource,
    vector_store: VectorStoreResource,
) -> StageResult:
    """One row per distinct product of the day, with its status against Milvus: new, changed or unchanged.

    Of several rows of a product the newest counts; then the one with more impressions. `rows_in` counts distinct
    products; the rows collapsed into them are `duplicates`.

    - **Source** raw_products; Milvus by id and row hash.
    - **Stored in** Parquet, complete whatever Milvus holds.
    - **Re-run** the same products; only the status follows Milvus.
    - **Cost** one existence query per 1,000 products.
    """
    with Stage(context, product_database) as stage:
        products = distinct_products(from_table(raw_products, RawProduct))
        store = vector_store.get()
        store.ensure()
        records = list(compare(products, store.existing(list(products))))
        table = stage.table(records, DedupedProduct, partial=is_partial(raw_products))
        counts = {f"rows_{status}": sum(row.status == status for row in records) for status in md.STATUSES}
        return stage.result(
            table,
            rows_in=len(products),
            rows_out=len(records),
            failures={},
            metadata={
                "duplicates": raw_products.num_rows - len(records),
                **counts,
                "preview": md.preview(table, ["id_sanpham", "status", "duplicate_count", "title"]),
                "statuses": md.bar_chart((row.status for row in records), "Status against Milvus"),
            },
            checks=[checks.ids_are_unique(table)],
        )


@dg.asset(
    **COMMON,
    dagster_type=TABLE,
    kinds={"http", "parquet"},
    pool="image_host",
    retry_policy=NETWORK_RETRIES,
    check_specs=checks.specs("product_images", "most_images_are_usable"),
    metadata={
        "dagster/column_schema": md.table_schema(ImagedProduct),
        "dagster/column_lineage": md.column_lineage(
            ImagedProduct.model_fields,
            "deduped_products",
            DedupedProduct.model_fields,
            {name: ["image"] for name in ImagedProduct.model_fields.keys() - DedupedProduct.model_fields.keys()},
        ),
    },
)
def product_images(
    context: dg.AssetExecutionContext,
    deduped_products: pa.Table,
    product_database: ProductDatabaseResource,
    image_store: ImageStoreResource,
) -> StageResult:
    """One row per distinct product with the facts of its image, or the reason why its image is in quarantine.

    - **Source** the image URL of each product; each distinct URL is fetched once, private addresses are refused.
    - **Stored in** Parquet; images below LABELING_STORAGE by sha256, as fetched and as the 512 px JPEG that models
    read.
    - **Re-run** conditional requests; only what changed on the image host is downloaded.
    - **Cost** one request per distinct URL.
    """
    with Stage(context, product_database) as stage:
        store, counts = image_store.get(), FetchCounts()
        products = list(from_table(deduped_products, DedupedProduct))
        outcomes = dict(store.fetch_all({product.image.strip() for product in products}, counts))
        records, failures = imaged_products(products, outcomes)
        table = stage.table(records, ImagedProduct, partial=is_partial(deduped_products))
        sizes = [(row.image_size_bytes or 0, row.model_image_size_bytes or 0) for row in records]
        return stage.result(
            table,
            rows_in=len(products),
            rows_out=len(products) - len(failures),
            failures=failures,
            metadata={
                "distinct_urls": counts.urls,
                "images_downloaded": counts.downloaded,
                "images_not_modified": counts.not_modified,
                "downloaded_bytes": counts.bytes_downloaded,
                "original_bytes": sum(before for before, _ in sizes),
                "model_image_bytes": sum(after for _, after in sizes),
                "distinct_images": len({row.image_sha256 for row in records if row.image_sha256}),
                "preview": md.preview(
                    table, ["id_sanpham", "image_format", "image_size_bytes", "quarantine_reason"], store.thumbnail
                ),
                "formats": md.bar_chart((row.image_format or "none" for row in records), "Image formats"),
            },
            checks=[checks.quarantined_share_is_low("most_images_are_usable", failures, len(products))],
        )


@dg.asset(
    **COMMON,
    dagster_type=TABLE,
    kinds={"python", "parquet"},
    pool="vision_model",
    retry_policy=NETWORK_RETRIES,
    code_version=f"prompt {PROMPT_VERSION}, schema {SCHEMA_VERSION}",
    check_specs=checks.specs("qwen_labels", "labels_match_schema", "most_images_are_labeled"),
    metadata={
        "dagster/column_schema": md.table_schema(LabeledProduct),
        "dagster/column_lineage": md.column_lineage(
            LabeledProduct.model_fields,
            "product_images",
            ImagedProduct.model_fields,
            {name: ["image_sha256"] for name in LABEL_FIELDS}
            | {"description": ["image_sha256", "id_sanpham", "title", "name_store", "platform"]},
        ),
    },
)
def qwen_labels(
    context: dg.AssetExecutionContext,
    product_images: pa.Table,
    product_database: ProductDatabaseResource,
    image_store: ImageStoreResource,
    vision_model: VisionModelResource,
) -> StageResult:
    """One row per labeled product: fifteen label fields, a description, and who said so.

    - **Source** the 512 px image of each product and the vision model of LABELING_VISION_BACKEND.
    - **Stored in** Parquet; each reply in the label ledger by image, model digest, prompt and schema version.
    - **Re-run** labels come from the ledger; only images never asked about are paid for.
    - **Cost** one model call per distinct new image; a faulty reply is asked again once.
    """
    with Stage(context, product_database) as stage:
        model, store = vision_model.get(), image_store.get()
        model.check()
        labeler = Labeler(model, product_database.ledger())
        products = [row for row in from_table(product_images, ImagedProduct) if row.image_sha256]
        outcomes = dict(labeler.label_all([str(row.image_sha256) for row in products], store.model_jpeg))
        records, failures = labeled_products(products, outcomes, vision_model.description_language)
        table = stage.table(records, LabeledProduct, partial=is_partial(product_images))
        counts = labeler.counts
        return stage.result(
            table,
            rows_in=len(products),
            rows_out=len(records),
            failures=failures,
            metadata={
                "model": model.name,
                "model_digest": model.digest,
                "prompt_version": PROMPT_VERSION,
                "schema_version": SCHEMA_VERSION,
                "distinct_images": counts.distinct,
                "ledger_hits": counts.ledger_hits,
                "model_calls": counts.model_calls,
                "calls_avoided": max(len(products) - counts.model_calls, 0),
                "replies_asked_again": counts.reasked,
                "prompt_tokens": counts.prompt_tokens,
                "output_tokens": counts.output_tokens,
                "model_seconds": round(counts.model_seconds, 3),
                "preview": md.preview(
                    table, ["id_sanpham", "product_type", "occasion", "main_subject", "text"], store.thumbnail
                ),
                "occasions": md.bar_chart(itertools.chain.from_iterable(row.occasion for row in records), "Occasions"),
                "recipients": md.bar_chart(
                    itertools.chain.from_iterable(row.image_recipient for row in records), "Recipients"
                ),
                "colours": md.bar_chart(
                    itertools.chain.from_iterable(row.color_aesthetic for row in records), "Colours"
                ),
            },
            checks=[
                checks.labels_match_schema(table),
                checks.quarantined_share_is_low("most_images_are_labeled", failures, len(products)),
            ],
        )


@dg.asset(
    **COMMON,
    dagster_type=TABLE,
    kinds={"numpy", "parquet"},
    pool="gpu",
    check_specs=checks.specs("clip_vectors", "vectors_are_unit_length"),
    metadata={
        "dagster/column_schema": md.table_schema(EmbeddedProduct, md.VECTOR_COLUMNS),
        "dagster/column_lineage": md.column_lineage(
            EmbeddedProduct.model_fields,
            "qwen_labels",
            LabeledProduct.model_fields,
            {IMAGE_VECTOR: ["image_sha256"], DESCRIPTION_VECTOR: ["description"], "record_hash": ["row_hash"]},
        ),
    },
)
def clip_vectors(
    context: dg.AssetExecutionContext,
    qwen_labels: pa.Table,
    product_database: ProductDatabaseResource,
    image_store: ImageStoreResource,
    embedder: EmbedderResource,
) -> StageResult:
    """One row per product ready for Milvus, with the vectors of its image and of its description.

    - **Source** the 512 px image and the description, by the embedder of LABELING_EMBEDDER.
    - **Stored in** Parquet, as fixed-size lists of float32 of length one; each vector in a cache by content and
    embedder.
    - **Re-run** vectors come from the cache.
    - **Cost** one embedding per distinct new image and per distinct new description.
    """
    with Stage(context, product_database) as stage:
        store, cached = image_store.get(), CachedEmbedder(embedder.get(), product_database.get().engine)
        products = list(from_table(qwen_labels, LabeledProduct))
        descriptions = cached.embed_texts([row.description for row in products])
        images, errors = cached.embed_images([str(row.image_sha256) for row in products], store.model_image)
        records, positions, failures = embedded_products(products, errors, cached.identity.key)
        rows = np.asarray(positions, dtype=np.intp)
        table = stage.table(records, EmbeddedProduct, partial=is_partial(qwen_labels))
        table = with_vectors(table, images[rows], descriptions[rows])
        return stage.result(
            table,
            rows_in=len(products),
            rows_out=len(records),
            failures=failures,
            metadata={
                "embedder": cached.identity.key,
                **{f"embedder_{name}": value for name, value in cached.model_info().items()},
                "vectors_computed": cached.counts.computed,
                "vectors_from_cache": cached.counts.cached,
                "preview": md.preview(table, ["id_sanpham", "title", "description"], store.thumbnail),
            },
            checks=[checks.vectors_are_unit_length(table, [IMAGE_VECTOR, DESCRIPTION_VECTOR])],
        )


@dg.asset(
    **COMMON,
    dagster_type=TABLE,
    kinds={"milvus", "parquet"},
    pool="milvus",
    retry_policy=NETWORK_RETRIES,
    check_specs=checks.specs("milvus_collection", "milvus_holds_every_labeled_product"),
    metadata={
        "dagster/column_schema": md.plain_schema(md.SYNC_COLUMNS),
        "dagster/column_lineage": md.column_lineage(
            md.SYNC_COLUMNS, "clip_vectors", ["id_sanpham"], {"action": ["record_hash", "date"]}
        ),
        "dagster/table_name": SETTINGS.milvus_collection,
    },
)
def milvus_collection(
    context: dg.AssetExecutionContext,
    clip_vectors: pa.Table,
    product_database: ProductDatabaseResource,
    vector_store: VectorStoreResource,
    storage: StorageResource,
) -> StageResult:
    """The day in Milvus equals the day's vectors; one row per product that was written or removed.

    New and changed products are upserted, unchanged ones are left alone, products that left the day are removed, or
    replaced by what an older day has of them. A product that a newer day holds is left to that day.

    - **Source** clip_vectors.
    - **Stored in** Milvus, collection LABELING_MILVUS_COLLECTION; the actions in Parquet.
    - **Re-run** writes nothing where nothing changed.
    - **Cost** upserts in batches of 500 and one flush; one writer at a time.
    """
    with Stage(context, product_database) as stage:
        store = vector_store.get()
        store.ensure()
        sync = store.sync_day(
            stage.day,
            milvus_records(clip_vectors),
            find_elsewhere=lambda ids: _records_elsewhere(storage, stage, ids),
            is_partial=is_partial(clip_vectors),
        )
        ids = [str(each) for each in clip_vectors["id_sanpham"].to_pylist()]
        held = store.existing(ids)
        return stage.result(
            md.sync_table(sync),
            rows_in=clip_vectors.num_rows,
            rows_out=clip_vectors.num_rows,
            failures={},
            metadata=md.sync_metadata(sync) | md.collection_metadata(store.state()),
            checks=[checks.holds_every_product("milvus_holds_every_labeled_product", ids, held)],
        )


@dg.asset(
    **COMMON,
    kinds={"postgres"},
    pool="product_database",
    retry_policy=NETWORK_RETRIES,
    check_specs=checks.specs("data_label", "data_label_holds_every_labeled_product"),
    metadata={
        "dagster/column_schema": md.plain_schema(md.DATA_LABEL_COLUMNS),
        "dagster/column_lineage": md.column_lineage(
            md.DATA_LABEL_COLUMNS, "qwen_labels", LabeledProduct.model_fields, {"date_created": ["date"]}
        ),
        "dagster/table_name": "ai_craw.data_label",
    },
)
def data_label(
    context: dg.AssetExecutionContext,
    qwen_labels: pa.Table,
    product_database: ProductDatabaseResource,
    storage: StorageResource,
) -> StageResult:
    """The descriptions of the day in Postgres, one row per product, for the systems that read the source schema.

    - **Source** qwen_labels.
    - **Stored in** `ai_craw.data_label`, by upsert; rows of products that left the day are removed, or replaced by what
      an older day has of them. A product that a newer day holds is left to that day.
    - **Re-run** writes nothing where nothing changed.
    - **Cost** one transaction.
    """
    with Stage(context, product_database) as stage:
        database = product_database.get()
        rows = data_label_rows(qwen_labels)
        ids = [row["id_sanpham"] for row in rows]
        partial = is_partial(qwen_labels)
        leaving = [] if partial else database.data_label_ids_leaving(stage.day, ids)
        elsewhere = storage.newest_elsewhere("qwen_labels", stage.day, leaving)
        restored = data_label_rows(elsewhere) if elsewhere is not None else []
        counts = database.sync_data_label(stage.day, rows, restored, leaving)
        held = database.data_label_ids(ids)
        return stage.result(
            None,
            rows_in=len(rows),
            rows_out=len(rows),
            failures={},
            metadata={
                "rows_written": counts.written,
                "rows_unchanged": counts.unchanged,
                "rows_removed": counts.removed,
                "rows_restored": len(restored),
                "preview": md.preview(qwen_labels, ["id_sanpham", "name_store", "platform", "description"]),
            },
            checks=[checks.holds_every_product("data_label_holds_every_labeled_product", ids, held)],
        )


def _records_elsewhere(storage: StorageResource, stage: Stage, ids: Sequence[str]) -> Iterator[dict[str, Any]]:
    table = storage.newest_elsewhere("clip_vectors", stage.day, ids)
    return itertools.chain.from_iterable(milvus_records(table)) if table is not None else iter(())
