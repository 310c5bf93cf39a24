"""Which days have to run: those whose source rows differ from what the stores hold, and those that the night mends.

Pure decisions: what is known goes in, the days to request come out. A state of a day's rows is a fingerprint,
`<rows>:<hash>`. How fingerprints are read is in `services/source_days.py`; who asks when, in `defs/products`.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from pydantic import AwareDatetime, NonNegativeInt, TypeAdapter, ValidationError

from labeling_assets.products.day_ranges import DayRange, day_ranges

EMPTY_DAY = "0:0"
"""Fingerprint of a day without rows."""
PAUSES = tuple(dt.timedelta(seconds=seconds) for seconds in (30, 60, 120, 300, 1200))
"""Before each further request of a state that a run did not bring into the stores; then the night takes over."""
MAX_SINGLE_DAYS = 3
MAX_RANGE_DAYS = 31
MAX_REQUESTS = 25
"""Requests of one look at the source; the next look makes the others."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sighting:
    """What is remembered of a day between two looks.

    Attributes:
        fingerprint: State of the source rows when last looked at.
        attempts: Requests made for this state; 0 once the stores hold it.
        active_at: When it was last requested, or last seen in a run; None when it was not requested.
    """

    fingerprint: str
    attempts: NonNegativeInt = 0
    active_at: AwareDatetime | None = None


@dataclass(frozen=True)
class Detection:
    """What one look at the source leads to.

    Attributes:
        requests: Days to run, with a key that no other request has.
        observed: Fingerprint of each day that was not seen in this state before.
        given_up: Changed days that are left to the night after all attempts.
        cursor: What the next look has to be told.
    """

    requests: Sequence[tuple[DayRange, str]]
    observed: Mapping[dt.date, str]
    given_up: Sequence[dt.date]
    cursor: str


_CURSOR = TypeAdapter(dict[dt.date, Sighting])


def detect(
    source: Mapping[dt.date, str],
    synced: Mapping[dt.date, Mapping[str, str]],
    stores: Collection[str],
    in_flight: Collection[dt.date],
    cursor: str | None,
    now: dt.datetime,
) -> Detection:
    """Decide which days to request.

    Args:
        source: Fingerprint of every day of the window; days outside it are forgotten.
        synced: Fingerprint by store of each day that a store holds.
        stores: Names of all stores.
        in_flight: Days that a run covers which has not ended; they wait for the next look.
        cursor: `Detection.cursor` of the last look.
        now: With time zone.
    """
    known = _read_cursor(cursor)
    sightings = {
        day: _look(known.get(day), fingerprint, now, is_in_flight=day in in_flight)
        for day, fingerprint in source.items()
    }
    due, given_up = [], []
    for day, sighting in sightings.items():
        if day in in_flight:
            continue
        if not is_changed(sighting.fingerprint, synced.get(day, {}), stores):
            sightings[day] = Sighting(sighting.fingerprint)
        elif sighting.attempts > len(PAUSES):
            given_up.append(day)
        elif _is_due(sighting, now):
            due.append(day)
    requests = []
    for days in group_days(due)[-MAX_REQUESTS:]:
        for day in days.days:
            sightings[day] = replace(sightings[day], attempts=sightings[day].attempts + 1, active_at=now)
        requests.append((days, _request_key(days, sightings, now)))
    return Detection(
        requests=requests,
        observed={
            day: fingerprint
            for day, fingerprint in source.items()
            if fingerprint != known.get(day, Sighting(EMPTY_DAY)).fingerprint
        },
        given_up=sorted(given_up),
        cursor=_CURSOR.dump_json(
            {day: sighting for day, sighting in sightings.items() if sighting != Sighting(EMPTY_DAY)},
            exclude_defaults=True,
        ).decode(),
    )


def days_for_the_night(
    source: Mapping[dt.date, str],
    synced: Mapping[dt.date, Mapping[str, str]],
    stores: Collection[str],
    failed: Collection[dt.date],
    retryable: Collection[dt.date],
    in_flight: Collection[dt.date],
    max_days: int,
) -> list[dt.date]:
    """Choose the days that one night runs, in order of time.

    Days that are missing, changed or failed come first, oldest first; what is left of the budget goes to those that
    only hold rows whose retry may help, oldest first. So images that never come do not keep a missing day waiting.

    Args:
        source: Fingerprint of every day of the window; no other day is chosen.
        synced: Fingerprint by store of each day that a store holds.
        stores: Names of all stores.
        failed: Days of which an asset failed.
        retryable: Days with rows in quarantine whose retry may help.
        in_flight: Days that a run covers which has not ended; they are left out.
        max_days: Budget of the night.
    """
    idle = sorted(source.keys() - set(in_flight))
    wrong = [day for day in idle if day in failed or is_changed(source[day], synced.get(day, {}), stores)]
    to_retry = [day for day in idle if day in retryable and day not in wrong]
    return sorted([*wrong, *to_retry][:max_days])


def is_changed(fingerprint: str, synced: Mapping[str, str], stores: Collection[str]) -> bool:
    """Whether a store holds another state of the day than the source, or none of a day that has rows."""
    if fingerprint == EMPTY_DAY and not synced:
        return False
    return any(synced.get(store) != fingerprint for store in stores)


def group_days(days: Iterable[dt.date]) -> list[DayRange]:
    """Requests that cover exactly these days, in order of time.

    Contiguous days make one range, so that a model loads once for all; up to three stay alone, so that each shows its
    own run. A range has a bound, so that a cancelled or broken run leaves little undone.
    """
    return [
        part
        for stretch in day_ranges(days, MAX_RANGE_DAYS)
        for part in (
            [DayRange(day, day) for day in stretch.days] if len(stretch.days) <= MAX_SINGLE_DAYS else [stretch]
        )
    ]


def row_count(fingerprint: str) -> int:
    """Rows of a day in the state of a fingerprint."""
    return int(fingerprint.partition(":")[0])


def _look(before: Sighting | None, fingerprint: str, now: dt.datetime, *, is_in_flight: bool) -> Sighting:
    if before is None or before.fingerprint != fingerprint:
        return Sighting(fingerprint)
    # The pause after an attempt counts from the end of its run, which is known only by no longer seeing it.
    return replace(before, active_at=now) if is_in_flight and before.attempts else before


def _is_due(sighting: Sighting, now: dt.datetime) -> bool:
    if sighting.attempts == 0 or sighting.active_at is None:
        return True
    elapsed = now - sighting.active_at
    return elapsed >= PAUSES[sighting.attempts - 1] or elapsed < dt.timedelta()  # negative: the clock was set back


def _request_key(days: DayRange, sightings: Mapping[dt.date, Sighting], now: dt.datetime) -> str:
    """Days, fingerprint, attempt and time.

    Dagster silently drops a request whose key it has seen. The time keeps keys apart where a state comes back, as an
    emptied day does, and where the cursor was lost.
    """
    states = [f"{sightings[day].fingerprint}/{sightings[day].attempts}" for day in days.days]
    state = states[0] if len(states) == 1 else hashlib.sha256(" ".join(states).encode()).hexdigest()[:16]
    return f"{days}/{state}/{now.astimezone(dt.UTC):%Y-%m-%dT%H:%M:%SZ}"


def _read_cursor(text: str | None) -> dict[dt.date, Sighting]:
    """The sightings of the last look; without them every changed day is requested at once, which does no harm."""
    if not text:
        return {}
    try:
        return _CURSOR.validate_json(text)
    except ValidationError as error:
        logger.warning("The sensor's cursor cannot be read and is begun anew: %s", error.errors()[0]["msg"])
        return {}
