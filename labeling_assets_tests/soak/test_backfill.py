"""Backfills with one bad day inside, from the command line and through the daemon: cancelled half-way and taken up."""

from __future__ import annotations

import datetime as dt
import hashlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import psutil
import pytest
import sqlalchemy as sa

from labeling_assets.defs.products.partitions import product_days
from labeling_assets.defs.products.run_requests import ASSET_KEYS
from labeling_assets.instance import dagster_home
from labeling_assets.settings import Settings
from labeling_assets_tests.services.faulty_image_host import encoded, with_etag
from labeling_assets_tests.soak.backfills import cancel_backfill, launch_backfill, terminate_run
from labeling_assets_tests.soak.running import TABLE, Platform, running_platform
from labeling_assets_tests.soak.watching import tell, wait_until

pytestmark = [pytest.mark.soak, pytest.mark.timeout(3000)]

COUNT = int(os.environ.get("LABELING_TEST_SOAK_COUNT", "10"))
DAYS = max(6, 3 * COUNT)
DAEMON_DAYS = 6
PRODUCTS = 50
IMAGES_A_DAY = 20
DAEMON_IMAGES_A_DAY = 40
FIRST = dt.date(2026, 1, 5)
CANCEL_SECONDS = 60
"""A cancelled run has ended by then, however busy the machine is; how long it took is printed."""


@pytest.fixture
def platform(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Platform]:
    """A platform whose days are older than those that the sensor looks at; this process sees its Dagster storage."""
    with running_platform(home, model_latency_ms=0, FIRST_DAY=str(Settings.model_fields["first_day"].default)) as it:
        monkeypatch.setenv("DAGSTER_HOME", str(dagster_home(Settings(home=home))))
        monkeypatch.setenv("LABELING_DAGSTER_POSTGRES_URL", it.installation.address("DAGSTER_POSTGRES_URL"))
        yield it


@pytest.fixture
def slow_platform(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Platform]:
    """The same with a model that takes its time, and `labeling dev` at work."""
    first_day = str(Settings.model_fields["first_day"].default)
    with running_platform(home, model_latency_ms=1500, FIRST_DAY=first_day) as it:
        monkeypatch.setenv("DAGSTER_HOME", str(dagster_home(Settings(home=home))))
        monkeypatch.setenv("LABELING_DAGSTER_POSTGRES_URL", it.installation.address("DAGSTER_POSTGRES_URL"))
        it.start()
        yield it


