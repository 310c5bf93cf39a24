"""What must be true of what a stage just made, with the evidence and what to do.

Pure functions from a stage's table to a check result; the assets log them with each day's materialization, so a check
never judges an older day by mistake. The names are sentences that hold when the check passes.

Here is whether a table is as it was declared; whether the models work as they should is in `model_checks.py`, what the
stores hold in `store_checks.py`, and which days are missing in `day_checks.py`. `DESCRIPTIONS` has the checks of all.
"""

from __future__ import annotations

import datetime as dt
import itertools
import warnings
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import dagster as dg
import numpy as np
import pyarrow as pa
from pydantic import ValidationError

from labeling_assets.errors import RowError
from labeling_assets.products.labels import ProductLabels
from labeling_assets.products.records import LABEL_FIELDS, EmbeddedProduct, arrow_schema
from labeling_assets.products.vectors import DESCRIPTION_VECTOR, IMAGE_VECTOR, vector_matrix

SAMPLE_IDS = 20
QUARANTINE_WARN_SHARE = 0.2
HARD_LIMIT_MIN_ROWS = 10
"""Of fewer rows, a few bad ones are a large share."""
FALLBACK_WARN_SHARE = 0.2
CONTRADICTION_WARN_SHARE = 0.02
"""Titles and labels that contradict each other although the label is right are 0.3 % in the demo catalogue."""
UNIT_LENGTH_TOLERANCE = 1e-3

WARN, ERROR = dg.AssetCheckSeverity.WARN, dg.AssetCheckSeverity.ERROR

DESCRIPTIONS = {
    "columns_match_schema": "The table has the columns that are declared, with their types and nullability.",
    "rows_lie_in_the_day": "Every row was published on the business day of its partition.",
    "ids_are_unique": "No product stands twice in the day.",
    "most_images_are_usable": (
        f"At most {QUARANTINE_WARN_SHARE:.0%} of the day's images are in quarantine; over "
        "LABELING_MAX_QUARANTINED_SHARE the day fails."
    ),
    "most_images_are_labeled": (
        f"At most {QUARANTINE_WARN_SHARE:.0%} of the day's labels are in quarantine; over "
        "LABELING_MAX_QUARANTINED_SHARE the day fails."
    ),
    "labels_match_schema": "Every label follows the label schema.",
    "most_labels_say_something": (
        f"In at most {FALLBACK_WARN_SHARE:.0%} of the labels no subject, no words, and nothing of product, people or "
        "occasion was recognised."
    ),
    "label_distribution_is_steady": "The shares of label values are about those of the four weeks before.",
    "labels_agree_with_titles": (
        f"At most {CONTRADICTION_WARN_SHARE:.0%} of the labels contradict the title in colour, product, recipient or "
        "occasion; all that do are listed."
    ),
    "most_images_are_embedded": (
        f"At most {QUARANTINE_WARN_SHARE:.0%} of the day's labeled products are in quarantine without vectors; over "
        "LABELING_MAX_QUARANTINED_SHARE the day fails."
    ),
    "vectors_are_unit_length": "Every vector is finite and of length one.",
    "vectors_fit_the_embedder": "Every vector is of the embedder in use and has its dimension.",
    "vectors_differ": "Different images, and products of different title or label, have different vectors.",
    "milvus_holds_every_labeled_product": (
        "Milvus holds every product of the day as it is, or for a newer day, and no other product for this day."
    ),
    "stored_vectors_find_their_product": "A search with the image vector of a product of the day finds that product.",
    "data_label_holds_every_labeled_product": "Every product of the day is in data_label, for this day or a newer one.",
    "data_label_equals_milvus": "Milvus and data_label hold the same products for the day, with the same description.",
    "yesterday_is_present": "Yesterday is done.",
    "no_partitions_left_failed": "No day is left failed.",
}


