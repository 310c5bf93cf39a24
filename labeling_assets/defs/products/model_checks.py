"""Whether the models that label and embed work as they should, judged by a day of what they made.

Pure functions from a stage's table to a check result, as in `checks.py`. Most of them warn: they find what is unlikely,
and a person decides whether it is wrong.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import dagster as dg
import numpy as np
import pyarrow as pa

from labeling_assets.defs.products.checks import (
    CONTRADICTION_WARN_SHARE,
    FALLBACK_WARN_SHARE,
    SAMPLE_IDS,
    WARN,
    outcome,
)
from labeling_assets.products.contradictions import contradicting_rows
from labeling_assets.products.description import EMBEDDED_FIELDS, embedding_text
from labeling_assets.products.fallback import is_fallback_label
from labeling_assets.products.label_drift import measure_drift, too_little_to_compare
from labeling_assets.products.records import LABEL_FIELDS
from labeling_assets.products.vectors import DESCRIPTION_VECTOR, IMAGE_VECTOR, vector_matrix
from labeling_assets.services.embedding import EmbedderIdentity

ALIKE_COSINE = 0.9999
SAMPLE_VECTORS = 200
MIN_DISTINCT = 3
"""Two pictures may be one and its copy."""


def most_labels_say_something(table: pa.Table) -> dg.AssetCheckResult:
    """Count the labels in which nothing was recognised; see `products.fallback`."""
    rows = table.select(["id_sanpham", "parse_step", *LABEL_FIELDS]).to_pylist()
    fallbacks = [row["id_sanpham"] for row in rows if is_fallback_label(row)]
    share = len(fallbacks) / len(rows) if rows else 0.0
    return outcome(
        "most_labels_say_something",
        fallbacks,
        "Look at the pictures of these products, then at the model: `labeling doctor`.",
        severity=WARN,
        passed=share <= FALLBACK_WARN_SHARE,
        evidence={
            "fallback_share": share,
            "warning_above_share": FALLBACK_WARN_SHARE,
            "labels_repaired": sum(row["parse_step"] == "repaired" for row in rows),
        },
    )


def label_distribution_is_steady(day: pa.Table, history: pa.Table) -> dg.AssetCheckResult:
    """Compare the shares of label values with those of earlier days; see `products.label_drift`.

    Args:
        day: `qwen_labels` of the day, with `DRIFT_COLUMNS` at least.
        history: The same columns of up to `HISTORY_DAYS` earlier days.
    """
    reason = too_little_to_compare(day, history)
    drifts = [] if reason else measure_drift(day, history)
    moved = [drift for drift in drifts if drift.is_drift]
    return outcome(
        "label_distribution_is_steady",
        [drift.field for drift in moved],
        "Look at the day's products in the source: if the catalogue did not change, compare label_model, label_digest "
        "and prompt_version in the metadata of qwen_labels with those of the days before.",
        severity=WARN,
        unit="fields",
        evidence={
            "changes": [str(drift) for drift in moved],
            "distances": {drift.field: round(drift.distance, 4) for drift in drifts},
            "limits": {drift.field: round(drift.limit, 4) for drift in drifts},
            "not_compared": reason,
        },
    )


def labels_agree_with_titles(table: pa.Table) -> dg.AssetCheckResult:
    """List the labels that contradict their title; see `products.contradictions`."""
    found = [(row["id_sanpham"], row["title"], list(map(str, why))) for row, why in contradicting_rows(table)]
    share = len(found) / table.num_rows if table.num_rows else 0.0
    return outcome(
        "labels_agree_with_titles",
        [id_sanpham for id_sanpham, _, _ in found],
        "`labeling relabel --from-check --dry-run` lists them; without --dry-run it asks the model again.",
        severity=WARN,
        passed=share <= CONTRADICTION_WARN_SHARE,
        evidence={
            "contradicting_share": share,
            "warning_above_share": CONTRADICTION_WARN_SHARE,
            "contradictions": [
                {"id_sanpham": id_sanpham, "title": (title or "")[:200], "contradictions": why}
                for id_sanpham, title, why in found[:SAMPLE_IDS]
            ],
        },
    )


def vectors_fit_the_embedder(
    table: pa.Table, columns: Sequence[str], identity: EmbedderIdentity
) -> dg.AssetCheckResult:
    """Compare dimension and origin of the vectors with the embedder in use."""
    dimensions = {column: getattr(table.schema.field(column).type, "list_size", 0) for column in columns}
    has_other_dimension = any(dimension != identity.dimension for dimension in dimensions.values())
    rows = table.select(["id_sanpham", "embedder"]).to_pylist()
    strangers = [row["id_sanpham"] for row in rows if has_other_dimension or row["embedder"] != identity.key]
    return outcome(
        "vectors_fit_the_embedder",
        strangers,
        "Materialize clip_vectors and milvus_collection of the day again, or restore LABELING_EMBEDDER.",
        evidence={
            "embedder": identity.key,
            "dimensions": dimensions,
            "embedders": dict(Counter(row["embedder"] for row in rows)),
        },
    )


def vectors_differ(table: pa.Table) -> dg.AssetCheckResult:
    """Look whether all vectors point the same way although what they were made of differs.

    At most `SAMPLE_VECTORS` distinct images and texts are compared, each pair.
    """
    alike = []
    texts = map(embedding_text, table.select(["title", "description", *EMBEDDED_FIELDS]).to_pylist())
    pictured = table.filter(table["has_image_vector"])
    for column, rows, content in (
        (IMAGE_VECTOR, pictured, pictured["image_sha256"].to_pylist()),
        (DESCRIPTION_VECTOR, table, list(texts)),
    ):
        contents = np.asarray(content, dtype=str)
        positions = np.sort(np.unique(contents, return_index=True)[1])
        # Evenly spread over the day, so that the sample has more than one shop.
        sample = positions[:: -(-len(positions) // SAMPLE_VECTORS) or 1]
        if len(sample) >= MIN_DISTINCT:
            vectors = vector_matrix(rows.take(sample), column)
            if float((vectors @ vectors.T).min()) > ALIKE_COSINE:
                alike.append(column)
    return outcome(
        "vectors_differ",
        alike,
        "Run `labeling doctor`: the embedder gives every picture or text the same vector. When it is mended, "
        "delete its rows from the table labeling.vector_cache and materialize clip_vectors again.",
        unit="columns",
    )
