"""What the seven assets have in common: their days, the clock, files, quarantine, failed days, metadata and checks.

A run covers one day or a range of days. A stage works through its days one after the other, and each day is reported as
soon as it is done: its file, its materialization and its checks. A day that fails is remembered with the reason. In a
range the other days go on; the last stages of the run then fail it, so that Dagster shows the failed days as failed and
all others as done.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import dagster as dg
import pyarrow as pa
from dagster._core.definitions.source_asset import SYSTEM_METADATA_KEY_SOURCE_ASSET_OBSERVATION
from dagster._core.storage.tags import PARENT_RUN_ID_TAG

from labeling_assets.errors import BudgetSpentError, ConfigurationError, DayError, LabelingError, RowError
from labeling_assets.failures import raise_for_step
from labeling_assets.metadata import bar_chart, stage_metadata
from labeling_assets.resources import ProductDatabaseResource, StorageResource
from labeling_assets.services.day_state import DayFailures
from labeling_assets.services.day_tables import is_partial

BLOCKING_CHECKS = ("most_images_are_usable", "most_images_are_labeled", "most_images_are_embedded")
"""A day that fails one of these with severity ERROR goes no further."""
SPENDER_TAG = "labeling/spender"
"""Runs of one process with the same value share one budget."""
SHOWN_FAILURES = 10
MAX_RETRIES, RETRY_DELAY_SECONDS = 2, 10.0
"""Of a stage, where another try may help: after 10 and 20 seconds."""
REPORTED_BY_THE_STAGE = {SYSTEM_METADATA_KEY_SOURCE_ASSET_OBSERVATION: True}
"""Metadata of an output for which Dagster logs no materialization by itself. It would log one for every day of a range,
also for the failed ones; it has no other way to tell that some days of a range are not materialized."""

StageEvents = Iterator[Any]


@dataclass(frozen=True)
class DayResult:
    """What a stage made of one day.

    Attributes:
        table: The rows to keep, with the marks of the table they were made of; None where the stage keeps no file.
        rows_in: Rows read.
        rows_out: Rows that are as they should be.
        failures: Error of each row that goes to the quarantine, by product.
        metadata: What the stage tells beside its counts.
        checks: What was checked.
        once_kept: Called when the file is written and the failures are in quarantine.
    """

    table: pa.Table | None
    rows_in: int
    rows_out: int
    metadata: Mapping[str, Any]
    failures: Mapping[str, RowError] = field(default_factory=dict)
    checks: Sequence[dg.AssetCheckResult] = ()
    once_kept: Callable[[], None] = lambda: None


class Stage:
    """One stage at work on the days of a run.

    Attributes:
        name: Name of the asset.
        run_days: All days of the run.
        paid: What the day under way has cost so far, as in its metadata; told as an observation of the asset where the
            day fails, since there is no materialization then. Set by stages that pay for something.
    """

    def __init__(
        self,
        context: dg.AssetExecutionContext,
        product_database: ProductDatabaseResource,
        storage: StorageResource,
    ) -> None:
        self.name = context.asset_key.path[-1]
        self.run_days = [dt.date.fromisoformat(key) for key in context.partition_keys]
        self.paid: Callable[[], Mapping[str, float]] = dict[str, float]
        self._context = context
        self._database = product_database
        self._storage = storage

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None) -> None:
        """Errors leave the block as Dagster failures; what cancels the run leaves it as it is."""
        if isinstance(error, Exception):
            tries = self._context.op_execution_context.retry_number
            raise_for_step(error, tries, max_retries=MAX_RETRIES, first_delay_seconds=RETRY_DELAY_SECONDS)

    @property
    def spender(self) -> str:
        """The name under which this run shares a budget, with other runs where its caller says so.

        Raises:
            ConfigurationError: The run repeats another one. What that one spent was known to its process alone, so the
                whole budget would be spent again.
        """
        run = self._context.run
        if repeated := run.tags.get(PARENT_RUN_ID_TAG):
            raise ConfigurationError(
                f"This run repeats run {repeated}, and what that one spent of its budget is not known here.",
                "Launch the days anew, not as a re-execution, with what is left as the budget.",
            )
        return run.tags.get(SPENDER_TAG, run.run_id)

    def read(self, asset: str, day: dt.date) -> pa.Table:
        """The file of an asset of a day."""
        return self._storage.read(asset, day)

    def waiting_for_retry(self, day: dt.date) -> set[str]:
        """Products of the day that failed in any stage and may succeed later; what the stores have of them stays."""
        return {row.product_id for row in self._database.quarantine().find(day=day, can_retry=True)}

    def record_synced(self, day: dt.date, fingerprint: str | None) -> None:
        """Remember which state of the source this stage's store now holds of a day."""
        self._database.synced_days().record(day, self.name, fingerprint)

    def each_day(self, work: Callable[[dt.date], DayResult]) -> StageEvents:
        """Work on every day that no earlier stage of the run has failed, and yield Dagster's events.

        Raises:
            dg.Failure: The only day, every day, or a service failed; or, in the last stage, any day of the run.
        """
        failures = DayFailures(self._database.get().engine)
        run_id = self._context.run.run_id
        failed = {failure.day for failure in failures.find(run_id=run_id)} if self._is_range else set()
        days = [day for day in self.run_days if day not in failed]
        has_done_any = False
        for position, day in enumerate(days):
            try:
                events = yield from self._one_day_or_its_costs(day, work)
            except LabelingError as error:
                if self._is_range and error.can_retry:  # a service that is down fails the other days as well
                    raise
                failures.report(day, self.name, run_id, error)
                if not self._is_range:
                    raise
                self._context.log.error("%s of %s failed: %s", self.name, day, error)  # noqa: TRY400 - it tells all
                if isinstance(error, BudgetSpentError):
                    for later in days[position + 1 :]:
                        failures.report(later, self.name, run_id, _not_begun(error))
                    break
            except Exception as error:
                failures.report(day, self.name, run_id, _unexpected(error))
                if not self._is_range:
                    raise
                self._context.log.exception("%s of %s failed.", self.name, day)
            else:
                failures.clear(day, self.name)
                has_done_any = True
                yield from events
        if self._is_range:
            yield from self._end_of_range(failures, has_done_any=has_done_any)

    @property
    def _is_range(self) -> bool:
        return len(self.run_days) > 1

    def _one_day_or_its_costs(
        self, day: dt.date, work: Callable[[dt.date], DayResult]
    ) -> Generator[Any, None, list[Any]]:
        self.paid = dict[str, float]
        try:
            return self._one_day(day, work)
        except Exception:  # whatever it is goes on, once what the day cost is told
            if any((paid := self.paid()).values()):
                # Yielded, since the result of a run lacks what was only logged before a step failed.
                yield dg.AssetObservation(self._context.asset_key, partition=str(day), metadata=paid)
            raise

    def _one_day(self, day: dt.date, work: Callable[[dt.date], DayResult]) -> list[Any]:
        """Do a day, keep what it gives, and return its events."""
        started = time.monotonic()
        result = work(day)
        for check in result.checks:
            if (
                check.check_name in BLOCKING_CHECKS
                and not check.passed
                and check.severity is dg.AssetCheckSeverity.ERROR
            ):
                self._report_quarantine(day, result)
                self._context.log_event(self._evaluation(day, check))
                raise _blocked(check)
        size = self._storage.write(self.name, day, result.table) if result.table is not None else {}
        self._report_quarantine(day, result)
        result.once_kept()
        seconds = time.monotonic() - started
        counts = stage_metadata(result.rows_in, result.rows_out, len(result.failures), seconds)
        reasons = bar_chart((type(error).__name__ for error in result.failures.values()), "Reasons of quarantine")
        self._context.log.info("%s of %s: %s", self.name, day, f"{result.rows_in} in, {result.rows_out} out")
        metadata = {**counts, "quarantine_reasons": reasons, **result.metadata, **size}
        if not self._is_range:
            return [dg.MaterializeResult(metadata=metadata, check_results=list(result.checks))]
        materialization = dg.AssetMaterialization(self._context.asset_key, partition=str(day), metadata=metadata)
        return [materialization, *(self._evaluation(day, check) for check in result.checks)]

    def _report_quarantine(self, day: dt.date, result: DayResult) -> None:
        table, processed = result.table, None
        if table is not None and is_partial(table):
            processed = {*table["id_sanpham"].to_pylist(), *result.failures}
        self._database.quarantine().report(day, self.name, result.failures, processed)
        for id_sanpham, error in list(result.failures.items())[:5]:
            self._context.log.warning("%r is in quarantine: %s: %s", id_sanpham, type(error).__name__, error)

    def _evaluation(self, day: dt.date, check: dg.AssetCheckResult) -> dg.AssetCheckEvaluation:
        return dg.AssetCheckEvaluation(
            asset_key=self._context.asset_key,
            check_name=check.check_name or "",
            passed=check.passed,
            metadata=check.metadata,
            severity=check.severity,
            description=check.description,
            partition=str(day),
        )

    def _end_of_range(self, failures: DayFailures, *, has_done_any: bool) -> StageEvents:
        yield dg.MaterializeResult(metadata=REPORTED_BY_THE_STAGE)
        for spec in self._context.assets_def.check_specs:  # Dagster asks for them, beside the evaluations of the days
            yield dg.Output(None, output_name=spec.get_python_identifier())
        found = failures.find(run_id=self._context.run.run_id)
        if found and (self._is_last_of_the_run or not has_done_any):
            shown = [f"{each.day} in {each.stage}: {each.message} {each.remedy}" for each in found[:SHOWN_FAILURES]]
            more = [f"and {len(found) - SHOWN_FAILURES} more"] if len(found) > SHOWN_FAILURES else []
            raise dg.Failure(
                f"{len(found)} of {len(self.run_days)} days failed. " + "\n".join([*shown, *more]),
                metadata={
                    "error_class": found[0].error_class,
                    "remedy": found[0].remedy or "See the message.",
                    "can_retry": False,
                    "failed_days": dg.MetadataValue.json([str(each.day) for each in found]),
                },
                allow_retries=False,
            )

    @property
    def _is_last_of_the_run(self) -> bool:
        """Whether no other stage of this run waits for this one."""
        assets = self._context.job_def.asset_layer
        waiting = assets.asset_graph.get(self._context.asset_key).child_keys & assets.selected_asset_keys
        return not waiting


def _blocked(check: dg.AssetCheckResult) -> DayError:
    metadata = check.metadata or {}
    remedy = metadata.get("what_to_do")
    return DayError(
        f"Check {check.check_name} stops the day: {check.description or 'too many rows are in quarantine'}.",
        str(getattr(remedy, "value", remedy) or ""),
    )


def _not_begun(error: BudgetSpentError) -> BudgetSpentError:
    return BudgetSpentError("The day was not begun, because the budget of the run is spent.", error.remedy)


def _unexpected(error: Exception) -> DayError:
    return DayError(
        f"{type(error).__name__}: {str(error)[:500]}", "The log of the run has the stack trace; please report it."
    )
