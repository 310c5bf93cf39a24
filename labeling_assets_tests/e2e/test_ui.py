"""What a data engineer sees in the Dagster UI, in headless Chromium, after the demo has run."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Page, sync_playwright

from labeling_assets.runs import STAGES
from labeling_assets_tests.integration.installation import installed

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SCREENSHOTS = os.environ.get("LABELING_TEST_SCREENSHOTS")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
START_SECONDS = 120


@pytest.fixture(scope="module")
def ui() -> Iterator[str]:
    """Address of the UI of an installation on which a small demo has run."""
    home = Path(tempfile.mkdtemp(prefix="labeling ui "))
    home.chmod(0o755)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with installed(home) as installation:
        ran = installation.labeling("demo", "--days", "2", "--products", "6")
        assert ran.returncode == 0, ran.stdout + ran.stderr
        dev = installation.start("dev", "--port", str(port))
        try:
            url = f"http://127.0.0.1:{port}"
            wait_until_up(url)
            yield url
        finally:
            dev.send_signal(signal.SIGTERM)
            assert dev.wait(timeout=60) == 0
    shutil.rmtree(home)


def wait_until_up(url: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            httpx.get(f"{url}/server_info").raise_for_status()
        except httpx.HTTPError:
            assert time.monotonic() < deadline, "the UI does not come up"
            time.sleep(0.5)
        else:
            return


@pytest.fixture(scope="module")
def page(ui: str) -> Iterator[Page]:
    assert CHROMIUM, "Chromium is needed for the browser tests: apt-get install chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        page = browser.new_page(base_url=ui, viewport={"width": 1800, "height": 1000})
        page.set_default_timeout(60_000)
        yield page
        browser.close()


def opened(page: Page, path: str, name: str, *texts: str) -> Page:
    """Open a page, wait until the texts show, and see that nothing covers or disturbs it."""
    page.goto(path)
    for text in texts:
        page.get_by_text(text, exact=True).first.wait_for()
    page.wait_for_load_state("networkidle")
    if SCREENSHOTS:
        page.screenshot(path=f"{SCREENSHOTS}/{name}.png")
    assert page.get_by_role("dialog").count() == 0
    body = page.inner_text("body")
    for sign in ("Traceback", "Error loading", "Join the Dagster", "PythonError", "out of date"):
        assert sign not in body
    return page


def test_the_graph_reads_left_to_right_from_postgres_to_milvus(page: Page) -> None:
    opened(page, "/asset-groups", "asset-graph", "milvus_collection")
    order = ("raw_products", "deduped_products", "product_images", "qwen_labels", "clip_vectors", "milvus_collection")
    graph = page.locator("svg foreignObject")
    lefts = [graph.filter(has_text=name).first.bounding_box() for name in order]
    positions = [box["x"] for box in lefts if box]
    assert len(positions) == len(order)
    assert positions == sorted(positions)


@pytest.mark.parametrize("asset", STAGES)
def test_an_asset_page_says_what_it_is_and_what_is_in_it(page: Page, asset: str) -> None:
    opened(page, f"/assets/{asset}", asset, "Description", "Columns", "Latest materialization")
    text = page.inner_text("body")
    for wanted in ("Source", "Re-run", "Cost", "data-platform", "id_sanpham", "products_job"):
        assert wanted in text, wanted


def test_the_metadata_of_a_day_has_counts_charts_and_a_preview_with_pictures(page: Page) -> None:
    opened(page, "/assets/qwen_labels?view=events", "metadata", "rows_in", "model_calls", "occasions")
    assert page.get_by_text("█").count() >= 3
    page.get_by_text("[Show Markdown]").first.click()
    page.get_by_role("dialog").wait_for()
    pictures = page.locator("img[src^='data:image/jpeg']")
    pictures.first.wait_for()
    assert pictures.first.evaluate("picture => picture.complete && picture.naturalWidth > 0")
    if SCREENSHOTS:
        page.screenshot(path=f"{SCREENSHOTS}/preview.png")


def test_checks_and_partitions_show_what_ran(page: Page) -> None:
    opened(page, "/assets/qwen_labels?view=checks", "checks", "labels_match_schema", "Passed")
    opened(page, "/assets/qwen_labels?view=partitions", "partitions", "Partitions")


def test_a_day_can_be_materialized_in_the_ui(page: Page, ui: str) -> None:
    opened(page, "/assets/raw_products?view=partitions", "materialize", "Partitions")
    before = successes(ui)
    page.get_by_role("button", name="Materialize").first.click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="Latest").click()
    dialog.get_by_role("button", name="Launch").click()
    deadline = time.monotonic() + 120
    while successes(ui) == before:
        assert time.monotonic() < deadline, "the run does not end"
        time.sleep(0.5)


def successes(ui: str) -> int:
    query = "{ runsOrError(filter: {statuses: [SUCCESS]}) { ... on Runs { count } } }"
    return int(httpx.post(f"{ui}/graphql", json={"query": query}).json()["data"]["runsOrError"]["count"])


def test_no_secret_is_sent_to_the_browser(ui: str) -> None:
    query = """{ repositoriesOrError { ... on RepositoryConnection { nodes { allTopLevelResourceDetails {
        name configuredValues { key value type } } } } } }"""
    answer = httpx.post(f"{ui}/graphql", json={"query": query}).text
    assert "LABELING_POSTGRES_URL" in answer
    assert "postgresql" not in answer
