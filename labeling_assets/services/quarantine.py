"""The quarantine: rows that a stage could not process, with the reason, until they succeed or leave the day.

Each stage reports its failures of a day once, at its end; what it does not report has succeeded or is gone.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from labeling_assets.errors import RowError
from labeling_assets.services.postgres import database_errors, waits_out_outages
from labeling_assets.services.tables import quarantine

BATCH_ROWS = 1000


@dataclass(frozen=True)
class QuarantinedRow:
    """One row of the quarantine; see the columns of `tables.quarantine`."""

    product_id: str
    day: dt.date
    stage: str
    error_class: str
    message: str
    can_retry: bool
    attempts: int
    first_seen: dt.datetime
    last_seen: dt.datetime


class Quarantine:
    """Table `labeling.quarantine`."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    @waits_out_outages
    def report(
        self,
        day: dt.date,
        stage: str,
        failures: Mapping[str, RowError],
        processed: Collection[str] | None = None,
    ) -> None:
        """Replace what the stage said of the day: failures are counted up, all else leaves the quarantine.

        Args:
            day: The business day.
            stage: Name of the asset.
            failures: Error by product.
            processed: Where only a part of the day was processed, the products of that part; no other row leaves.
        """
        rows = [
            {
                "product_id": product_id,
                "day": day,
                "stage": stage,
                "error_class": type(error).__name__,
                "message": str(error),
                "can_retry": error.can_retry,
                "attempts": 1,
            }
            for product_id, error in sorted(failures.items())
        ]
        gone = sa.delete(quarantine).where(
            quarantine.c.day == day,
            quarantine.c.stage == stage,
            quarantine.c.product_id != sa.all_(sa.literal(list(failures), sa.ARRAY(sa.Text))),
        )
        if processed is not None:
            gone = gone.where(quarantine.c.product_id == sa.any_(sa.literal(list(processed), sa.ARRAY(sa.Text))))
        with database_errors("The quarantine cannot be written"), self._engine.begin() as connection:
            connection.execute(gone)
            for start in range(0, len(rows), BATCH_ROWS):
                statement = insert(quarantine).values(rows[start : start + BATCH_ROWS])
                renewed = {name: statement.excluded[name] for name in ("error_class", "message", "can_retry")}
                statement = statement.on_conflict_do_update(
                    index_elements=["product_id", "day", "stage"],
                    set_={**renewed, "attempts": quarantine.c.attempts + 1, "last_seen": sa.func.now()},
                )
                connection.execute(statement)

    @waits_out_outages
    def find(
        self,
        *,
        day: dt.date | None = None,
        stage: str | None = None,
        product_id: str | None = None,
        can_retry: bool | None = None,
        limit: int | None = None,
    ) -> Sequence[QuarantinedRow]:
        """Rows that match every condition given, newest day first."""
        query = sa.select(quarantine).order_by(quarantine.c.day.desc(), quarantine.c.stage, quarantine.c.product_id)
        wanted = {"day": day, "stage": stage, "product_id": product_id, "can_retry": can_retry}
        for name, value in wanted.items():
            if value is not None:
                query = query.where(quarantine.c[name] == value)
        with database_errors("The quarantine cannot be read"), self._engine.connect() as connection:
            rows = connection.execute(query.limit(limit)).mappings().all()
        return [QuarantinedRow(**row) for row in rows]

    @waits_out_outages
    def counts(self, day: dt.date | None = None) -> dict[tuple[str, str], int]:
        """Number of rows by stage and error class."""
        query = sa.select(quarantine.c.stage, quarantine.c.error_class, sa.func.count()).group_by(
            quarantine.c.stage, quarantine.c.error_class
        )
        if day is not None:
            query = query.where(quarantine.c.day == day)
        with database_errors("The quarantine cannot be read"), self._engine.connect() as connection:
            return {(stage, error_class): count for stage, error_class, count in connection.execute(query)}