def test_a_backfill_with_one_bad_day_stopped_half_way_is_taken_up_without_a_second_model_call(
    platform: Platform,
) -> None:
    days = [FIRST + dt.timedelta(days=number) for number in range(DAYS)]
    bad = days[DAYS // 3]
    distinct = fill(platform, days, bad)
    arguments = ("backfill", "--start", str(days[0]), "--end", str(days[-1]))

    first = platform.installation.start(*arguments)
    usage = MemoryWatch(first)
    usage.watch_until(lambda: platform.model_calls() >= distinct // 2)
    started = time.monotonic()
    first.send_signal(signal.SIGINT)
    assert first.wait(timeout=CANCEL_SECONDS) == 130
    seconds_to_stop = time.monotonic() - started
    calls = platform.model_calls()
    assert distinct // 2 <= calls < distinct
    platform.nothing_is_left_running()

    started = time.monotonic()
    second = platform.installation.start(*arguments)
    usage = MemoryWatch(second, usage.most_bytes)
    usage.watch_until(lambda: second.poll() is not None)
    seconds = time.monotonic() - started
    assert second.returncode == 1
    printed = platform.log()
    assert f"{bad} failed" in printed
    assert "much" in printed

    tell(
        f"{DAYS} days of {PRODUCTS} products: stopped at {calls} of {distinct} calls in {seconds_to_stop:.1f} s, "
        f"resumed in {seconds:.0f} s, {platform.model_calls()} calls in all, at most "
        f"{usage.most_bytes / 1e6:.0f} MB",
    )
    one_day_is_failed_and_the_others_are_done(platform, days, bad)
    assert platform.model_calls() == distinct
    platform.nothing_is_left_running()


def test_a_backfill_of_the_ui_with_one_bad_day_does_the_others_in_one_run(slow_platform: Platform) -> None:
    platform, days = slow_platform, [FIRST + dt.timedelta(days=number) for number in range(DAEMON_DAYS)]
    bad = days[2]
    distinct = fill(platform, days, bad, DAEMON_IMAGES_A_DAY)
    seconds_to_stop = {}
    for name, cancel, limit_seconds in (
        ("terminateRun", terminate_run, CANCEL_SECONDS),
        ("cancelPartitionBackfill", cancel_backfill, CANCEL_SECONDS),
    ):
        before = platform.model_calls()
        cancelled = launch_backfill(platform, days)
        wait_for_calls(platform, before + distinct // 8)
        started = time.monotonic()
        cancel(platform, cancelled)
        wait_until(cancelled.has_stopped, limit_seconds)
        seconds_to_stop[name] = round(time.monotonic() - started, 1)
        assert cancelled.run_statuses() == ["CANCELED"]
        assert platform.model_calls() < distinct
        wait_until(lambda: not platform.processes("run"), CANCEL_SECONDS)
        wait_until(cancelled.has_ended)
        platform.nothing_is_left_running()

    started = time.monotonic()
    backfill = launch_backfill(platform, days)
    wait_until(backfill.has_ended)
    tell(
        f"{DAEMON_DAYS} days of {PRODUCTS} products through the daemon: seconds to cancel {seconds_to_stop}, taken up "
        f"in {time.monotonic() - started:.0f} s, {platform.model_calls()} calls for {distinct} images",
    )
    assert backfill.status() == "COMPLETED_FAILED"
    assert backfill.run_statuses() == ["FAILURE"]
    one_day_is_failed_and_the_others_are_done(platform, days, bad)
    assert platform.model_calls() == distinct
    platform.nothing_is_left_running()


class MemoryWatch:
    """The most memory that a process has used."""

    def __init__(self, process: subprocess.Popen[bytes], most_bytes: int = 0) -> None:
        self.most_bytes = most_bytes
        self._process = process

    def watch_until(self, is_over: Callable[[], bool]) -> None:
        """Watch until something holds; the process must not end before."""
        process = psutil.Process(self._process.pid)
        while not is_over():
            if self._process.poll() is None:
                self.most_bytes = max(self.most_bytes, process.memory_info().rss)
            else:
                assert is_over(), "the backfill has ended"
            time.sleep(0.1)


def wait_for_calls(platform: Platform, count: int) -> None:
    wait_until(lambda: platform.model_calls() >= count)


def fill(platform: Platform, days: list[dt.date], bad: dt.date, images_a_day: int = IMAGES_A_DAY) -> int:
    """Write the rows of the days, of which one cannot be read; returns the number of distinct images of the others.

    One product a day has no image at its address.
    """
    rows, bodies = [], set()
    for day in days:
        for number in range(PRODUCTS):
            path = f"/{day}/{number % images_a_day if number < PRODUCTS - 1 else 'missing'}.jpg"
            if number < images_a_day:
                body = picture(path)
                platform.images.add(path, with_etag(body))
                bodies |= {body} if day != bad else set()
            moment = dt.datetime.combine(day, dt.time(5), dt.UTC)
            spend = "much" if day == bad else "1.5"
            rows.append(
                {
                    "product_id": f"{day} {number}",
                    "image": platform.images.url(path),
                    "published_at": moment,
                    "title": f"Title of {number}",
                    "store": "Shop",
                    "spend": spend,
                }
            )
    platform.query(f"alter table {TABLE} alter column spend type text")
    names = ", ".join(rows[0])
    marks = ", ".join(f":{name}" for name in rows[0])
    with platform.engine.begin() as connection:
        connection.execute(sa.text(f"insert into {TABLE} ({names}) values ({marks})"), rows)
    return len(bodies)


def picture(path: str) -> bytes:
    """A small picture of its own: every pixel comes from the path."""
    from PIL import Image

    return encoded(Image.frombytes("RGB", (8, 8), hashlib.shake_256(path.encode()).digest(192)).resize((64, 64)), "PNG")


def one_day_is_failed_and_the_others_are_done(platform: Platform, days: list[dt.date], bad: dt.date) -> None:
    """In Dagster, in the stores, in quarantine and in `day_failures`."""
    good = {str(day) for day in days if day != bad}
    with dg.DagsterInstance.get() as instance:
        for key in ASSET_KEYS:
            statuses = instance.get_status_by_partition(key, [str(day) for day in days], product_days) or {}
            done = {day for day, status in statuses.items() if status is dg.AssetPartitionStatus.MATERIALIZED}
            failed = {day for day, status in statuses.items() if status is dg.AssetPartitionStatus.FAILED}
            assert (done, failed) == (good, {str(bad)}), key
            rows = instance.fetch_materializations(
                dg.AssetRecordsFilter(asset_key=key, asset_partitions=sorted(good)), limit=10 * len(days)
            ).records
            rows_in = {}
            for row in reversed(rows):  # from the oldest to the newest
                made = row.asset_materialization
                assert made is not None
                rows_in[row.partition_key] = made.metadata["rows_in"].value
            assert set(rows_in) == good, key
            is_before_images = key.path[-1] in ("raw_products", "deduped_products", "product_images")
            assert set(rows_in.values()) == {PRODUCTS if is_before_images else PRODUCTS - 1}, key
    checked = platform.query(
        "select asset_key, partition, count(distinct check_name) from asset_check_executions "
        "where execution_status = 'SUCCEEDED' and partition is not null group by 1, 2",
        "DAGSTER_POSTGRES_URL",
    )
    by_asset: dict[str, dict[str, int]] = {}
    for asset_key, day, count in checked:
        by_asset.setdefault(asset_key, {})[day] = count
    assert len(by_asset) == len(ASSET_KEYS)
    for counts in by_asset.values():
        assert set(counts) == good
    quarantined = platform.query("select day::text, count(*) from labeling.quarantine group by 1")
    assert dict(map(tuple, quarantined)) == dict.fromkeys(good, 1)
    assert [row[0] for row in platform.query("select day from labeling.day_failures")] == [bad]
    products = {f"{day} {number}" for day in good for number in range(PRODUCTS - 1)}
    assert platform.milvus().keys() == products
    assert platform.data_label().keys() == products
