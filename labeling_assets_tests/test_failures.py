"""What a step raises for an error: a failure with its remedy, another try later, or the error itself."""

from __future__ import annotations

import dagster as dg
import pytest

from labeling_assets.errors import ConfigurationError, LabelingError, ServiceUnavailableError
from labeling_assets.failures import raise_for_step

DOWN = ServiceUnavailableError("It does not answer.", "Start it.")


def raised(error: Exception, previous_tries: int = 0) -> BaseException:
    with pytest.raises((dg.Failure, dg.RetryRequested, dg.DagsterError)) as caught:
        raise_for_step(error, previous_tries, max_retries=2, first_delay_seconds=10)
    return caught.value


@pytest.mark.parametrize(("previous_tries", "seconds"), [(0, 10), (1, 20), (2, 40)])
def test_what_another_try_can_help_is_tried_again_ever_later(previous_tries: int, seconds: float) -> None:
    request = raised(DOWN, previous_tries)
    assert isinstance(request, dg.RetryRequested)
    assert (request.max_retries, request.seconds_to_wait) == (2, seconds)
    assert isinstance(request.__cause__, dg.Failure)
    assert request.__cause__.metadata["remedy"].value == "Start it."


def test_what_no_try_can_help_fails_at_once_with_its_remedy() -> None:
    failure = raised(ConfigurationError("It is wrong.", "Mend it."))
    assert isinstance(failure, dg.Failure)
    assert failure.metadata["remedy"].value == "Mend it."
    assert isinstance(failure.__cause__, LabelingError)


def test_an_unknown_error_is_tried_again_and_stays_the_cause() -> None:
    error = OSError("a broken pipe")
    request = raised(error)
    assert isinstance(request, dg.RetryRequested)
    assert request.__cause__ is error


@pytest.mark.parametrize("error", [dg.Failure("no", allow_retries=False), dg.DagsterInvariantViolationError("no")])
def test_failures_that_say_so_and_errors_of_dagster_are_final(error: Exception) -> None:
    assert raised(error) is error


def test_a_cancelled_step_is_not_tried_again() -> None:
    """Dagster tries a step with a retry policy again also where it was cancelled, so no asset may have one."""
    from labeling_assets.definitions import build_defs

    assets = build_defs().resolve_all_asset_specs()
    assert assets
    for definition in build_defs().assets or []:
        if isinstance(definition, dg.AssetsDefinition) and definition.is_executable:
            assert definition.op.retry_policy is None, definition.key
