"""What a data engineer sees of the assets in the Dagster UI, in headless Chromium."""

from __future__ import annotations

import time

import pytest
from playwright.sync_api import Page

from labeling_assets.runs import STAGES
from labeling_assets_tests.e2e.pages import SCREENSHOTS, Ui, opened

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]


def test_the_graph_reads_left_to_right_from_the_postgres_table_to_the_stores(page: Page) -> None:
    source = "product_marketing_summary"
    opened(page, '/asset-groups~group:"products"', "asset-graph", source, "milvus_collection")
    graph = page.locator("svg foreignObject")
    order = ("raw_products", "deduped_products", "product_images", "qwen_labels", "clip_vectors", "milvus_collection")
    nodes = [graph.filter(has_text=name).first for name in order]
    nodes.insert(0, graph.filter(has_text="product_m").filter(has_text="_summary").first)
    positions = [box["x"] for node in nodes if (box := node.bounding_box())]
    assert len(positions) == len(nodes)
    assert positions == sorted(positions)
    label = graph.filter(has_text="data_label").first.bounding_box()
    assert label
    assert label["x"] > positions[4]


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


def test_a_day_can_be_materialized_in_the_ui(page: Page, ui: Ui) -> None:
    opened(page, "/assets/raw_products?view=partitions", "materialize", "Partitions")
    before = ui.runs("SUCCESS")
    page.get_by_role("button", name="Materialize").first.click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="Latest").click()
    dialog.get_by_role("button", name="Launch").click()
    deadline = time.monotonic() + 120
    while ui.runs("SUCCESS") == before:
        assert time.monotonic() < deadline, "the run does not end"
        time.sleep(0.5)


def test_no_secret_is_sent_to_the_browser(ui: Ui) -> None:
    query = """{ repositoriesOrError { ... on RepositoryConnection { nodes { allTopLevelResourceDetails {
        name configuredValues { key value type } } } } } }"""
    answer = str(ui.ask(query))
    assert "LABELING_POSTGRES_URL" in answer
    assert "postgresql" not in answer
