"""What must be true of the days as a whole: which are missing, which are left failed, and how to recover them.

Pure functions of known, done and failed days; an asset without partitions evaluates them for every partitioned asset.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Sequence

import dagster as dg

from labeling_assets.defs.products.checks import outcome
from labeling_assets.products.day_ranges import day_ranges

SAMPLE_RANGES = 10


def yesterday_is_present(
    asset: str, known_days: Sequence[dt.date], done_days: Collection[dt.date], *, is_due: bool = True
) -> dg.AssetCheckResult:
    """Look whether the last whole day is done.

    Args:
        asset: Name of the partitioned asset.
        known_days: The partitions, oldest first; the last one is yesterday.
        done_days: Days that are done, whenever.
        is_due: Whether yesterday should be done by now; false before LABELING_DAILY_AT and the time of a run.
    """
    yesterday = list(known_days[-1:])
    missing = [day for day in yesterday if is_due and day not in set(done_days)]
    return _day_outcome(
        "yesterday_is_present",
        asset,
        missing,
        "See why it did not run: the page Automation of the UI shows whether the daily schedule is switched on and "
        "what its last tick said.",
        evidence={"yesterday": str(yesterday[0]) if yesterday else "", "is_due": is_due},
    )


def no_partitions_left_failed(
    asset: str, known_days: Collection[dt.date], failed_days: Collection[dt.date]
) -> dg.AssetCheckResult:
    """List the days of an asset that failed and have not succeeded since.

    Args:
        asset: Name of the partitioned asset.
        known_days: The partitions; a failed day outside them cannot be run and is left out.
        failed_days: Days whose last run failed.
    """
    left = sorted(set(failed_days) & set(known_days))
    return _day_outcome(
        "no_partitions_left_failed",
        asset,
        left,
        "Read the cause on the failed partitions of the asset's page, and mend it.",
        evidence={"failed_days_outside_the_partitions": len(set(failed_days) - set(known_days))},
    )


def _day_outcome(
    name: str, asset: str, days: Sequence[dt.date], remedy: str, evidence: dict[str, object]
) -> dg.AssetCheckResult:
    ranges = day_ranges(days)
    commands = [f"labeling backfill --start {each.first} --end {each.last}" for each in ranges[:SAMPLE_RANGES]]
    more = f"\n\n{len(ranges) - SAMPLE_RANGES} more ranges." if len(ranges) > SAMPLE_RANGES else ""
    recovery = "\n".join(["```", *commands, "```"]) + more if days else "Nothing."
    command = f"`{commands[0]}`; what was finished is not done again" if commands else ""
    return outcome(
        name,
        [str(day) for day in days],
        f"{remedy} Then run {command}.",
        unit="days",
        evidence=evidence | {"recovery": dg.MetadataValue.md(recovery)},
        asset=asset,
    )
