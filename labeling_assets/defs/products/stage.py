"""What the seven assets have in common: the day, the clock, the quarantine, and the result with its metadata."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

import dagster as dg
import pyarrow as pa
from pydantic import BaseModel

from labeling_assets.errors import LabelingError, RowError
from labeling_assets.failures import as_dagster_failure
from labeling_assets.metadata import bar_chart, stage_metadata
from labeling_assets.products.records import to_table
from labeling_assets.resources import ProductDatabaseResource
from labeling_assets.services.day_tables import is_partial, mark_partial

if TYPE_CHECKING:
    StageResult = dg.MaterializeResult[Any]
else:
    StageResult = dg.MaterializeResult  # with a type parameter, Dagster refuses it for an asset that has checks
TABLE = dg.PythonObjectDagsterType(pa.Table, name="Table", description="Rows of one day, as an Arrow table.")


class Stage:
    """One stage at work on one day; errors of the platform leave it as Dagster failures.

    Attributes:
        day: The business day of the partition.
        name: Name of the asset.
    """

    def __init__(self, context: dg.AssetExecutionContext, product_database: ProductDatabaseResource) -> None:
        self.day = dt.date.fromisoformat(context.partition_key)
        self.name = context.asset_key.path[-1]
        self._log = context.log
        self._quarantine = product_database
        self._started = time.monotonic()

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None) -> None:
        if isinstance(error, LabelingError):
            raise as_dagster_failure(error) from error

    def table(self, records: Sequence[BaseModel], model: type[BaseModel], *, partial: bool) -> pa.Table:
        """The stage's rows as a table that remembers whether the day's crawl was limited."""
        return mark_partial(to_table(records, model), partial=partial)

    def waiting_for_retry(self) -> set[str]:
        """Products of the day that failed in any stage and may succeed later; what the stores have of them stays."""
        return {row.product_id for row in self._quarantine.quarantine().find(day=self.day, can_retry=True)}

    def result(
        self,
        value: pa.Table | None,
        *,
        rows_in: int,
        rows_out: int,
        failures: Mapping[str, RowError],
        metadata: Mapping[str, Any],
        checks: Sequence[dg.AssetCheckResult] = (),
    ) -> StageResult:
        """Report the failures to the quarantine and give Dagster the table, its metadata and its checks."""
        processed = {*value["id_sanpham"].to_pylist(), *failures} if value is not None and is_partial(value) else None
        self._quarantine.quarantine().report(self.day, self.name, failures, processed)
        for id_sanpham, error in list(failures.items())[:5]:
            self._log.warning("%r is in quarantine: %s: %s", id_sanpham, type(error).__name__, error)
        seconds = time.monotonic() - self._started
        reasons = bar_chart((type(error).__name__ for error in failures.values()), "Reasons of quarantine")
        counts = stage_metadata(rows_in, rows_out, len(failures), seconds)
        self._log.info(
            "%s of %s: %d in, %d out, %d in quarantine", self.name, self.day, rows_in, rows_out, len(failures)
        )
        return dg.MaterializeResult(
            value=value,
            metadata={**counts, "quarantine_reasons": reasons, **metadata},
            check_results=list(checks),
        )
