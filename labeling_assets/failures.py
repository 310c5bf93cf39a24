"""Errors of the platform → Dagster failures, so that the run page shows the cause, the remedy and whether a retry can help."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import dagster as dg

from labeling_assets.errors import LabelingError


@contextlib.contextmanager
def dagster_failures() -> Iterator[None]:
    """Raise `dg.Failure` for a `LabelingError`; a retry policy acts only where `can_retry` says that it can help."""
    try:
        yield
    except LabelingError as error:
        raise dg.Failure(
            description=str(error),
            metadata={
                "error_class": type(error).__name__,
                "remedy": error.remedy or "See the message.",
                "can_retry": error.can_retry,
            },
            allow_retries=error.can_retry,
        ) from error
