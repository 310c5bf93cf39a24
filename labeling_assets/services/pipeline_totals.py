"""Totals over the tables of ours, for the metrics: how far the days are, what is in quarantine, what labels cost.

Each method is one short query that gives up rather than waits: whoever scrapes the metrics comes again. The tables
themselves are owned by `day_state.py`, `quarantine.py` and `ledger.py`.
"""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass

import sqlalchemy as sa

from labeling_assets.services.day_state import STORES, UNKNOWN
from labeling_assets.services.postgres import database_errors
from labeling_assets.services.tables import day_failures, label_ledger, quarantine, synced_days

STATEMENT_SECONDS = 5


@dataclass(frozen=True)
class DayTotals:
    """How far the days of a window are.

    Attributes:
        synced: Days that every store holds.
        missing: Days that a store lacks; failed ones among them.
        failed: Days on which a stage failed and has not succeeded since.
        newest_synced: The newest day that every store holds, also before the window; None where there is none.
    """

    synced: int
    missing: int
    failed: int
    newest_synced: dt.date | None


@dataclass(frozen=True)
class LedgerTotals:
    """What the label ledger holds, and what it cost.

    Attributes:
        labeled: Images with a label.
        refused: Images that the model gave no usable label for.
        model_calls: Requests made for all of them.
        prompt_tokens: Tokens read.
        output_tokens: Tokens written.
        model_seconds: Time that the model took.
    """

    labeled: int
    refused: int
    model_calls: int
    prompt_tokens: int
    output_tokens: int
    model_seconds: float


class PipelineTotals:
    """Totals over the tables of one database.

    Every method raises `ServiceUnavailableError` when PostgreSQL does not answer within seconds, and
    `ConfigurationError` when a table is missing.

    Args:
        engine: From `create_engine`, on a migrated database.
    """

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def days(self, first: dt.date, last: dt.date) -> DayTotals:
        """How far the days from `first` to `last` are."""
        is_complete = sa.func.count() == len(STORES)
        holds_a_state = sa.and_(synced_days.c.store.in_(STORES), synced_days.c.fingerprint != UNKNOWN)
        complete = sa.select(synced_days.c.day).where(holds_a_state).group_by(synced_days.c.day).having(is_complete)
        in_window = complete.where(synced_days.c.day.between(first, last)).subquery()
        newest = complete.where(synced_days.c.day <= last).order_by(synced_days.c.day.desc()).limit(1)
        failed = sa.select(sa.func.count(sa.distinct(day_failures.c.day)))
        with self._connect() as connection:
            synced = connection.execute(sa.select(sa.func.count()).select_from(in_window)).scalar_one()
            return DayTotals(
                synced=synced,
                missing=(last - first).days + 1 - synced,
                failed=connection.execute(failed.where(day_failures.c.day.between(first, last))).scalar_one(),
                newest_synced=connection.execute(newest).scalar_one_or_none(),
            )

    def quarantined(self) -> dict[tuple[str, str, bool], int]:
        """Rows in quarantine by stage, class of error, and whether a retry can help."""
        by = (quarantine.c.stage, quarantine.c.error_class, quarantine.c.can_retry)
        with self._connect() as connection:
            rows = connection.execute(sa.select(*by, sa.func.count()).group_by(*by))
            return {(stage, error_class, can_retry): count for stage, error_class, can_retry, count in rows}

    def ledger(self) -> LedgerTotals:
        """What the label ledger holds; it reads the whole table, some 0.1 s for a hundred thousand images."""
        table = label_ledger.c
        refused = sa.func.count().filter(table.error_class.is_not(None))
        sums = [
            sa.func.coalesce(sa.func.sum(column), 0)
            for column in (table.model_calls, table.prompt_tokens, table.output_tokens, table.seconds)
        ]
        with self._connect() as connection:
            entries, without_label, calls, prompt, output, seconds = connection.execute(
                sa.select(sa.func.count(), refused, *sums)
            ).one()
        return LedgerTotals(entries - without_label, without_label, calls, prompt, output, float(seconds))

    @contextlib.contextmanager
    def _connect(self) -> Iterator[sa.Connection]:
        with database_errors("The totals cannot be read"), self._engine.connect() as connection:
            limit = sa.text("select set_config('statement_timeout', :seconds, true)")
            connection.execute(limit, {"seconds": f"{STATEMENT_SECONDS}s"})
            yield connection
