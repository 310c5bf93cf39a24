"""What an operator sees in the Dagster UI of what runs by itself: failed days, checks, automation, a backfill."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page

from labeling_assets.runs import STAGES
from labeling_assets_tests.e2e.pages import Ui, opened, seen

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600), pytest.mark.usefixtures("backfilled")]

SOURCE = "product_marketing_summary"
SENSORS = (
    "abandoned_runs_sensor",
    "changed_products_sensor",
    "failed_check_alerts_sensor",
    "run_failure_alerts_sensor",
)
SCHEDULES = (
    "backfill_missing_days_schedule",
    "stale_labels_schedule",
    "store_agreement_schedule",
    "yesterday_schedule",
)
TICKS = """query ($sensor: SensorSelector!) { sensorOrError(sensorSelector: $sensor) { ... on Sensor {
    sensorState { ticks(limit: 5) { status error { message } } } } } }"""


@pytest.mark.parametrize("asset", ["raw_products", "milvus_collection"])
def test_of_a_range_the_bad_day_alone_is_failed(page: Page, ui: Ui, asset: str) -> None:
    opened(
        page, f"/assets/{asset}?view=partitions", f"partitions-{asset}", "Failed (1)", "Materialized (3)", ui.bad_day
    )
    page.get_by_text(ui.bad_day, exact=True).first.click()
    text = seen(page, f"failed-partition-{asset}", "View logs")
    assert "failed, and did not materialize this asset" in text


def test_the_page_of_a_failed_run_tells_day_cause_and_remedy(page: Page, ui: Ui) -> None:
    query = "{ runsOrError(filter: {statuses: [FAILURE]}, limit: 1) { ... on Runs { results { id } } } }"
    (run,) = ui.ask(query)["runsOrError"]["results"]
    page.goto(f"/runs/{run['id']}")
    page.get_by_text("days failed", exact=False).first.wait_for()
    text = seen(page, "failed-run")
    assert f"{ui.bad_day} in raw_products" in text
    assert "much" in text
    assert "Correct the value" in text


@pytest.mark.parametrize(
    ("asset", "check", "evidence"),
    [
        ("qwen_labels", "labels_match_schema", ("offending_rows", "sample_ids")),
        ("qwen_labels", "labels_agree_with_titles", ("contradicting_share", "contradictions")),
        ("milvus_collection", "milvus_holds_every_labeled_product", ("rows_missing", "rows_surplus", "missing_ids")),
    ],
)
def test_a_check_shows_its_day_and_its_evidence(
    page: Page, ui: Ui, asset: str, check: str, evidence: tuple[str, ...]
) -> None:
    path = f"/assets/{asset}?view=checks&checkDetail={check}"
    text = opened(page, path, f"check-{check}", "Latest execution", "what_to_do", *evidence, ui.days[-1])
    assert "Passed" in text
    assert "Running" not in text


def test_a_check_has_a_result_for_each_day(page: Page, ui: Ui) -> None:
    path = "/assets/qwen_labels?view=checks&checkDetail=labels_match_schema"
    opened(page, path, "check", "Latest execution")
    page.get_by_text("Execution history", exact=True).click()
    text = seen(page, "check-history", *(day for day in ui.days if day != ui.bad_day))
    assert "Skipped" not in text


def test_what_runs_by_itself_is_switched_on_and_told_what_it_does(page: Page, ui: Ui) -> None:
    text = opened(page, "/automation", "automation", *SENSORS, *SCHEDULES)
    for time_of_day in ("12:30 AM GMT+7", "02:00 AM GMT+7", "05:00 AM GMT+7"):
        assert f"Scheduled At {time_of_day}" in text
    query = """{ repositoriesOrError { ... on RepositoryConnection { nodes {
        schedules { name description scheduleState { status } }
        sensors { name description sensorState { status } } } } } }"""
    (location,) = ui.ask(query)["repositoriesOrError"]["nodes"]
    schedules = {each["name"]: each["scheduleState"]["status"] for each in location["schedules"]}
    sensors = {each["name"]: each["sensorState"]["status"] for each in location["sensors"]}
    assert schedules == dict.fromkeys(SCHEDULES, "RUNNING")
    assert sensors == dict.fromkeys(SENSORS, "RUNNING")
    assert all(each["description"] for each in location["schedules"] + location["sensors"])


@pytest.mark.parametrize("name", SENSORS)
def test_the_last_ticks_of_a_sensor_have_no_error(page: Page, ui: Ui, name: str) -> None:
    where = {"repositoryName": "__repository__", "repositoryLocationName": "labeling_assets"}
    ticks = ui.ask(TICKS, sensor=where | {"sensorName": name})["sensorOrError"]["sensorState"]["ticks"]
    assert ticks
    assert {tick["status"] for tick in ticks} <= {"SUCCESS", "SKIPPED", "STARTED"}, ticks
    if name == "changed_products_sensor":
        opened(page, f"/locations/labeling_assets/sensors/{name}", "sensor", "Latest tick", "Running")


def test_a_backfill_tells_how_far_each_asset_came(page: Page, ui: Ui) -> None:
    text = opened(page, f"/runs/b/{ui.backfill_id}", "backfill", *STAGES, "Succeeded", "100% completed")
    assert f"{ui.days[0]}...{ui.days[-1]}" in text
    runs = opened(page, "/runs", "runs", ui.backfill_id)
    assert "labeling_process" not in runs


def test_the_source_table_shows_what_was_observed_of_each_day(page: Page, ui: Ui) -> None:
    text = opened(page, f"/assets/{SOURCE}", "source", "External Asset", "Description", "Columns", "published_at")
    assert "Only read" in text
    assert "Time of publication" in text
    opened(page, f"/assets/{SOURCE}?view=events", "source-observations", "fingerprint", "rows", *ui.days)
