"""The partitions of the products domain: one business day each."""

from __future__ import annotations

import dagster as dg

from labeling_assets.settings import Settings

_settings = Settings.load()

# A day becomes a partition when it is over in the business time zone, so that it is complete when it first runs.
product_days = dg.DailyPartitionsDefinition(start_date=str(_settings.first_day), timezone=_settings.timezone)
