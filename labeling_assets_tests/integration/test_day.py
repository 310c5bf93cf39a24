"""A day through all seven assets on real services: what is done, what is not done again, and what is left alone."""

from __future__ import annotations

import datetime as dt
from typing import Any

import dagster as dg
import numpy as np
import pytest
import sqlalchemy as sa

from labeling_assets.definitions import build_defs
from labeling_assets.runs import STAGES
from labeling_assets_tests.integration.world import DAYS, TABLE, World
from labeling_assets_tests.services.faulty_image_host import content, status

DAY, NEXT = DAYS
NASTY = "x' or 1==1 -- \"\\\n] && id != ''\t%s {0} Mẹ"


def ids(*names: str, day: dt.date = DAY) -> dict[str, dt.date]:
    return dict.fromkeys(names, day)


def test_a_day_ends_in_milvus_in_data_label_and_in_parquet(world: World) -> None:
    for name in ("a", "b", "c"):
        world.add(name, DAY)
    run = world.run(DAY)
    assert run.is_success, run.failure
    assert set(run.metadata) == set(STAGES)
    assert all(run.checks.values())
    world.agrees(ids("a", "b", "c"))
    product = world.milvus()["a"]
    assert np.linalg.norm(product["image_vector"]) == pytest.approx(1, abs=1e-3)
    assert product["description"].count("Title of a") == 1


def test_the_counts_add_up_at_every_stage(world: World) -> None:
    for name in ("a", "b", "c", "c"):
        world.add(name, DAY)
    world.add("gone", DAY, world.images.add("/gone.jpg", status(404)))
    world.add("html", DAY, world.images.add("/page.jpg", content(b"<html>no image</html>")))
    world.add("blank", DAY, image=" ")
    run = world.run(DAY)
    for stage in STAGES:
        values = run.metadata[stage]
        assert values["rows_in"] == values["rows_out"] + values["rows_quarantined"], stage
    assert run.value("raw_products", "rows_without_image") == 1
    assert run.value("deduped_products", "duplicates") == 1
    assert run.value("product_images", "rows_quarantined") == 2
    assert {name: row.error_class for name, row in world.quarantine().items()} == {
        "gone": "ImageNotFoundError",
        "html": "InvalidImageError",
    }
    world.agrees(ids("a", "b", "c"))


def test_running_a_day_again_costs_nothing(world: World) -> None:
    for name in ("a", "b", "c"):
        world.add(name, DAY)
    world.add("gone", DAY, world.images.add("/gone.jpg", status(404)))
    world.run(DAY)
    before, calls = world.milvus(), world.model_calls()
    again = world.run(DAY)
    assert world.model_calls() == calls
    assert again.value("product_images", "images_downloaded") == 0
    assert again.value("clip_vectors", "vectors_computed") == 0
    assert again.value("milvus_collection", "insert_batches") == 0
    assert again.value("milvus_collection", "rows_unchanged") == 3
    assert again.value("deduped_products", "rows_unchanged") == 3
    assert again.value("data_label", "rows_written") == 0
    assert world.milvus() == before


def test_the_same_image_on_many_products_is_fetched_and_labeled_once(world: World) -> None:
    url = world.picture("/shared.jpg")
    for number in range(10):
        world.add(str(number), DAY, url)
    run = world.run(DAY)
    assert world.model_calls() == 1
    assert run.value("product_images", "images_downloaded") == 1
    assert run.value("qwen_labels", "calls_avoided") == 9
    world.agrees(ids(*map(str, range(10))))


def test_a_day_tells_its_cost_and_other_prices_write_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b"):
        world.add(name, DAY)
    run, before = world.run(DAY), world.milvus()
    assert (run.value("qwen_labels", "cost"), run.value("qwen_labels", "cost_saved")) == (0.0, 0.0)
    monkeypatch.setenv("LABELING_PRICE_PROMPT_TOKENS", "1000")
    again = world.run(DAY)
    assert again.value("qwen_labels", "cost") == 0.0, "nothing was asked"
    tokens = run.value("qwen_labels", "prompt_tokens")
    assert again.value("qwen_labels", "cost_saved") == pytest.approx(tokens * 1000 / 1e6)
    assert again.value("milvus_collection", "insert_batches") == again.value("data_label", "rows_written") == 0
    assert world.milvus() == before


