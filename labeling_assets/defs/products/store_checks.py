"""What must be true of Milvus and `data_label` after a day is done, with the evidence and what to do.

Pure functions: what the stores hold is read by the caller. Checks of a stage's own table are in `checks.py`.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol

import dagster as dg
import numpy as np
import pyarrow as pa

from labeling_assets.defs.products.checks import outcome
from labeling_assets.products.vectors import IMAGE_VECTOR, FloatArray, vector_matrix
from labeling_assets.services.milvus import StoredProduct

SAMPLE_SEARCHES = 20
SEARCH_HITS = 20
"""Hits that a search of `stored_vectors_find_their_product` should return."""
SAME_SCORE = 1e-4
"""Cosines closer than this are the same: products with equal pictures tie."""


class Hit(Protocol):
    """A product that a search found."""

    @property
    def id_sanpham(self) -> str:
        """Key of the product."""

    @property
    def score(self) -> float | None:
        """Cosine similarity with the vector searched for."""


def milvus_holds_every_labeled_product(
    day: dt.date,
    record_hashes: Mapping[str, str],
    stored: Mapping[str, StoredProduct],
    stored_for_the_day: Collection[str],
    waiting_for_retry: Collection[str] = (),
    *,
    is_partial: bool = False,
) -> dg.AssetCheckResult:
    """Compare the day with Milvus in both directions, by id and by content.

    A product that Milvus holds for a newer day is right whatever its content.

    Args:
        day: The business day.
        record_hashes: `record_hash` by product, of `clip_vectors`.
        stored: What Milvus holds of these products, for whatever day.
        stored_for_the_day: Every product that Milvus holds for this day.
        waiting_for_retry: Products of the day in quarantine that may succeed later; what Milvus has of them stays.
        is_partial: Whether the day was crawled with a limit; then other products may be there.
    """
    missing = sorted(set(record_hashes) - set(stored))
    differing = sorted(
        id_sanpham
        for id_sanpham, record_hash in record_hashes.items()
        if id_sanpham in stored and not _is_current(stored[id_sanpham], day, record_hash)
    )
    surplus = [] if is_partial else sorted({*stored_for_the_day} - {*record_hashes} - {*waiting_for_retry})
    return outcome(
        "milvus_holds_every_labeled_product",
        [*missing, *differing, *surplus],
        "Materialize milvus_collection of the day again; `labeling heal` repairs many days.",
        evidence={"missing_ids": missing[:20], "differing_ids": differing[:20], "surplus_ids": surplus[:20]}
        | {"rows_missing": len(missing), "rows_differing": len(differing), "rows_surplus": len(surplus)},
    )


def _is_current(stored: StoredProduct, day: dt.date, record_hash: str) -> bool:
    return stored.date > day or (stored.date, stored.record_hash) == (day, record_hash)


def stored_vectors_find_their_product(
    day: dt.date,
    table: pa.Table,
    stored: Mapping[str, StoredProduct],
    search: Callable[[Sequence[FloatArray]], Sequence[Sequence[Hit]]],
) -> dg.AssetCheckResult:
    """Search with the image vectors of up to `SAMPLE_SEARCHES` products of the day.

    A product is found when it comes first, or as near as the first. Where every hit is as near as the first, the
    product may tie with more products than are returned; nothing can be said of it then. The products are chosen by the
    hash of their id, so that the same day asks the same questions.

    Args:
        day: The business day.
        table: `clip_vectors` of the day.
        stored: What Milvus holds of its products; those held for another day are not searched for.
        search: The nearest products to each image vector, float32, shape (dimension,), best first, at most
            `SEARCH_HITS`; not called without a vector.
    """
    rows = table.select(["id_sanpham", "has_image_vector"]).to_pylist()
    chosen = sorted(
        (
            position
            for position, row in enumerate(rows)
            if row["has_image_vector"] and (held := stored.get(row["id_sanpham"])) is not None and held.date == day
        ),
        key=lambda position: hashlib.sha256(rows[position]["id_sanpham"].encode(errors="replace")).digest(),
    )[:SAMPLE_SEARCHES]
    vectors = vector_matrix(table.take(pa.array(chosen, pa.int64())), IMAGE_VECTOR)
    answers = search([np.ascontiguousarray(vector) for vector in vectors]) if chosen else []
    lost, undecided = [], 0
    for position, hits in zip(chosen, answers, strict=True):
        is_found = _is_found(rows[position]["id_sanpham"], hits)
        undecided += is_found is None
        if is_found is False:
            lost.append(rows[position]["id_sanpham"])
    return outcome(
        "stored_vectors_find_their_product",
        lost,
        "Materialize milvus_collection of the day again. If that does not help, the index is at fault: "
        "LABELING_MILVUS_INDEX=FLAT finds everything; `labeling doctor` tells which index is in use.",
        evidence={"searches": len(chosen), "searches_undecided": undecided},
    )


def _is_found(id_sanpham: str, hits: Sequence[Hit]) -> bool | None:
    """Whether a product is among the best hits; None where more products tie than were returned."""
    scores = {hit.id_sanpham: -math.inf if hit.score is None else hit.score for hit in hits}
    best = max(scores.values(), default=-math.inf)
    if id_sanpham in scores:
        return scores[id_sanpham] >= best - SAME_SCORE
    is_full_of_ties = len(scores) >= SEARCH_HITS and min(scores.values()) >= best - SAME_SCORE
    return None if is_full_of_ties else False


def data_label_equals_milvus(
    data_label: Mapping[str, str],
    milvus: Mapping[str, str],
    excused: Collection[str] = (),
    *,
    is_compared: bool = True,
) -> dg.AssetCheckResult:
    """Compare what the two stores hold for one day, in both directions.

    Both leave a product to the newest day that has it, so such a product is in neither mapping.

    Args:
        data_label: Description, or its hash, of each product that `data_label` holds for the day.
        milvus: The same of Milvus.
        excused: Products of the day in quarantine in `clip_vectors`: they have a label and no vectors.
        is_compared: False where Milvus does not hold the day in the same state yet, so that nothing can be said.
    """
    ids = {*data_label, *milvus} - {*excused}
    only_in_data_label = sorted(ids - {*milvus})
    only_in_milvus = sorted(ids - {*data_label})
    differing = sorted(id_ for id_ in ids & {*data_label} & {*milvus} if data_label[id_] != milvus[id_])
    return outcome(
        "data_label_equals_milvus",
        [*only_in_data_label, *only_in_milvus, *differing],
        "Materialize milvus_collection and data_label of the day again; `labeling heal` repairs many days.",
        evidence={
            "is_compared": is_compared,
            "only_in_data_label_ids": only_in_data_label[:20],
            "only_in_milvus_ids": only_in_milvus[:20],
            "differing_ids": differing[:20],
            "rows_only_in_data_label": len(only_in_data_label),
            "rows_only_in_milvus": len(only_in_milvus),
            "rows_differing": len(differing),
        },
    )
