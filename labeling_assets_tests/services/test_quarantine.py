"""The quarantine on a real PostgreSQL."""

from __future__ import annotations

import datetime as dt

import sqlalchemy as sa

from labeling_assets.errors import ImageNotFoundError, ImageUnavailableError
from labeling_assets.services.quarantine import Quarantine

DAY = dt.date(2026, 3, 14)
GONE = ImageNotFoundError("http://host/a.jpg answered 404.")
BUSY = ImageUnavailableError("http://host/b.jpg answered 503.")


def test_a_failed_row_is_kept_with_its_reason(engine: sa.Engine) -> None:
    quarantine = Quarantine(engine)
    quarantine.report(DAY, "product_images", {"a": GONE, "b": BUSY})
    first, second = quarantine.find()
    assert (first.product_id, first.error_class, first.can_retry, first.attempts) == (
        "a",
        "ImageNotFoundError",
        False,
        1,
    )
    assert (second.product_id, second.can_retry) == ("b", True)
    assert "404" in first.message


def test_another_failure_counts_the_attempts_and_keeps_the_first_time(engine: sa.Engine) -> None:
    quarantine = Quarantine(engine)
    quarantine.report(DAY, "product_images", {"a": BUSY})
    before = quarantine.find()[0]
    quarantine.report(DAY, "product_images", {"a": GONE})
    after = quarantine.find()[0]
    assert (after.attempts, after.error_class, after.first_seen) == (2, "ImageNotFoundError", before.first_seen)
    assert after.last_seen > before.last_seen


def test_a_row_that_succeeds_leaves(engine: sa.Engine) -> None:
    quarantine = Quarantine(engine)
    quarantine.report(DAY, "product_images", {"a": GONE, "b": BUSY})
    quarantine.report(DAY, "product_images", {"a": GONE})
    assert [row.product_id for row in quarantine.find()] == ["a"]


def test_other_days_and_stages_are_not_touched(engine: sa.Engine) -> None:
    quarantine = Quarantine(engine)
    quarantine.report(DAY, "product_images", {"a": GONE})
    quarantine.report(DAY, "qwen_labels", {})
    quarantine.report(DAY + dt.timedelta(days=1), "product_images", {})
    assert len(quarantine.find()) == 1


def test_rows_are_found_by_every_condition(engine: sa.Engine) -> None:
    quarantine = Quarantine(engine)
    nasty = "x' or 1==1 -- \"\\\n"
    quarantine.report(DAY, "product_images", {"a": GONE, nasty: BUSY})
    assert [row.product_id for row in quarantine.find(product_id=nasty)] == [nasty]
    assert [row.product_id for row in quarantine.find(can_retry=False)] == ["a"]
    assert quarantine.find(stage="qwen_labels") == []
    assert len(quarantine.find(day=DAY, limit=1)) == 1
    assert quarantine.counts(DAY) == {
        ("product_images", "ImageNotFoundError"): 1,
        ("product_images", "ImageUnavailableError"): 1,
    }
