"""What is known of whole days: which state of the source each store holds, and which days failed, why.

Rows are recorded by the stages; the sensor, the nightly backfill, healing and alerts read them. Single rows that failed
are in `quarantine.py`.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from labeling_assets.errors import LabelingError
from labeling_assets.services.postgres import database_errors, waits_out_outages
from labeling_assets.services.tables import day_failures, synced_days

STORES = ("milvus_collection", "data_label")
"""The stores that follow the source, by the names of their assets."""
UNKNOWN = "unknown"
"""No fingerprint. A day without a record is another thing: nothing of it was ever stored."""


class SyncedDays:
    """Table `labeling.synced_days`: the fingerprint of the source rows that each store holds of a day."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    @waits_out_outages
    def record(self, day: dt.date, store: str, fingerprint: str | None) -> None:
        """Remember what a store holds of a day.

        Args:
            day: The business day.
            store: One of `STORES`.
            fingerprint: State of the source rows; None when the store holds only a part of the day, or something else.
                The day then differs from every state of the source.
        """
        values = {"fingerprint": fingerprint or UNKNOWN, "synced_at": sa.func.now()}
        statement = insert(synced_days).values(day=day, store=store, **values)
        statement = statement.on_conflict_do_update(index_elements=["day", "store"], set_=values)
        with database_errors("The synced days cannot be written"), self._engine.begin() as connection:
            connection.execute(statement)

    @waits_out_outages
    def find(self, first: dt.date, last: dt.date) -> dict[dt.date, dict[str, str]]:
        """Fingerprint by store of each day from `first` to `last` that any store holds."""
        query = sa.select(synced_days).where(synced_days.c.day.between(first, last)).order_by(synced_days.c.day)
        found: dict[dt.date, dict[str, str]] = {}
        with database_errors("The synced days cannot be read"), self._engine.connect() as connection:
            for row in connection.execute(query):
                found.setdefault(row.day, {})[row.store] = row.fingerprint
        return found


@dataclass(frozen=True)
class DayFailure:
    """Why a stage failed on a day; see the columns of `tables.day_failures`."""

    day: dt.date
    stage: str
    run_id: str
    error_class: str
    message: str
    remedy: str
    failed_at: dt.datetime


class DayFailures:
    """Table `labeling.day_failures`."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    @waits_out_outages
    def report(self, day: dt.date, stage: str, run_id: str, error: LabelingError) -> None:
        """Remember why a stage failed on a day; the newest reason counts."""
        values = {
            "run_id": run_id,
            "error_class": type(error).__name__,
            "message": error.message,
            "remedy": error.remedy,
            "failed_at": sa.func.now(),
        }
        statement = insert(day_failures).values(day=day, stage=stage, **values)
        statement = statement.on_conflict_do_update(index_elements=["day", "stage"], set_=values)
        with database_errors("The failed days cannot be written"), self._engine.begin() as connection:
            connection.execute(statement)

    @waits_out_outages
    def clear(self, day: dt.date, stage: str) -> None:
        """Forget that a stage failed on a day, because it has succeeded."""
        statement = sa.delete(day_failures).where(day_failures.c.day == day, day_failures.c.stage == stage)
        with database_errors("The failed days cannot be written"), self._engine.begin() as connection:
            connection.execute(statement)

    @waits_out_outages
    def find(self, *, run_id: str | None = None, days: Sequence[dt.date] | None = None) -> list[DayFailure]:
        """Failures that match every condition given, oldest day first."""
        query = sa.select(day_failures).order_by(day_failures.c.day, day_failures.c.failed_at)
        if run_id is not None:
            query = query.where(day_failures.c.run_id == run_id)
        if days is not None:
            query = query.where(day_failures.c.day == sa.any_(sa.literal(list(days), sa.ARRAY(sa.Date))))
        with database_errors("The failed days cannot be read"), self._engine.connect() as connection:
            return [DayFailure(**row) for row in connection.execute(query).mappings()]
