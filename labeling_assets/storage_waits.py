"""Lets a run outlast an outage of the database in which Dagster keeps its history.

Dagster 1.13 connects anew for almost every statement, and gives up after eleven seconds
(`dagster_postgres.utils.retry_pg_connection_fn`); a run that cannot log an event then ends, without a word of the
cause. Where no connection was made nothing was done, so waiting longer is always safe.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

import sqlalchemy as sa
from dagster_postgres import utils
from tenacity import Retrying, before_sleep_log, retry_if_exception_type, stop_after_delay, wait_random_exponential

OUTAGE_SECONDS = 180.0
LONGEST_PAUSE_SECONDS = 5.0

T = TypeVar("T")
logger = logging.getLogger(__name__)


def _connected(fn: Callable[[], T], retry_limit: int = 0, retry_wait: float = 0.0) -> T:  # noqa: ARG001 - as Dagster calls it
    retrying = Retrying(
        retry=retry_if_exception_type((sa.exc.DatabaseError, sa.exc.TimeoutError)),
        stop=stop_after_delay(OUTAGE_SECONDS),
        wait=wait_random_exponential(multiplier=0.2, max=LONGEST_PAUSE_SECONDS),
        before_sleep=before_sleep_log(logger, logging.WARNING),
        reraise=True,
    )
    try:
        return retrying(fn)
    except (sa.exc.DatabaseError, sa.exc.TimeoutError) as error:
        raise utils.DagsterPostgresException("Dagster's database does not answer.") from error


def wait_out_outages() -> None:
    """Let Dagster's storage in this process wait for its database."""
    utils.retry_pg_connection_fn = _connected