def specs(
    asset: str, *names: str, partitions_def: dg.PartitionsDefinition[str] | None = None
) -> list[dg.AssetCheckSpec]:
    """Check specs of an asset, described by `DESCRIPTIONS`; with partitions, the UI shows each day's result."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.PreviewWarning)  # partitions of checks are in preview
        return [
            dg.AssetCheckSpec(name, asset=asset, description=DESCRIPTIONS[name], partitions_def=partitions_def)
            for name in names
        ]


def columns_match_schema(table: pa.Table, declared: pa.Schema) -> dg.AssetCheckResult:
    """Compare names, types and nullability of the columns; their order does not matter.

    Args:
        table: The table of any stage.
        declared: What it should be: `arrow_schema` of the record, `embedded_schema` where it has vectors.
    """
    names = Counter(table.column_names)
    wanted = {field.name: _column_type(field) for field in declared}
    found = {field.name: _column_type(field) for field in table.schema}
    missing = [name for name in wanted if name not in names]
    extra = [name for name, count in names.items() if name not in wanted or count > 1]
    differing = [name for name in wanted if name in found and found[name] != wanted[name]]
    return outcome(
        "columns_match_schema",
        [*missing, *extra, *differing],
        "Materialize the day again: its file is of another release. If that does not help, "
        "compare labeling_assets/products/records.py with the asset.",
        unit="columns",
        evidence={
            "missing_columns": missing,
            "extra_columns": extra,
            "differing_columns": {name: f"{found[name]}, declared {wanted[name]}" for name in differing},
        },
    )


def embedded_schema(dimension: int) -> pa.Schema:
    """The schema of `clip_vectors`: that of its record, and the two vectors of a dimension."""
    vectors = [
        pa.field(name, pa.list_(pa.float32(), dimension), nullable=False) for name in (IMAGE_VECTOR, DESCRIPTION_VECTOR)
    ]
    return pa.schema([*arrow_schema(EmbeddedProduct), *vectors])


def rows_lie_in_the_day(table: pa.Table, day: dt.date) -> dg.AssetCheckResult:
    """Compare the business day of each row with the partition."""
    strangers = [row["id_sanpham"] for row in table.select(["id_sanpham", "date"]).to_pylist() if row["date"] != day]
    return outcome("rows_lie_in_the_day", strangers, "Compare LABELING_TIMEZONE with the clock of the source.")


def ids_are_unique(table: pa.Table) -> dg.AssetCheckResult:
    """Look for ids that stand twice."""
    counts = Counter(map(str, table["id_sanpham"].to_pylist()))
    twice = [id_sanpham for id_sanpham, count in counts.items() if count > 1]
    return outcome(
        "ids_are_unique", twice, "Materialize deduped_products of the day again; report it if that does not help."
    )


def quarantined_share_is_low(
    name: str, failures: Mapping[str, RowError], rows_in: int, hard_limit: float = 1.0
) -> dg.AssetCheckResult:
    """Warn when more rows than usual went into quarantine, and fail when so many did that the cause cannot be the rows.

    Args:
        name: `most_images_are_usable`, `most_images_are_labeled` or `most_images_are_embedded`.
        failures: Error by product.
        rows_in: Rows that the stage was given.
        hard_limit: LABELING_MAX_QUARANTINED_SHARE; it holds for days of at least `HARD_LIMIT_MIN_ROWS` rows.
    """
    share = len(failures) / rows_in if rows_in else 0.0
    is_over_hard_limit = share > hard_limit and rows_in >= HARD_LIMIT_MIN_ROWS
    remedy = "`labeling quarantine list` shows the reasons; `labeling quarantine retry` tries again."
    if is_over_hard_limit:
        remedy += " So many rows have one cause outside them: look at image hosts, network, storage and models first."
    return outcome(
        name,
        sorted(failures) if share > QUARANTINE_WARN_SHARE or is_over_hard_limit else [],
        remedy,
        severity=ERROR if is_over_hard_limit else WARN,
        evidence={
            "quarantined_share": share,
            "rows_in": rows_in,
            "warning_above_share": QUARANTINE_WARN_SHARE,
            "failure_above_share": hard_limit,
            "reasons": dict(Counter(type(error).__name__ for error in failures.values()).most_common()),
        },
    )


def labels_match_schema(table: pa.Table) -> dg.AssetCheckResult:
    """Validate every stored label anew."""
    faulty = [
        row["id_sanpham"]
        for row in table.select(["id_sanpham", *LABEL_FIELDS]).to_pylist()
        if not _is_valid_label({name: row[name] for name in LABEL_FIELDS})
    ]
    return outcome(
        "labels_match_schema", faulty, "Materialize the day again; labels are validated before they are kept."
    )


def vectors_are_unit_length(table: pa.Table, columns: Sequence[str]) -> dg.AssetCheckResult:
    """Measure every vector."""
    faulty: set[str] = set()
    ids = np.asarray(table["id_sanpham"].to_pylist(), dtype=object)
    for column in columns:
        lengths = np.linalg.norm(vector_matrix(table, column), axis=1)
        is_unit = np.isfinite(lengths) & (np.abs(lengths - 1) <= UNIT_LENGTH_TOLERANCE)
        faulty.update(ids[~is_unit])
    return outcome("vectors_are_unit_length", sorted(faulty), "Run `labeling doctor`: the embedder is at fault.")


def holds_every_product(name: str, wanted: Collection[str], held: Collection[str]) -> dg.AssetCheckResult:
    """Compare the day's products with those that a store holds, for whatever day."""
    missing = sorted(set(wanted) - set(held))
    return outcome(name, missing, "Materialize the day again; `labeling heal` repairs many days.")


