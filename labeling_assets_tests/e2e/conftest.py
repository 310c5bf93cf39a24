"""A platform at work for the browser tests: a demo of four days, of which one is broken, and a backfill of all four."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
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

from labeling_assets_tests.e2e.pages import Ui
from labeling_assets_tests.integration.installation import Installation, installed

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
WAIT_SECONDS = 180
DAYS = 4
TABLE = "ai_craw.product_marketing_summary"


@pytest.fixture(scope="session")
def ui() -> Iterator[Ui]:
    home = Path(tempfile.mkdtemp(prefix="labeling ui "))
    home.chmod(0o755)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # One look at the source is enough, and no other may begin while a test looks at the pages.
    with installed(home, SENSOR_INTERVAL_SECONDS="3600") as installation:
        ran = installation.labeling("demo", "--days", str(DAYS), "--products", "6")
        assert ran.returncode == 0, ran.stdout + ran.stderr
        ui = Ui(f"http://127.0.0.1:{port}", *days_with_a_bad_one(installation))
        dev = installation.start("dev", "--port", str(port))
        try:
            wait_until_up(ui)
            ui.backfill_id = ui.launch_backfill()
            yield ui
        finally:
            dev.send_signal(signal.SIGTERM)
            assert dev.wait(timeout=60) == 0
    shutil.rmtree(home)


def days_with_a_bad_one(installation: Installation) -> tuple[list[str], str]:
    """The days that have run; one of them has a row that cannot be read as a number from now on."""
    files = (installation.home / "storage" / "raw_products").glob("*.parquet")
    days = sorted(dt.date.fromisoformat(path.stem) for path in files)
    assert len(days) == DAYS
    installation.query(f"alter table {TABLE} alter column spend type text")
    installation.query(
        f"update {TABLE} set spend = 'much' "
        f"where (published_at at time zone 'Asia/Ho_Chi_Minh')::date = date '{days[1]}'"
    )
    return [str(day) for day in days], str(days[1])


def wait_until_up(ui: Ui) -> None:
    """Wait until the webserver has loaded the code location."""
    deadline = time.monotonic() + WAIT_SECONDS
    assets: list[object] = []
    while not assets:
        assert time.monotonic() < deadline, "the UI does not come up"
        with contextlib.suppress(httpx.TransportError):
            assets = ui.ask("{ assetNodes { id } }")["assetNodes"]
        time.sleep(0.5)


@pytest.fixture(scope="session")
def backfilled(ui: Ui) -> None:
    """The backfill has ended; the daemon begins it within half a minute, so tests that do not need it come first."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not ui.has_ended():
        assert time.monotonic() < deadline, json.dumps(
            ui.ask("{ runsOrError { ... on Runs { results { id status } } } }")
        )
        time.sleep(0.5)


@pytest.fixture(scope="session")
def page(ui: Ui) -> Iterator[Page]:
    assert CHROMIUM, "Chromium is needed for the browser tests: apt-get install chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        page = browser.new_page(base_url=ui.url, viewport={"width": 1600, "height": 1000})
        page.set_default_timeout(60_000)
        yield page
        browser.close()
