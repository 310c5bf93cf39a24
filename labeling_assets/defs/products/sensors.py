"""The sensor of the products domain: it requests the days whose source rows are not what the stores hold.

What it decides is in `products/detection.py`; when days run without a change is in `schedules.py`.
"""

import datetime as dt
from collections.abc import Sequence

import dagster as dg

from labeling_assets.defs.products import columns, jobs, run_requests
from labeling_assets.products.detection import detect, row_count
from labeling_assets.resources import ProductDatabaseResource
from labeling_assets.services.day_state import STORES


@dg.sensor(
    job=jobs.products_job,
    minimum_interval_seconds=columns.SETTINGS.sensor_interval_seconds,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Requests each day of the look-back window whose rows in Postgres are not what the stores hold.",
)
def changed_products_sensor(
    context: dg.SensorEvaluationContext, product_database: ProductDatabaseResource
) -> dg.SensorResult | dg.SkipReason:
    """Requests each day of the last LABELING_LOOK_BACK_DAYS whose rows in Postgres differ from what was last processed.

    New, late, edited, deleted and moved rows are found alike, by a fingerprint of each day. A day with a run on its way
    waits. A state that a run did not bring into the stores is requested five times more, within half an hour;
    then the nightly backfill takes over. More than three contiguous days become one run. When the source cannot be
    read, the tick fails and the next one looks again.
    """
    now = dt.datetime.now(dt.UTC)
    window = run_requests.look_back_window(now)
    if not window:
        return dg.SkipReason(f"The first day, {columns.SETTINGS.first_day}, is not over.")
    # In this order: a run that ends in between is never taken for one that left its day behind.
    in_flight = run_requests.days_in_flight(context.instance)
    synced = product_database.synced_days().find(window[0], window[-1])
    source = product_database.source_days().fingerprints(window[0], window[-1])
    detection = detect(source, synced, STORES, in_flight, context.cursor, now)
    return dg.SensorResult(
        run_requests=[run_requests.run_request(days, key) for days, key in detection.requests],
        skip_reason=None if detection.requests else dg.SkipReason(_why_nothing(detection.given_up, window)),
        asset_events=[_observation(day, fingerprint) for day, fingerprint in detection.observed.items()],
        cursor=detection.cursor,
    )


def _observation(day: dt.date, fingerprint: str) -> dg.AssetObservation:
    return dg.AssetObservation(
        asset_key=columns.SOURCE_NAME,
        partition=str(day),
        metadata={"rows": row_count(fingerprint), "fingerprint": fingerprint},
        tags={"dagster/data_version": fingerprint},
    )


def _why_nothing(given_up: Sequence[dt.date], window: Sequence[dt.date]) -> str:
    days = f"{window[0]} to {window[-1]}"
    if not given_up:
        return f"Nothing to request: from {days}, the stores hold what Postgres holds, or runs are on their way."
    return (
        f"From {days}, nothing new; {len(given_up)} days wait for the nightly backfill, since their runs failed again "
        f"and again: {', '.join(map(str, given_up[:5]))}."
    )