def outcome(
    name: str,
    offenders: Sequence[str],
    remedy: str,
    *,
    severity: dg.AssetCheckSeverity = ERROR,
    unit: str = "rows",
    passed: bool | None = None,
    evidence: Mapping[str, Any] | None = None,
    asset: str | None = None,
) -> dg.AssetCheckResult:
    """The result of a check: how many offend, which (a capped sample), and what to do.

    Args:
        name: Name of the check.
        offenders: What offends, all of it.
        remedy: What an operator can do: a command, or a place to look.
        severity: Of a failure.
        unit: What the offenders are, for the names of the metadata.
        passed: Whether it passes; by default where nothing offends.
        evidence: Further metadata; lists and mappings become JSON.
        asset: Key of the asset, where the check is not evaluated by its own asset.
    """
    passed = not offenders if passed is None else passed
    sample = list(itertools.islice(offenders, SAMPLE_IDS))
    more = {key: _metadata(value) for key, value in (evidence or {}).items()}
    return dg.AssetCheckResult(
        asset_key=asset,
        check_name=name,
        passed=passed,
        severity=severity,
        metadata={
            f"offending_{unit}": len(offenders),
            "sample_ids" if unit == "rows" else f"sample_{unit}": dg.MetadataValue.json(sample),
            "what_to_do": "Nothing." if passed else remedy,
            **more,
        },
    )


def _metadata(value: object) -> Any:  # noqa: ANN401 - what Dagster takes
    """Lists and mappings as JSON, a number as a number of its type, so that plots have no gaps."""
    return dg.MetadataValue.json(value) if isinstance(value, list | dict) else value


def _column_type(field: pa.Field[Any]) -> str:
    """Type and nullability; items of a list are compared by type alone, since Parquet may rename them."""
    kind = field.type
    name = f"list<{kind.value_type}>" if pa.types.is_list(kind) else str(kind)
    if pa.types.is_fixed_size_list(kind):
        name = f"fixed_size_list<{kind.value_type}>[{kind.list_size}]"
    return f"{name}{'' if field.nullable else ' not null'}"


def _is_valid_label(values: Mapping[str, object]) -> bool:
    try:
        return ProductLabels.model_validate(values).model_dump() == dict(values)
    except ValidationError:
        return False