def test_only_what_changed_is_worked_on(world: World) -> None:
    urls = {name: world.add(name, DAY) for name in ("kept", "edited", "repictured", "deleted", "moved")}
    world.run(DAY)
    world.run(NEXT)
    before, calls = world.milvus(), world.model_calls()
    world.sql(f"update {TABLE} set title = 'A new title' where product_id = 'edited'")
    world.picture(urls["repictured"].partition(str(world.images.port))[2], shade=1)
    world.sql(f"delete from {TABLE} where product_id = 'deleted'")
    world.sql(f"update {TABLE} set published_at = published_at + interval '1 day' where product_id = 'moved'")
    run, next_run = world.run(DAY), world.run(NEXT)
    assert run.value("product_images", "images_downloaded") == 1
    assert world.model_calls() == calls + 1
    assert run.value("milvus_collection", "rows_updated") == 2
    assert run.value("milvus_collection", "rows_unchanged") == 1
    assert run.value("milvus_collection", "rows_removed") == 2
    assert next_run.value("milvus_collection", "rows_new") == 1
    world.agrees(ids("kept", "edited", "repictured") | ids("moved", day=NEXT))
    after = world.milvus()
    assert after["kept"] == before["kept"]
    assert "A new title" in after["edited"]["description"]
    assert after["repictured"]["image_sha256"] != before["repictured"]["image_sha256"]
    assert after["repictured"]["image_vector"] != before["repictured"]["image_vector"]


def test_the_order_of_days_does_not_matter_for_a_moved_row(world: World) -> None:
    world.add("moved", DAY)
    world.run(DAY)
    world.sql(f"update {TABLE} set published_at = published_at + interval '1 day'")
    world.run(NEXT)
    world.run(DAY)
    world.agrees(ids("moved", day=NEXT))


def test_the_newest_day_of_a_product_wins_and_gives_it_back_when_it_leaves(world: World) -> None:
    world.add("a", DAY, title="older")
    world.add("a", NEXT, title="newer")
    world.run(NEXT)
    world.run(DAY)
    world.agrees(ids("a", day=NEXT))
    world.sql(f"delete from {TABLE} where title = 'newer'")
    assert world.run(NEXT).value("milvus_collection", "rows_restored") == 1
    assert world.milvus()["a"]["title"] == "older"
    assert world.data_label() == ids("a")


def test_a_day_that_became_empty_leaves_nothing_behind(world: World) -> None:
    world.add("a", DAY)
    world.run(DAY)
    world.sql(f"delete from {TABLE}")
    run = world.run(DAY)
    assert run.is_success, run.failure
    assert world.milvus() == {}
    assert world.data_label() == {}


def test_a_limited_run_removes_nothing(world: World) -> None:
    for number in range(4):
        world.add(str(number), DAY, seconds=number)
    world.run(DAY)
    run = world.run(DAY, config={"ops": {"raw_products": {"config": {"limit": 2}}}})
    assert run.value("raw_products", "rows_out") == 2
    assert run.value("milvus_collection", "rows_removed") == 0
    assert set(world.milvus()) == set(world.data_label()) == {"0", "1", "2", "3"}


def test_an_id_of_quotes_and_filter_syntax_passes_through_unharmed(world: World) -> None:
    world.add(NASTY, DAY)
    world.add("other", DAY)
    world.run(DAY)
    world.agrees(ids(NASTY, "other"))
    assert world.run(DAY).value("milvus_collection", "rows_unchanged") == 2
    world.sql(f"delete from {TABLE} where product_id = :id", id=NASTY)
    world.run(DAY)
    world.agrees(ids("other"))


def test_a_row_that_succeeds_later_leaves_the_quarantine(world: World) -> None:
    url = world.images.add("/late.jpg", status(404))
    world.add("late", DAY, url)
    world.run(DAY)
    assert world.quarantine()["late"].error_class == "ImageNotFoundError"
    world.picture("/late.jpg")
    world.run(DAY)
    assert world.quarantine() == {}
    world.agrees(ids("late"))


def test_a_product_whose_image_broke_leaves_milvus_and_says_why(world: World) -> None:
    url = world.add("a", DAY)
    world.run(DAY)
    world.images.add(url.partition(str(world.images.port))[2], content(b"garbage"))
    world.run(DAY)
    assert world.milvus() == {}
    assert world.quarantine()["a"].error_class == "InvalidImageError"


