"""Errors of the platform become Dagster failures; the run page shows cause and remedy."""

from __future__ import annotations

import dagster as dg

from labeling_assets.errors import LabelingError


def as_dagster_failure(error: LabelingError) -> dg.Failure:
    """The failure to raise for an error; a retry policy acts only where `can_retry` says that it can help.

    It is returned, not raised, so that the call site keeps `raise … from error`.
    """
    return dg.Failure(
        description=str(error),
        metadata={
            "error_class": type(error).__name__,
            "remedy": error.remedy or "See the message.",
            "can_retry": error.can_retry,
        },
        allow_retries=error.can_retry,
    )
