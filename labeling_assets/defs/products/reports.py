"""What each asset tells of a day beside its counts: how good, how much it cost, what it looks like."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import dagster as dg
import pyarrow as pa

from labeling_assets.metadata import bar_chart, preview
from labeling_assets.products.cost import Prices
from labeling_assets.products.labels import SCHEMA_VERSION
from labeling_assets.products.prompt import PROMPT_VERSION
from labeling_assets.products.records import DedupedProduct, ImagedProduct, LabeledProduct, RawProduct
from labeling_assets.services.embedding.cached import CachedEmbedder
from labeling_assets.services.images.store import FetchCounts
from labeling_assets.services.milvus import CollectionState, SyncResult
from labeling_assets.services.near_duplicates import NearDuplicates
from labeling_assets.services.postgres import DataLabelCounts
from labeling_assets.services.vision import VisionModel
from labeling_assets.services.vision.labeler import LabelCounts

Thumbnail = Callable[[str], bytes]
COST_DIGITS = 6
SYNC_SCHEMA = pa.schema([("id_sanpham", pa.string()), ("action", pa.string())])


def raw(records: Sequence[RawProduct], table: pa.Table, rows_without_image: int) -> dict[str, Any]:
    """Of `raw_products`."""
    return {
        "rows_without_image": rows_without_image,
        "rows_without_product_id": sum(row.product_id is None for row in records),
        "preview": preview(table, ["id_sanpham", "title", "name_store", "platform", "published_at", "image"]),
        "platforms": bar_chart((row.platform for row in records), "Platforms"),
    }


def deduped(records: Sequence[DedupedProduct], table: pa.Table) -> dict[str, Any]:
    """Of `deduped_products`."""
    statuses = ("new", "changed", "unchanged")
    return {
        "duplicates": sum(row.duplicate_count for row in records),
        **{f"rows_{status}": sum(row.status == status for row in records) for status in statuses},
        "preview": preview(table, ["id_sanpham", "status", "duplicate_count", "title"]),
        "statuses": bar_chart((row.status for row in records), "Status against Milvus"),
    }


def images(
    records: Sequence[ImagedProduct], table: pa.Table, counts: FetchCounts, thumbnail: Thumbnail, near: NearDuplicates
) -> dict[str, Any]:
    """Of `product_images`."""
    hashes = {row.image_sha256: row.image_phash for row in records if row.image_sha256 and row.image_phash}
    return {
        "distinct_urls": counts.urls,
        "images_downloaded": counts.downloaded,
        "images_not_modified": counts.not_modified,
        "images_served_stale": counts.stale,
        "downloaded_bytes": counts.bytes_downloaded,
        "original_bytes": sum(row.image_size_bytes or 0 for row in records),
        "model_image_bytes": sum(row.model_image_size_bytes or 0 for row in records),
        "distinct_images": len(hashes),
        "near_duplicates": near.count(hashes),
        "preview": preview(table, ["id_sanpham", "image_format", "image_size_bytes", "quarantine_reason"], thumbnail),
        "formats": bar_chart((row.image_format or "none" for row in records), "Image formats"),
    }


def labels(
    records: Sequence[LabeledProduct],
    table: pa.Table,
    rows_in: int,
    model: VisionModel,
    counts: LabelCounts,
    thumbnail: Thumbnail,
    prices: Prices,
) -> dict[str, Any]:
    """Of `qwen_labels`. A call that was avoided saves what the labels of the day cost on average."""
    calls_avoided = max(rows_in - counts.model_calls, 0)
    charts = {"occasions": "occasion", "recipients": "image_recipient", "colours": "color_aesthetic"}
    return {
        "model": model.name,
        "model_digest": model.digest,
        "prompt_version": PROMPT_VERSION,
        "schema_version": SCHEMA_VERSION,
        "labels_stale": 0,  # they are of the version in use; the asset stale_labels tells when they no longer are
        "distinct_images": counts.distinct,
        "ledger_hits": counts.ledger_hits,
        "calls_avoided": calls_avoided,
        "labels_shared": sum(row.label_shared_from is not None for row in records),
        "replies_asked_again": counts.reasked,
        **label_costs(counts, prices),
        "cost_saved": round(calls_avoided * _mean_cost(records), COST_DIGITS),
        "preview": preview(table, ["id_sanpham", "product_type", "occasion", "main_subject", "text"], thumbnail),
        **{
            name: bar_chart(itertools.chain.from_iterable(getattr(row, field) for row in records), name.capitalize())
            for name, field in charts.items()
        },
    }


def label_costs(counts: LabelCounts, prices: Prices) -> dict[str, float]:
    """Of `qwen_labels`: what was paid for, also of a day that fails."""
    return {
        "model_calls": counts.model_calls,
        "prompt_tokens": counts.prompt_tokens,
        "output_tokens": counts.output_tokens,
        "model_seconds": round(counts.model_seconds, 3),
        "cost": round(prices.cost(counts.prompt_tokens, counts.output_tokens, counts.model_seconds), COST_DIGITS),
    }


def _mean_cost(records: Sequence[LabeledProduct]) -> float:
    """Mean cost of the labels of distinct images."""
    costs = {row.image_sha256: row.label_cost for row in records}
    return sum(costs.values()) / max(len(costs), 1)


def vectors(table: pa.Table, embedder: CachedEmbedder, thumbnail: Thumbnail) -> dict[str, Any]:
    """Of `clip_vectors`."""
    return {
        "embedder": embedder.identity.key,
        # In every materialization, or Dagster's plots have gaps; an embedder without a device has no figures of one.
        **dict.fromkeys(("embedder_batch_size", "embedder_peak_memory_bytes", "embedder_workers"), 0),
        **{f"embedder_{name}": value for name, value in embedder.model_info().items()},
        "vectors_computed": embedder.counts.computed,
        "vectors_from_cache": embedder.counts.cached,
        "preview": preview(table, ["id_sanpham", "title", "description"], thumbnail),
    }


def milvus(sync: SyncResult, state: CollectionState) -> dict[str, Any]:
    """Of `milvus_collection`: what was done, and the state of the collection."""
    return {
        "rows_new": sync.new,
        "rows_updated": sync.updated,
        "rows_unchanged": sync.unchanged,
        "rows_removed": sync.removed,
        "rows_restored": sync.restored,
        "rows_held_by_newer_day": sync.held_by_newer_day,
        "insert_batches": sync.insert_batches,
        "sync_seconds": round(sync.seconds, 3),
        "collection_rows": state.rows,
        "collection_load_state": state.load_state,
        "collection_indexes": dg.MetadataValue.json(state.indexes),
        "collection_alias": state.alias,
        "collection_name": state.physical_name,
        "collection_embedder": state.embedder,
        "collection_schema_version": state.schema_version,
    }


def sync_table(sync: SyncResult) -> pa.Table:
    """One row per product that a sync of Milvus wrote or removed, and what was done."""
    actions = {
        "new": sync.inserted_ids,
        "updated": sync.updated_ids,
        "restored": sync.restored_ids,
        "removed": sync.removed_ids,
    }
    rows = [{"id_sanpham": id_sanpham, "action": action} for action, ids in actions.items() for id_sanpham in ids]
    return pa.Table.from_pylist(rows, schema=SYNC_SCHEMA)


def data_label(table: pa.Table, counts: DataLabelCounts, rows_restored: int) -> dict[str, Any]:
    """Of `data_label`."""
    return {
        "rows_written": counts.written,
        "rows_unchanged": counts.unchanged,
        "rows_removed": counts.removed,
        "rows_restored": rows_restored,
        "preview": preview(table, ["id_sanpham", "name_store", "platform", "description"]),
    }
