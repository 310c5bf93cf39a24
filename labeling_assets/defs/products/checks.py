"""What must be true of what a stage just made, with the evidence and what to do.

Pure functions from a stage's table to a check result; the assets return them with their materialization, so a check
never judges an older day by mistake. The names are sentences that hold when the check passes.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

import dagster as dg
import numpy as np
import pyarrow as pa
from pydantic import ValidationError

from labeling_assets.errors import RowError
from labeling_assets.products.labels import ProductLabels
from labeling_assets.products.records import LABEL_FIELDS
from labeling_assets.products.vectors import vector_matrix

SAMPLE_IDS = 20
QUARANTINE_WARN_SHARE = 0.2
UNIT_LENGTH_TOLERANCE = 1e-3

DESCRIPTIONS = {
    "rows_lie_in_the_day": "Every row was published on the business day of its partition.",
    "ids_are_unique": "No product stands twice in the day.",
    "most_images_are_usable": f"At most {QUARANTINE_WARN_SHARE:.0%} of the day's images are in quarantine.",
    "most_images_are_labeled": f"At most {QUARANTINE_WARN_SHARE:.0%} of the day's labels are in quarantine.",
    "labels_match_schema": "Every label follows the label schema.",
    "vectors_are_unit_length": "Every vector is finite and of length one.",
    "milvus_holds_every_labeled_product": "Every product of the day is in Milvus, for this day or a newer one.",
    "data_label_holds_every_labeled_product": "Every product of the day is in data_label, for this day or a newer one.",
}


def specs(asset: str, *names: str) -> list[dg.AssetCheckSpec]:
    """Check specs of an asset, described by `DESCRIPTIONS`."""
    return [dg.AssetCheckSpec(name, asset=asset, description=DESCRIPTIONS[name]) for name in names]


def rows_lie_in_the_day(table: pa.Table, day: dt.date) -> dg.AssetCheckResult:
    """Compare the business day of each row with the partition."""
    strangers = [row["id_sanpham"] for row in table.select(["id_sanpham", "date"]).to_pylist() if row["date"] != day]
    return _result("rows_lie_in_the_day", strangers, "Compare LABELING_TIMEZONE with the clock of the source.")


def ids_are_unique(table: pa.Table) -> dg.AssetCheckResult:
    """Look for ids that stand twice."""
    counts = Counter(map(str, table["id_sanpham"].to_pylist()))
    twice = [id_sanpham for id_sanpham, count in counts.items() if count > 1]
    return _result("ids_are_unique", twice, "Report it: deduplication is at fault.")


def quarantined_share_is_low(name: str, failures: Mapping[str, RowError], rows_in: int) -> dg.AssetCheckResult:
    """Warn when more rows than usual went into quarantine."""
    share = len(failures) / rows_in if rows_in else 0.0
    result = _result(
        name,
        sorted(failures) if share > QUARANTINE_WARN_SHARE else [],
        "`labeling quarantine list` shows the reasons; `labeling quarantine retry` tries again.",
        severity=dg.AssetCheckSeverity.WARN,
    )
    return result._replace(metadata={**result.metadata, "quarantined_share": dg.MetadataValue.float(share)})


def labels_match_schema(table: pa.Table) -> dg.AssetCheckResult:
    """Validate every stored label anew."""
    faulty = [
        row["id_sanpham"]
        for row in table.select(["id_sanpham", *LABEL_FIELDS]).to_pylist()
        if not _is_valid_label({name: row[name] for name in LABEL_FIELDS})
    ]
    return _result(
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
    return _result("vectors_are_unit_length", sorted(faulty), "Run `labeling doctor`: the embedder is at fault.")


def holds_every_product(name: str, wanted: Collection[str], held: Collection[str]) -> dg.AssetCheckResult:
    """Compare the day's products with those that a store holds."""
    missing = sorted(set(wanted) - set(held))
    return _result(name, missing, "Materialize the day again.")


def _is_valid_label(values: Mapping[str, object]) -> bool:
    try:
        return ProductLabels.model_validate(values).model_dump() == dict(values)
    except ValidationError:
        return False


def _result(
    name: str,
    offenders: Sequence[str],
    remedy: str,
    severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR,
) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        check_name=name,
        passed=not offenders,
        severity=severity,
        metadata={
            "offending_rows": len(offenders),
            "sample_ids": dg.MetadataValue.json(list(offenders[:SAMPLE_IDS])),
            "what_to_do": "Nothing." if not offenders else remedy,
        },
    )
