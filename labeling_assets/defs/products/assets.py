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

from labeling_assets.defs.products import checks, columns, partitions, reports
from labeling_assets.defs.products.stage import TABLE, Stage, StageResult
from labeling_assets.products.assembly import data_label_rows, embedded_products, imaged_products, labeled_products
from labeling_assets.products.dedupe import compare, distinct_products
from labeling_assets.products.labels import SCHEMA_VERSION
from labeling_assets.products.prompt import PROMPT_VERSION
from labeling_assets.products.raw import raw_products as raw_records
from labeling_assets.products.records import (
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

GROUP = "products"
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
    deps=[columns.SOURCE_NAME],
    kinds={"postgres", "parquet"},
    pool="product_database",
    retry_policy=NETWORK_RETRIES,
    check_specs=checks.specs("raw_products", "rows_lie_in_the_day"),
    metadata=columns.COLUMNS["raw_products"],
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
            metadata=reports.raw(records, table, database.rows_without_image(stage.day)),
            checks=[checks.rows_lie_in_the_day(table, stage.day)],
        )


@dg.asset(
    **COMMON,
    dagster_type=TABLE,
    kinds={"milvus", "parquet"},
    pool="milvus",
    retry_policy=NETWORK_RETRIES,
    check_specs=checks.specs("deduped_products", "ids_are_unique"),
    metadata=columns.COLUMNS["deduped_products"],
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
        return stage.result(
            table,
            rows_in=len(products),
            rows_out=len(records),
            failures={},
            metadata=reports.deduped(records, table),
            checks=[checks.ids_are_unique(table)],
        )


@dg.asset(
    **COMMON,
    dagster_type=TABLE,
    kinds={"http", "parquet"},
    pool="image_host",
    retry_policy=NETWORK_RETRIES,
    check_specs=checks.specs("product_images", "most_images_are_usable"),
    metadata=columns.COLUMNS["product_images"],
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
        return stage.result(
            table,
            rows_in=len(products),
            rows_out=len(products) - len(failures),
            failures=failures,
            metadata=reports.images(records, table, counts, store.thumbnail),
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
    metadata=columns.COLUMNS["qwen_labels"],
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
        return stage.result(
            table,
            rows_in=len(products),
            rows_out=len(records),
            failures=failures,
            metadata=reports.labels(records, table, len(products), model, labeler.counts, store.thumbnail),
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
    retry_policy=NETWORK_RETRIES,
    check_specs=checks.specs("clip_vectors", "vectors_are_unit_length"),
    metadata=columns.COLUMNS["clip_vectors"],
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
            metadata=reports.vectors(table, cached, store.thumbnail),
            checks=[checks.vectors_are_unit_length(table, [IMAGE_VECTOR, DESCRIPTION_VECTOR])],
        )


@dg.asset(
    **COMMON,
    dagster_type=TABLE,
    kinds={"milvus", "parquet"},
    pool="milvus",
    retry_policy=NETWORK_RETRIES,
    check_specs=checks.specs("milvus_collection", "milvus_holds_every_labeled_product"),
    metadata=columns.COLUMNS["milvus_collection"],
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
            keep=stage.waiting_for_retry(),
        )
        ids = [str(each) for each in clip_vectors["id_sanpham"].to_pylist()]
        held = store.existing(ids)
        return stage.result(
            reports.sync_table(sync),
            rows_in=clip_vectors.num_rows,
            rows_out=clip_vectors.num_rows,
            failures={},
            metadata=reports.milvus(sync, store.state()),
            checks=[checks.holds_every_product("milvus_holds_every_labeled_product", ids, held)],
        )


@dg.asset(
    **COMMON,
    kinds={"postgres"},
    pool="product_database",
    retry_policy=NETWORK_RETRIES,
    check_specs=checks.specs("data_label", "data_label_holds_every_labeled_product"),
    metadata=columns.COLUMNS["data_label"],
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
        leaving = [] if partial else database.data_label_ids_leaving(stage.day, [*ids, *stage.waiting_for_retry()])
        elsewhere = storage.newest_elsewhere("qwen_labels", stage.day, leaving)
        restored = data_label_rows(elsewhere) if elsewhere is not None else []
        counts = database.sync_data_label(stage.day, rows, restored, leaving)
        held = database.data_label_ids(ids)
        return stage.result(
            None,
            rows_in=len(rows),
            rows_out=len(rows),
            failures={},
            metadata=reports.data_label(qwen_labels, counts, len(restored)),
            checks=[checks.holds_every_product("data_label_holds_every_labeled_product", ids, held)],
        )


def _records_elsewhere(storage: StorageResource, stage: Stage, ids: Sequence[str]) -> Iterator[dict[str, Any]]:
    table = storage.newest_elsewhere("clip_vectors", stage.day, ids)
    return itertools.chain.from_iterable(milvus_records(table)) if table is not None else iter(())
