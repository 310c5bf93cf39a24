"""Errors of the platform become Dagster failures; the run page shows cause and remedy.

A step is tried again by what is raised, not by a retry policy of its asset: where there is one, Dagster 1.13 also tries
a step again that was cancelled (`op_execution_error_boundary`), so that cancelling a run would not stop it.
"""

from __future__ import annotations

from typing import NoReturn

import dagster as dg

from labeling_assets.errors import LabelingError


def as_dagster_failure(error: LabelingError) -> dg.Failure:
    """The failure to raise for an error.

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


def raise_for_step(error: Exception, previous_tries: int, *, max_retries: int, first_delay_seconds: float) -> NoReturn:
    """Raise what makes Dagster fail a step for an error, or try it again later where that can help.

    Args:
        error: What the step met. Errors of the platform and `dg.Failure` say themselves whether another try can help;
            it can for any other but those of Dagster.
        previous_tries: Tries before this one.
        max_retries: Tries beyond the first.
        first_delay_seconds: Time until the second try; it doubles with each further one.

    Raises:
        Exception: The error, or its `dg.Failure`, where another try does not help.
        dg.RetryRequested: It may. After the last one, Dagster fails the step with the cause.
    """
    shown: Exception = error
    if isinstance(error, LabelingError):
        shown = as_dagster_failure(error)
        shown.__cause__ = error
    if isinstance(shown, dg.DagsterError) or (isinstance(shown, dg.Failure) and not shown.allow_retries):
        raise shown
    raise dg.RetryRequested(max_retries, first_delay_seconds * 2**previous_tries) from shown
