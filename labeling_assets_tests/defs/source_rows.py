"""Rows of the source table by day, and days that the stores hold."""

from __future__ import annotations

import datetime as dt

import sqlalchemy as sa

from labeling_assets.defs.products import columns
from labeling_assets.services.day_state import STORES, SyncedDays
from labeling_assets.services.source_days import SourceDays

TABLE = "ai_craw.product_marketing_summary"
SETTINGS = columns.SETTINGS
TODAY = dt.datetime.now(SETTINGS.zone).date()


def ago(days: int) -> dt.date:
    return TODAY - dt.timedelta(days=days)


YESTERDAY = ago(1)


def insert(engine: sa.Engine, *days: dt.date) -> None:
    statement = sa.text(f"insert into {TABLE} (product_id, image, published_at) values ('p', 'x', :at)")
    with engine.begin() as connection:
        for day in days:
            connection.execute(statement, {"at": dt.datetime.combine(day, dt.time(12), SETTINGS.zone)})


def process(engine: sa.Engine, *days: dt.date) -> None:
    """Record that both stores hold the days."""
    for day in days:
        fingerprint = SourceDays(engine, TABLE, SETTINGS.zone).fingerprints(day, day)[day]
        for store in STORES:
            SyncedDays(engine).record(day, store, fingerprint)