def test_an_outage_of_the_image_host_takes_nothing_away(world: World) -> None:
    url = world.add("a", DAY)
    world.run(DAY)
    before = world.milvus()
    world.images.add(url.partition(str(world.images.port))[2], status(503, Retry_After="0"))
    run = world.run(DAY)
    assert run.value("product_images", "images_served_stale") == 1
    assert world.milvus() == before
    assert world.quarantine() == {}


def test_a_product_that_may_succeed_later_stays_in_the_stores_meanwhile(world: World) -> None:
    world.add("a", DAY)
    world.add("b", DAY)
    world.run(DAY)
    busy = world.images.add("/busy.jpg", status(503, Retry_After="0"))
    world.sql(f"update {TABLE} set image = :url where product_id = 'a'", url=busy)
    run = world.run(DAY)
    assert run.value("product_images", "rows_quarantined") == 1
    assert world.quarantine()["a"].can_retry
    assert set(world.milvus()) == set(world.data_label()) == {"a", "b"}
    world.sql(f"delete from {TABLE} where product_id = 'a'")
    world.run(DAY)
    world.agrees(ids("b"))


def test_a_limited_run_lets_no_other_row_out_of_the_quarantine(world: World) -> None:
    world.add("gone", DAY, world.images.add("/gone.jpg", status(404)), seconds=1)
    world.add("newest", DAY, seconds=2)
    world.run(DAY)
    world.run(DAY, config={"ops": {"raw_products": {"config": {"limit": 1}}}})
    assert set(world.quarantine()) == {"gone"}


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e30"])
def test_a_number_that_cannot_be_stored_costs_one_row_not_the_day(world: World, number: str) -> None:
    world.add("good", DAY)
    world.add("bad", DAY)
    world.sql(f"update {TABLE} set impression = '{number}' where product_id = 'bad'")
    run = world.run(DAY)
    assert run.is_success, run.failure
    assert "impression" in world.quarantine()["bad"].message
    world.agrees(ids("good"))


def test_an_asset_without_its_input_names_what_to_materialize_first(world: World) -> None:
    job = build_defs().resolve_implicit_global_asset_job_def()
    result = job.execute_in_process(
        partition_key=str(DAY),
        instance=world.instance,
        asset_selection=[dg.AssetKey("milvus_collection")],
        raise_on_error=False,
    )
    (failure,) = result.get_step_failure_events()
    assert "Materialize clip_vectors of that day first" in str(failure.step_failure_data)


def test_a_missing_model_fails_the_step_with_the_command_that_mends_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.add("a", DAY)
    monkeypatch.setenv("LABELING_VISION_MODEL", "absent:latest")
    run = world.run(DAY)
    assert not run.is_success
    assert "ollama pull absent:latest" in run.failure
    assert "qwen_labels" not in run.metadata


def test_an_unreachable_model_server_fails_the_step_and_names_the_setting(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.add("a", DAY)
    monkeypatch.setenv("LABELING_OLLAMA_HOSTS", "http://127.0.0.1:9")
    run = world.run(DAY)
    assert not run.is_success
    assert "LABELING_OLLAMA_HOSTS" in run.failure


def test_vectors_of_another_embedder_are_refused_with_the_remedy(world: World) -> None:
    from pymilvus import MilvusClient

    world.add("a", DAY)
    world.run(DAY)
    client = MilvusClient(world.milvus_uri)
    client.alter_collection_properties(world.collection, {"labeling.embedder": "another"})
    client.close()
    run = world.run(DAY)
    assert not run.is_success
    assert "another" in run.failure
    assert "LABELING_MILVUS_COLLECTION" in run.failure


def test_no_secret_shows_in_the_resources_the_metadata_or_the_logs(
    world: World, postgres_url: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    password = str(sa.make_url(postgres_url).password)
    world.add("a", DAY)
    world.add("gone", DAY, world.images.add("/gone.jpg", status(404)))
    run = world.run(DAY)
    monkeypatch.setenv("LABELING_OLLAMA_HOSTS", "http://127.0.0.1:9")
    failure = world.run(DAY).failure
    logged = "".join(str(event) for run_ in world.instance.get_runs() for event in world.instance.all_logs(run_.run_id))
    output = capfd.readouterr()
    snapshot = resource_snapshot()
    for text in (str(run), failure, logged, output.out, output.err, snapshot, str(world.quarantine())):
        assert password not in text
    assert "LABELING_POSTGRES_URL" in snapshot


def resource_snapshot() -> str:
    from dagster._core.remote_representation.external_data import RepositorySnap

    repository: Any = build_defs().get_repository_def()
    return str(RepositorySnap.from_def(repository))
