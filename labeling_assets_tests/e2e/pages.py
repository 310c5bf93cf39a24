"""The Dagster UI of a running platform: its GraphQL, and its pages as a person sees them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import httpx
from playwright.sync_api import Page

from labeling_assets.runs import STAGES

SCREENSHOTS = os.environ.get("LABELING_TEST_SCREENSHOTS")
LAUNCH = """mutation ($backfill: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $backfill) {
    ... on LaunchBackfillSuccess { backfillId } } }"""


@dataclass
class Ui:
    """The Dagster UI of an installation.

    Attributes:
        url: Its address.
        days: The days of the demo, oldest first.
        bad_day: The day that fails.
        backfill_id: A backfill of all days.
    """

    url: str
    days: list[str]
    bad_day: str
    backfill_id: str = ""

    def ask(self, query: str, **variables: object) -> Any:
        """The answer of GraphQL."""
        answer = httpx.post(f"{self.url}/graphql", json={"query": query, "variables": variables}, timeout=60).json()
        assert "errors" not in answer, answer["errors"]
        return answer["data"]

    def runs(self, *statuses: str) -> int:
        """Number of runs with these statuses."""
        query = "query ($s: [RunStatus!]) { runsOrError(filter: {statuses: $s}) { ... on Runs { count } } }"
        return int(self.ask(query, s=statuses)["runsOrError"]["count"])

    def launch_backfill(self) -> str:
        """Backfill all days of all assets, as the dialog of the UI does; returns the id."""
        backfill = {"assetSelection": [{"path": [name]} for name in STAGES], "partitionNames": self.days}
        return str(self.ask(LAUNCH, backfill=backfill)["launchPartitionBackfill"]["backfillId"])

    def has_ended(self) -> bool:
        """Whether the backfill has ended, and no run is on its way."""
        query = (
            "query ($id: String!) { partitionBackfillOrError(backfillId: $id) { ... on PartitionBackfill { status } } }"
        )
        status = self.ask(query, id=self.backfill_id)["partitionBackfillOrError"]["status"]
        return status.startswith("COMPLETED") and not self.runs("QUEUED", "STARTING", "STARTED")


def opened(page: Page, path: str, name: str, *texts: str) -> str:
    """Open a page, wait until the texts show, and see that nothing covers or disturbs it; returns its text."""
    page.goto(path)
    return seen(page, name, *texts)


def seen(page: Page, name: str, *texts: str) -> str:
    """Wait until the texts show, and see that nothing covers or disturbs the page; returns its text."""
    for text in texts:
        page.get_by_text(text, exact=True).first.wait_for()
    page.wait_for_load_state("networkidle")
    if SCREENSHOTS:
        page.screenshot(path=f"{SCREENSHOTS}/{name}.png")
    assert page.get_by_role("dialog").count() == 0
    body = page.inner_text("body")
    for sign in ("Traceback", "Error loading", "Join the Dagster", "PythonError", "out of date"):
        assert sign not in body
    return body
