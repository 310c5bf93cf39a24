"""The products domain in seven assets, in the order in which data flows; one partition is one business day.

Each asset reads its input, calls the service that does the work, and reports, a day at a time. What the work is stands
in `products/` and `services/`. A row that fails goes to the quarantine with its reason; it never fails the day.
"""

import datetime as dt
import functools
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import dagster as dg
import numpy as np
import pyarrow as pa

from labeling_assets.defs.products import checks, columns, model_checks, partitions, reports, store_checks
from labeling_assets.defs.products.stage import DayResult, Stage, StageEvents
from labeling_assets.errors import SupersededError
from labeling_assets.products.assembly import data_label_rows, embedded_products, imaged_products, labeled_products
from labeling_assets.products.dedupe import compare, distinct_products
from labeling_assets.products.description import embedding_text
from labeling_assets.products.label_drift import DRIFT_COLUMNS, HISTORY_DAYS
from labeling_assets.products.labels import SCHEMA_VERSION
from labeling_assets.products.prompt import PROMPT_VERSION
from labeling_assets.products.raw import raw_products as raw_records
from labeling_assets.products.records import (
    DedupedProduct,
    EmbeddedProduct,
    ImagedProduct,
    LabeledProduct,
    RawProduct,
    arrow_schema,
    from_table,
    to_table,
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
from labeling_assets.services.day_tables import is_partial, mark_source, marked_as, source_fingerprint
from labeling_assets.services.embedding.cached import CachedEmbedder
from labeling_assets.services.images.store import FetchCounts
from labeling_assets.services.vision.label_sharing import label_products
from labeling_assets.services.vision.labeler import Labeler

GROUP = "products"
MAX_QUARANTINED_SHARE = columns.SETTINGS.max_quarantined_share
COMMON: dict[str, Any] = {
    "partitions_def": partitions.product_days,
    "backfill_policy": dg.BackfillPolicy.single_run(),
    "group_name": GROUP,
    "owners": ["team:data-platform"],
}


day_specs = functools.partial(checks.specs, partitions_def=partitions.product_days)


class CrawlConfig(dg.Config):
    """How much of the day is crawled."""

    limit: int | None = None


@dg.asset(
    **COMMON,
    deps=[columns.SOURCE_NAME],
    kinds={"postgres", "parquet"},
    pool="product_database",
    check_specs=day_specs("raw_products", "columns_match_schema", "rows_lie_in_the_day"),
    metadata=columns.COLUMNS["raw_products"],
)
def raw_products(
    context: dg.AssetExecutionContext,
    config: CrawlConfig,
    product_database: ProductDatabaseResource,
    storage: StorageResource,
) -> StageEvents:
    """One row per source row of the business day that has an image, newest first.

    - **Source** LABELING_SOURCE_TABLE, half-open day in LABELING_TIMEZONE, by a server-side cursor; the state of the
    day's rows is read in the same snapshot and stays with the data, see `changed_products_sensor`.
    - **Stored in** Parquet.
    - **Re-run** reads the day anew; the file is replaced.
    - **Cost** three queries; likes, comments and shares are estimates.
    """
    with Stage(context, product_database, storage) as stage:
        database, source_days = product_database.get(), product_database.source_days()

        def crawl(day: dt.date) -> DayResult:
            with database.snapshot() as snapshot:
                fingerprint = source_days.fingerprint(snapshot, day)
                chunks = database.crawl_day(snapshot, day, config.limit)
                records, failures = raw_records(itertools.chain.from_iterable(chunks), database.zone)
                rows_without_image = database.rows_without_image(snapshot, day)
            rows_in = len(records) + len(failures)
            is_limited = config.limit is not None and rows_in >= config.limit
            table = mark_source(to_table(records, RawProduct), fingerprint, partial=is_limited)
            return DayResult(
                table,
                rows_in=rows_in,
                rows_out=len(records),
                failures=failures,
                metadata=reports.raw(records, table, rows_without_image) | {"source_fingerprint": fingerprint},
                checks=[
                    checks.columns_match_schema(table, arrow_schema(RawProduct)),
                    checks.rows_lie_in_the_day(table, day),
                ],
            )

        yield from stage.each_day(crawl)


@dg.asset(
    **COMMON,
    deps=[raw_products],
    kinds={"milvus", "parquet"},
    pool="milvus",
    check_specs=day_specs("deduped_products", "columns_match_schema", "ids_are_unique"),
    metadata=columns.COLUMNS["deduped_products"],
)
def deduped_products(
    context: dg.AssetExecutionContext,
    product_database: ProductDatabaseResource,
    storage: StorageResource,
    vector_store: VectorStoreResource,
) -> StageEvents:
    """One row per distinct product of the day, with its status against Milvus: new, changed or unchanged.

    Of several rows of a product the newest counts; then the one with more impressions. `rows_in` counts distinct
    products; the rows collapsed into them are `duplicates`.

    - **Source** raw_products; Milvus by id and row hash.
    - **Stored in** Parquet, complete whatever Milvus holds.
    - **Re-run** the same products; only the status follows Milvus.
    - **Cost** one existence query per 1,000 products.
    """
    with Stage(context, product_database, storage) as stage:
        store = vector_store.get()
        store.ensure()

        def dedupe(day: dt.date) -> DayResult:
            raw = stage.read("raw_products", day)
            products = distinct_products(from_table(raw, RawProduct))
            records = list(compare(products, store.existing(list(products))))
            table = marked_as(to_table(records, DedupedProduct), raw)
            return DayResult(
                table,
                rows_in=len(products),
                rows_out=len(records),
                metadata=reports.deduped(records, table),
                checks=[
                    checks.columns_match_schema(table, arrow_schema(DedupedProduct)),
                    checks.ids_are_unique(table),
                ],
            )

        yield from stage.each_day(dedupe)


@dg.asset(
    **COMMON,
    deps=[deduped_products],
    kinds={"http", "parquet"},
    pool="image_host",
    check_specs=day_specs("product_images", "columns_match_schema", "most_images_are_usable"),
    metadata=columns.COLUMNS["product_images"],
)
def product_images(
    context: dg.AssetExecutionContext,
    product_database: ProductDatabaseResource,
    storage: StorageResource,
    image_store: ImageStoreResource,
) -> StageEvents:
    """One row per distinct product with the facts of its image, or the reason why its image is in quarantine.

    - **Source** the image URL of each product; each distinct URL is fetched once, private addresses are refused.
    - **Stored in** Parquet; images below LABELING_STORAGE by sha256, as fetched and as the 512 px JPEG that models
    read.
    - **Re-run** conditional requests; only what changed on the image host is downloaded.
    - **Cost** one request per distinct URL.
    """
    with Stage(context, product_database, storage) as stage:
        store = image_store.get()

        def fetch(day: dt.date) -> DayResult:
            deduped, counts = stage.read("deduped_products", day), FetchCounts()
            products = list(from_table(deduped, DedupedProduct))
            outcomes = dict(store.fetch_all({product.image.strip() for product in products}, counts))
            records, failures = imaged_products(products, outcomes)
            table = marked_as(to_table(records, ImagedProduct), deduped)
            return DayResult(
                table,
                rows_in=len(products),
                rows_out=len(products) - len(failures),
                failures=failures,
                metadata=reports.images(records, table, counts, store.thumbnail, image_store.near_duplicates()),
                checks=[
                    checks.columns_match_schema(table, arrow_schema(ImagedProduct)),
                    checks.quarantined_share_is_low(
                        "most_images_are_usable", failures, len(products), MAX_QUARANTINED_SHARE
                    ),
                ],
            )

        yield from stage.each_day(fetch)


class LabelConfig(dg.Config):
    """What labeling may cost: all days of the run together, in the currency of the prices; null: anything."""

    budget: float | None = None


@dg.asset(
    **COMMON,
    deps=[product_images],
    kinds={"python", "parquet"},
    pool="vision_model",
    code_version=f"prompt {PROMPT_VERSION}, schema {SCHEMA_VERSION}",
    check_specs=day_specs(
        "qwen_labels",
        "columns_match_schema",
        "labels_match_schema",
        "most_images_are_labeled",
        "most_labels_say_something",
        "label_distribution_is_steady",
        "labels_agree_with_titles",
    ),
    metadata=columns.COLUMNS["qwen_labels"],
)
def qwen_labels(
    context: dg.AssetExecutionContext,
    config: LabelConfig,
    product_database: ProductDatabaseResource,
    storage: StorageResource,
    image_store: ImageStoreResource,
    vision_model: VisionModelResource,
) -> StageEvents:
    """One row per labeled product: fifteen label fields, a description, and who said so.

    - **Source** the 512 px image of each product and the vision model of LABELING_VISION_BACKEND.
    - **Stored in** Parquet; each reply in the label ledger by image, model digest, prompt and schema version.
    - **Re-run** labels come from the ledger; only images never asked about are paid for.
    - **Cost** one model call per distinct new image; a faulty reply is asked again once. With LABELING_SHARE_LABELS,
    one per group of near duplicates, of all days; `label_shared_from` names the image that was labeled. `cost` is what
    the calls cost, `cost_saved` what those would have cost that were not needed. With a budget in the run config, no
    call is made that could overspend it; what was paid for is kept.
    """
    with Stage(context, product_database, storage) as stage:
        model, store, prices = vision_model.get(), image_store.get(), vision_model.prices
        budget = None if config.budget is None else vision_model.budget(config.budget, stage.spender)
        near = image_store.near_duplicates() if vision_model.share_labels == "near_duplicates" else None
        model.check()

        def label(day: dt.date) -> DayResult:
            images = stage.read("product_images", day)
            labeler = Labeler(model, product_database.ledger(), budget=budget)
            stage.paid = functools.partial(reports.label_costs, labeler.counts, prices)
            products = [row for row in from_table(images, ImagedProduct) if row.image_sha256]
            outcomes = dict(label_products(labeler, products, store.model_jpeg, near))
            records, failures = labeled_products(products, outcomes, vision_model.description_language, prices)
            table = marked_as(to_table(records, LabeledProduct), images)
            history = storage.earlier_rows("qwen_labels", day, HISTORY_DAYS, DRIFT_COLUMNS)
            nothing = table.select(DRIFT_COLUMNS).slice(0, 0)
            return DayResult(
                table,
                rows_in=len(products),
                rows_out=len(records),
                failures=failures,
                metadata=reports.labels(records, table, len(products), model, labeler.counts, store.thumbnail, prices),
                checks=[
                    checks.columns_match_schema(table, arrow_schema(LabeledProduct)),
                    checks.labels_match_schema(table),
                    checks.quarantined_share_is_low(
                        "most_images_are_labeled", failures, len(products), MAX_QUARANTINED_SHARE
                    ),
                    model_checks.most_labels_say_something(table),
                    model_checks.label_distribution_is_steady(table, history if history is not None else nothing),
                    model_checks.labels_agree_with_titles(table),
                ],
            )

        yield from stage.each_day(label)


@dg.asset(
    **COMMON,
    deps=[qwen_labels],
    kinds={"numpy", "parquet"},
    pool="gpu",
    check_specs=day_specs(
        "clip_vectors",
        "columns_match_schema",
        "most_images_are_embedded",
        "vectors_are_unit_length",
        "vectors_fit_the_embedder",
        "vectors_differ",
    ),
    metadata=columns.COLUMNS["clip_vectors"],
)
def clip_vectors(
    context: dg.AssetExecutionContext,
    product_database: ProductDatabaseResource,
    storage: StorageResource,
    image_store: ImageStoreResource,
    embedder: EmbedderResource,
) -> StageEvents:
    """One row per product ready for Milvus, with the vectors of its image and of its title and label.

    - **Source** the 512 px image, and title and label values in plain words, the most telling first, by the embedder of
    LABELING_EMBEDDER.
    - **Stored in** Parquet, as fixed-size lists of float32 of length one; each vector in a cache by content and
    embedder.
    - **Re-run** vectors come from the cache.
    - **Cost** one embedding per distinct new image and per distinct new text.
    """
    with Stage(context, product_database, storage) as stage:
        store, model, engine = image_store.get(), embedder.get(), product_database.get().engine
        open_image = functools.partial(store.model_image, edge_px=model.image_edge_px)

        def embed(day: dt.date) -> DayResult:
            labels, cached = stage.read("qwen_labels", day), CachedEmbedder(model, engine)
            products = list(from_table(labels, LabeledProduct))
            texts, text_errors = cached.embed_texts([embedding_text(vars(row)) for row in products])
            images, image_errors = cached.embed_images([str(row.image_sha256) for row in products], open_image)
            errors = text_errors | image_errors
            records, positions, failures = embedded_products(products, errors, cached.identity.key)
            rows = np.asarray(positions, dtype=np.intp)
            table = with_vectors(to_table(records, EmbeddedProduct), images[rows], texts[rows])
            table = marked_as(table, labels)
            return DayResult(
                table,
                rows_in=len(products),
                rows_out=len(records),
                failures=failures,
                metadata=reports.vectors(table, cached, store.thumbnail),
                checks=[
                    checks.columns_match_schema(table, checks.embedded_schema(cached.identity.dimension)),
                    checks.quarantined_share_is_low(
                        "most_images_are_embedded", failures, len(products), MAX_QUARANTINED_SHARE
                    ),
                    checks.vectors_are_unit_length(table, [IMAGE_VECTOR, DESCRIPTION_VECTOR]),
                    model_checks.vectors_fit_the_embedder(table, [IMAGE_VECTOR, DESCRIPTION_VECTOR], cached.identity),
                    model_checks.vectors_differ(table),
                ],
            )

        yield from stage.each_day(embed)


@dg.asset(
    **COMMON,
    deps=[clip_vectors],
    kinds={"milvus", "parquet"},
    pool="milvus",
    check_specs=day_specs(
        "milvus_collection",
        "columns_match_schema",
        "milvus_holds_every_labeled_product",
        "stored_vectors_find_their_product",
    ),
    metadata=columns.COLUMNS["milvus_collection"],
)
def milvus_collection(
    context: dg.AssetExecutionContext,
    product_database: ProductDatabaseResource,
    storage: StorageResource,
    vector_store: VectorStoreResource,
) -> StageEvents:
    """The day in Milvus equals the day's vectors; one row per product that was written or removed.

    New and changed products are upserted, unchanged ones are left alone, products that left the day are removed, or
    replaced by what an older day has of them. A product that a newer day holds is left to that day.

    - **Source** clip_vectors.
    - **Stored in** Milvus, collection LABELING_MILVUS_COLLECTION; the actions in Parquet.
    - **Re-run** writes nothing where nothing changed.
    - **Cost** upserts in batches of 500 and one flush; one writer at a time.
    """
    with Stage(context, product_database, storage) as stage:
        store = vector_store.get()
        store.ensure()

        def sync(day: dt.date) -> DayResult:
            vectors, waiting = stage.read("clip_vectors", day), stage.waiting_for_retry(day)
            synced = store.sync_day(
                day,
                _records_of_day(stage, day, vectors),
                find_elsewhere=lambda ids: _records_elsewhere(storage, day, ids),
                is_partial=is_partial(vectors),
                keep=waiting,
            )
            hashes = dict(zip(*(vectors[name].to_pylist() for name in ("id_sanpham", "record_hash")), strict=True))
            held, table = store.existing(hashes), marked_as(reports.sync_table(synced), vectors)
            return DayResult(
                table,
                rows_in=vectors.num_rows,
                rows_out=vectors.num_rows,
                metadata=reports.milvus(synced, store.state()),
                checks=[
                    checks.columns_match_schema(table, reports.SYNC_SCHEMA),
                    store_checks.milvus_holds_every_labeled_product(
                        day, hashes, held, store.of_day(day), waiting, is_partial=is_partial(vectors)
                    ),
                    store_checks.stored_vectors_find_their_product(
                        day,
                        vectors,
                        held,
                        lambda sample: store.search_each(
                            sample, IMAGE_VECTOR, store_checks.SEARCH_HITS, consistency="Strong"
                        ),
                    ),
                ],
                once_kept=lambda: stage.record_synced(day, source_fingerprint(vectors)),
            )

        yield from stage.each_day(sync)


@dg.asset(
    **COMMON,
    deps=[qwen_labels],
    kinds={"postgres"},
    pool="product_database",
    op_tags={"dagster/priority": "-1"},  # after milvus_collection where one process runs both: then they are compared
    check_specs=day_specs("data_label", "data_label_holds_every_labeled_product", "data_label_equals_milvus"),
    metadata=columns.COLUMNS["data_label"],
)
def data_label(
    context: dg.AssetExecutionContext,
    product_database: ProductDatabaseResource,
    storage: StorageResource,
    vector_store: VectorStoreResource,
) -> StageEvents:
    """The descriptions of the day in Postgres, one row per product, for the systems that read the source schema.

    - **Source** qwen_labels.
    - **Stored in** `ai_craw.data_label`, by upsert; rows of products that left the day are removed, or replaced by what
      an older day has of them. A product that a newer day holds is left to that day.
    - **Re-run** writes nothing where nothing changed.
    - **Cost** one transaction.
    """
    with Stage(context, product_database, storage) as stage:
        database = product_database.get()

        def sync(day: dt.date) -> DayResult:
            labels = stage.read("qwen_labels", day)
            rows = data_label_rows(labels)
            ids = [row["id_sanpham"] for row in rows]
            present = [*ids, *stage.waiting_for_retry(day)]
            leaving = [] if is_partial(labels) else database.data_label_ids_leaving(day, present)
            elsewhere = storage.newest_elsewhere("qwen_labels", day, leaving)
            restored = data_label_rows(elsewhere) if elsewhere is not None else []
            counts = database.sync_data_label(day, rows, restored, leaving)
            fingerprint = source_fingerprint(labels)
            held = database.data_label_ids(ids)
            return DayResult(
                None,
                rows_in=len(rows),
                rows_out=len(rows),
                metadata=reports.data_label(labels, counts, len(restored)),
                checks=[
                    checks.holds_every_product("data_label_holds_every_labeled_product", ids, held),
                    _compared_with_milvus(product_database, vector_store, day, fingerprint),
                ],
                once_kept=lambda: stage.record_synced(day, fingerprint),
            )

        yield from stage.each_day(sync)


def _records_of_day(stage: Stage, day: dt.date, vectors: pa.Table) -> Iterator[list[dict[str, Any]]]:
    """The day's records, once the file is seen to be the same; called by the only writer, so that it stays the same."""
    if stage.read("clip_vectors", day).schema.metadata != vectors.schema.metadata:
        raise SupersededError(f"Another run has made clip_vectors of {day} anew.", "The run is tried again.")
    yield from milvus_records(vectors)


def _compared_with_milvus(
    product_database: ProductDatabaseResource, vector_store: VectorStoreResource, day: dt.date, fingerprint: str | None
) -> dg.AssetCheckResult:
    """Compare `data_label` with Milvus, where Milvus holds the day in the same state."""
    if product_database.synced_days().find(day, day).get(day, {}).get("milvus_collection") != fingerprint:
        return store_checks.data_label_equals_milvus({}, {}, is_compared=False)
    held = {id_: row["description"] for id_, row in product_database.get().data_label_of_day(day).items()}
    without_vectors = {row.product_id for row in product_database.quarantine().find(day=day, stage="clip_vectors")}
    return store_checks.data_label_equals_milvus(held, vector_store.get().descriptions(day), without_vectors)


def _records_elsewhere(storage: StorageResource, day: dt.date, ids: Sequence[str]) -> Iterator[dict[str, Any]]:
    table = storage.newest_elsewhere("clip_vectors", day, ids)
    return itertools.chain.from_iterable(milvus_records(table)) if table is not None else iter(())
