"""Backfills as the UI launches and cancels them: by GraphQL, through the daemon of a running platform."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from labeling_assets.runs import STAGES
from labeling_assets_tests.soak.running import AT_WORK, Platform

ENDED = {"COMPLETED", "COMPLETED_SUCCESS", "COMPLETED_FAILED", "FAILED", "CANCELED"}
_LAUNCH = """mutation { launchPartitionBackfill(backfillParams: { assetSelection: %s, partitionNames: %s }) {
    __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }"""
_STATE = """{ partitionBackfillOrError(backfillId: "%s") {
    __typename ... on PartitionBackfill { status runs(limit: 10) { runId status } } } }"""
_CANCEL = """mutation { cancelPartitionBackfill(backfillId: "%s") {
    __typename ... on PythonError { message } } }"""
_TERMINATE = """mutation { terminateRun(runId: "%s") {
    __typename ... on TerminateRunFailure { message } ... on PythonError { message } } }"""


@dataclass
class Backfill:
    """A backfill of a platform.

    Attributes:
        platform: The platform.
        backfill_id: Its id.
    """

    platform: Platform
    backfill_id: str

    def status(self) -> str:
        """Its status."""
        return str(self._state()["status"])

    def run_statuses(self) -> list[str]:
        """Status of each of its runs."""
        return [run["status"] for run in self._state()["runs"]]

    def run_ids(self) -> list[str]:
        """Ids of its runs."""
        return [run["runId"] for run in self._state()["runs"]]

    def has_stopped(self) -> bool:
        """Whether all its runs have ended."""
        statuses = self.run_statuses()
        return bool(statuses) and not AT_WORK & set(statuses)

    def has_ended(self) -> bool:
        """Whether it has ended itself."""
        return self.status() in ENDED

    def _state(self) -> Any:
        state = self.platform.graphql(_STATE % self.backfill_id)["partitionBackfillOrError"]
        assert state["__typename"] == "PartitionBackfill", state
        return state


def launch_backfill(platform: Platform, days: Sequence[dt.date]) -> Backfill:
    """Launch the seven assets on the days."""
    selection = "[" + ", ".join(f'{{ path: ["{name}"] }}' for name in STAGES) + "]"
    names = json.dumps([str(day) for day in days])
    answer = platform.graphql(_LAUNCH % (selection, names))["launchPartitionBackfill"]
    assert answer["__typename"] == "LaunchBackfillSuccess", answer
    return Backfill(platform, answer["backfillId"])


def cancel_backfill(platform: Platform, backfill: Backfill) -> None:
    """Cancel it, as the UI's button does."""
    answer = platform.graphql(_CANCEL % backfill.backfill_id)["cancelPartitionBackfill"]
    assert answer["__typename"] == "CancelBackfillSuccess", answer


def terminate_run(platform: Platform, backfill: Backfill) -> None:
    """Terminate its only run."""
    (run_id,) = backfill.run_ids()
    answer = platform.graphql(_TERMINATE % run_id)["terminateRun"]
    assert answer["__typename"] == "TerminateRunSuccess", answer
