"""What is worth an alert: failed runs and failed checks, told by what Dagster and the platform know of them.

Pure functions from records to alerts. Which records are read, and when, is in `sensors.py`; how an alert looks and how
often it is sent, in `services/alert_messages.py` and `services/alerts.py`.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

import dagster as dg

from labeling_assets.defs.products.run_requests import PARTITION_TAG, RANGE_END_TAG, RANGE_START_TAG
from labeling_assets.services.alert_messages import Alert
from labeling_assets.services.day_state import DayFailure

SEE_RUN = "Open the run; its log tells where it broke. `labeling doctor` tests every outside system."
SEE_CHECK = "Open the check; its metadata has the evidence."
WILL_RETRY_TAG = "dagster/will_retry"


def run_alerts(
    run: dg.DagsterRun,
    failure: dg.DagsterEvent,
    failed_steps: Sequence[dg.DagsterEvent],
    failed_days: Sequence[DayFailure],
    ui_url: str,
) -> list[Alert]:
    """The alerts of a failed run: one for each stage and class of error.

    Args:
        run: The run.
        failure: Its event of type RUN_FAILURE.
        failed_steps: Its events of type STEP_FAILURE.
        failed_days: The days that it reported as failed.
        ui_url: Address of the UI.
    """
    causes = _day_causes(failed_days)
    told = {cause.stage for cause in causes}
    for step in failed_steps:
        cause = _step_cause(step, run_days(run.tags))
        # Where days failed, the step that ends the run only repeats which.
        if cause.stage not in told and not (failed_days and cause.is_summary):
            causes.append(cause)
    causes = causes or [_run_cause(failure, run_days(run.tags))]
    job = "Run" if run.job_name.startswith("__") else run.job_name
    is_retried = run.tags.get(WILL_RETRY_TAG) == "true"
    return [
        Alert(
            cause=" / ".join(filter(None, (f"run {run.job_name}", cause.stage, cause.error_class))),
            level="warning" if is_retried else "error",
            title=" ".join(filter(None, (job, "failed", cause.stage and f"in {cause.stage}"))),
            message=cause.message + (" Dagster starts the run again by itself." if is_retried else ""),
            remedy=cause.remedy or SEE_RUN,
            url=f"{ui_url}/runs/{run.run_id}",
            stage=cause.stage,
            error_class=cause.error_class,
            days=cause.days,
            run_id=run.run_id,
        )
        for cause in causes
    ]


def check_alert(evaluation: dg.AssetCheckEvaluation, run_id: str, ui_url: str) -> Alert | None:
    """The alert of a check; None where it passed."""
    if evaluation.passed:
        return None
    asset = evaluation.asset_key.to_user_string()
    is_warning = evaluation.severity is dg.AssetCheckSeverity.WARN
    metadata = evaluation.metadata
    sample = _value(metadata, "sample_ids")
    evidence = [
        evaluation.description or "",
        f"{_value(metadata, 'offending_rows')} rows" if "offending_rows" in metadata else "",
        f"such as {', '.join(map(str, sample[:5]))}" if isinstance(sample, list) and sample else "",
    ]
    page = f"{ui_url}/assets/{'/'.join(quote(part, safe='') for part in evaluation.asset_key.path)}?view=checks"
    return Alert(
        cause=f"check {asset} / {evaluation.check_name} ({'warning' if is_warning else 'error'})",
        level="warning" if is_warning else "error",
        title=f"Check {evaluation.check_name} of {asset} {'warns' if is_warning else 'failed'}",
        message=", ".join(filter(None, evidence)) or "The check did not pass.",
        remedy=str(_value(metadata, "what_to_do") or SEE_CHECK),
        url=f"{ui_url}/runs/{run_id}" if run_id else page,
        stage=asset,
        check=evaluation.check_name,
        days=(evaluation.partition,) if evaluation.partition else (),
        run_id=run_id,
    )


def joined(alerts: Iterable[Alert]) -> Alert:
    """One alert for several of one cause: the newest, with the days of all."""
    each = list(alerts)
    days = dict.fromkeys(itertools.chain.from_iterable(alert.days for alert in each))
    return dataclasses.replace(each[-1], days=tuple(sorted(days)), count=sum(alert.count for alert in each))


def run_days(tags: Mapping[str, str]) -> tuple[str, ...]:
    """The days of a run by its tags: one, or the first and the last of a range as one text."""
    if PARTITION_TAG in tags:
        return (tags[PARTITION_TAG],)
    if RANGE_START_TAG in tags and RANGE_END_TAG in tags:
        return (f"{tags[RANGE_START_TAG]} to {tags[RANGE_END_TAG]}",)
    return ()


@dataclasses.dataclass(frozen=True)
class _Cause:
    stage: str
    error_class: str
    message: str
    remedy: str
    days: tuple[str, ...]
    is_summary: bool = False


def _day_causes(failed_days: Sequence[DayFailure]) -> list[_Cause]:
    groups: dict[tuple[str, str], list[DayFailure]] = {}
    for failure in failed_days:
        groups.setdefault((failure.stage, failure.error_class), []).append(failure)
    return [
        _Cause(stage, error_class, each[0].message, each[0].remedy, tuple(str(failure.day) for failure in each))
        for (stage, error_class), each in groups.items()
    ]


def _step_cause(step: dg.DagsterEvent, days: tuple[str, ...]) -> _Cause:
    data, stage = step.step_failure_data, (step.step_key or "")
    told = data.user_failure_data  # of a dg.Failure, which errors of the platform are turned into
    if told is not None:
        remedy = str(_value(told.metadata, "remedy") or "")
        error_class = str(_value(told.metadata, "error_class") or "Failure")
        message = (told.description or "").removesuffix(remedy).strip()
        return _Cause(stage, error_class, message, remedy, days, is_summary="failed_days" in told.metadata)
    error = data.error and (data.error.cause or data.error)
    if error is None:
        return _Cause(stage, "", step.message or "The step failed.", "", days)
    return _Cause(stage, error.cls_name or "", error.message.strip(), "", days)


def _run_cause(failure: dg.DagsterEvent, days: tuple[str, ...]) -> _Cause:
    """The cause of a run that failed outside its steps: it could not start, or its process is gone."""
    error = getattr(failure.event_specific_data, "error", None)  # a run that is reported as failed has no data
    error = error and (error.cause or error)
    message = error.message.strip() if error else ""
    return _Cause(
        "", (error.cls_name or "") if error else "", message or failure.message or "The run failed.", "", days
    )


def _value(metadata: Mapping[str, dg.MetadataValue[Any]], key: str) -> Any:  # noqa: ANN401 - what metadata holds
    return metadata[key].value if key in metadata else None
