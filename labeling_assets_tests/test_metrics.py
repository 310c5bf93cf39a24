"""Metrics, scraped over HTTP and parsed by Prometheus's own parser, on real services and without them."""

import contextlib
import datetime as dt
import os
import signal
import socket
import subprocess
import sys
import threading
import types
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest
import requests
import sqlalchemy as sa
from prometheus_client.parser import text_string_to_metric_families

from labeling_assets import instance as dagster_instance
from labeling_assets import metrics
from labeling_assets.embedded.postgres import PostgresServer
from labeling_assets.errors import (
    ConfigurationError,
    ImageNotFoundError,
    ImageUnavailableError,
    ServiceUnavailableError,
)
from labeling_assets.services.connect import close_services
from labeling_assets.services.day_state import STORES, DayFailures, SyncedDays
from labeling_assets.services.milvus import connection
from labeling_assets.services.quarantine import Quarantine
from labeling_assets.services.tables import label_ledger
from labeling_assets.settings import Settings

Sample = tuple[str, tuple[tuple[str, str], ...]]


@dg.op
def work(context: dg.OpExecutionContext) -> None:
    if context.run.tags.get("fails"):
        raise dg.Failure("no")


@dg.job
def some_job() -> None:
    work()


@pytest.fixture(autouse=True)
def _patient_scrapes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine is no service that is down."""
    monkeypatch.setattr(metrics, "SCRAPE_SECONDS", 60.0)


@pytest.fixture
def settings(
    monkeypatch: pytest.MonkeyPatch, home: Path, postgres_server: PostgresServer, postgres_url: str, milvus_uri: str
) -> Iterator[Settings]:
    """Settings of a home whose Dagster storage is a database of its own."""
    name = f"dagster_{uuid.uuid4().hex}"
    root = sa.create_engine(str(postgres_server.url("labeling")), isolation_level="AUTOCOMMIT")
    with root.connect() as admin:
        admin.execute(sa.text(f"create database {name}"))
    values = {
        "HOME": str(home),
        "POSTGRES_URL": postgres_url,
        "DAGSTER_POSTGRES_URL": str(postgres_server.url(name)),
        "MILVUS_URI": milvus_uri,
        "MILVUS_COLLECTION": f"c_{uuid.uuid4().hex}",
    }
    for key, value in values.items():
        monkeypatch.setenv(f"LABELING_{key}", value)
    monkeypatch.setenv("DAGSTER_HOME", str(home / "dagster"))
    settings = Settings.load()
    dagster_instance.write_dagster_home(settings)
    yield settings
    close_services()
    with root.connect() as admin:
        admin.execute(sa.text(f"drop database {name} with (force)"))
    root.dispose()


@contextlib.contextmanager
def serving(settings: Settings) -> Iterator[Callable[[], dict[Sample, float]]]:
    with metrics.metrics_server(settings, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield lambda: scraped(f"http://127.0.0.1:{server.server_port}/metrics")
        server.shutdown()
        thread.join()


def scraped(url: str) -> dict[Sample, float]:
    answer = requests.get(url, timeout=30)
    assert answer.status_code == 200, answer.text
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def labeled(name: str, **labels: str) -> Sample:
    return name, tuple(sorted(labels.items()))


def yesterday(settings: Settings) -> dt.date:
    return dt.datetime.now(settings.zone).date() - dt.timedelta(days=1)


def test_a_new_installation_shows_zeros(settings: Settings, engine: sa.Engine) -> None:
    with serving(settings) as scrape:
        found = scrape()
    for service in ("postgres", "milvus", "dagster_storage"):
        assert found[labeled("labeling_up", service=service)] == 1
    assert found[labeled("labeling_runs", status="failure")] == 0
    assert found[labeled("labeling_days", state="missing")] == settings.look_back_days
    assert found[labeled("labeling_milvus_products")] == 0
    assert found[labeled("labeling_ledger_entries", outcome="labeled")] == 0
    assert labeled("labeling_newest_synced_day_age_seconds") not in found


def test_the_tables_of_ours_are_told(settings: Settings, engine: sa.Engine) -> None:
    last = yesterday(settings)
    days, failures = SyncedDays(engine), DayFailures(engine)
    for store in STORES:
        days.record(last - dt.timedelta(days=1), store, "3:a")
        days.record(last - dt.timedelta(days=1_000), store, "3:a")  # outside the window
    days.record(last, "data_label", "3:b")  # in one store alone
    for stage in ("raw_products", "qwen_labels"):
        failures.report(last, stage, "run", ServiceUnavailableError("x"))
    Quarantine(engine).report(
        last,
        "product_images",
        {"a": ImageNotFoundError("x"), "b": ImageUnavailableError("x"), "c": ImageNotFoundError("x")},
    )
    entry = {"model_digest": "d", "prompt_version": "1", "schema_version": "1", "model": "m", "seconds": 1.5}
    with engine.begin() as writer:
        for sha, error_class in (("1", None), ("2", None), ("3", "InvalidReplyError")):
            tokens = {"model_calls": 2, "prompt_tokens": 100, "output_tokens": 10}
            writer.execute(sa.insert(label_ledger).values(image_sha256=sha, error_class=error_class, **entry, **tokens))
    prices = {"price_prompt_tokens": 2.0, "price_output_tokens": 8.0, "price_gpu_hour": 36.0}
    with serving(settings.model_copy(update=prices)) as scrape:
        found = scrape()
    assert found[labeled("labeling_days", state="synced")] == 1
    assert found[labeled("labeling_days", state="missing")] == settings.look_back_days - 1
    assert found[labeled("labeling_days", state="failed")] == 1
    assert 86_400 <= found[labeled("labeling_newest_synced_day_age_seconds")] < 2 * 86_400 + 3_600
    quarantined = {"stage": "product_images"}
    not_found = labeled("labeling_quarantined_rows", error_class="ImageNotFoundError", can_retry="false", **quarantined)
    unavailable = labeled(
        "labeling_quarantined_rows", error_class="ImageUnavailableError", can_retry="true", **quarantined
    )
    assert (found[not_found], found[unavailable]) == (2, 1)
    assert found[labeled("labeling_ledger_entries", outcome="labeled")] == 2
    assert found[labeled("labeling_ledger_entries", outcome="refused")] == 1
    assert found[labeled("labeling_ledger_model_calls")] == 6
    assert found[labeled("labeling_ledger_prompt_tokens")] == 300
    assert found[labeled("labeling_ledger_output_tokens")] == 30
    assert found[labeled("labeling_ledger_model_seconds")] == 4.5
    assert found[labeled("labeling_ledger_cost")] == pytest.approx((300 * 2 + 30 * 8) / 1e6 + 4.5 * 36 / 3600)


def test_runs_and_pools_are_told(settings: Settings, engine: sa.Engine) -> None:
    quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    with dagster_instance.dagster_instance() as instance:
        some_job.execute_in_process(quiet, instance)
        for _ in range(2):
            some_job.execute_in_process(quiet, instance, tags={"fails": "yes"}, raise_on_error=False)
        held = instance.create_run_for_job(some_job, status=dg.DagsterRunStatus.STARTED)
        instance.event_log_storage.set_concurrency_slots("gpu", 1)
        instance.event_log_storage.claim_concurrency_slot("gpu", held.run_id, "work")
        instance.event_log_storage.claim_concurrency_slot("gpu", held.run_id, "another")
    with serving(settings) as scrape:
        found = scrape()
    counts = {status: found[labeled("labeling_runs", status=status)] for status in ("success", "failure", "started")}
    assert counts == {"success": 1, "failure": 2, "started": 1}
    for status in ("success", "failure"):
        assert found[labeled("labeling_last_run_age_seconds", status=status)] >= 0
        assert found[labeled("labeling_last_run_duration_seconds", status=status)] > 0
    assert labeled("labeling_last_run_age_seconds", status="canceled") not in found
    assert found[labeled("labeling_pool_slots", pool="gpu")] == 1
    assert found[labeled("labeling_pool_slots_used", pool="gpu")] == 1
    assert found[labeled("labeling_pool_steps_waiting", pool="gpu")] == 1
    assert found[labeled("labeling_pool_slots_used", pool="milvus")] == 0


def test_products_in_milvus_are_told(settings: Settings, engine: sa.Engine) -> None:
    from pymilvus import MilvusClient

    name = settings.milvus_collection
    with contextlib.closing(MilvusClient(str(settings.milvus_uri))) as client:
        client.create_collection(name, dimension=4)
        client.create_alias(name, f"{name}_live")
        client.insert(name, [{"id": number, "vector": [0.1] * 4} for number in range(7)])
        with serving(settings) as scrape:
            found = scrape()
        client.drop_alias(f"{name}_live")
        client.drop_collection(name)
    assert found[labeled("labeling_milvus_products")] == 7


def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize("down", ["postgres", "milvus", "dagster_storage"])
def test_a_service_that_is_down_is_told_and_the_others_answer(
    settings: Settings,
    engine: sa.Engine,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    down: str,
) -> None:
    monkeypatch.setattr(connection, "CONNECT_SECONDS", 0.5)
    monkeypatch.setattr("dagster_postgres.utils.time", types.SimpleNamespace(sleep=lambda _: None))  # between attempts
    nowhere = f"127.0.0.1:{unused_port()}"
    if down == "postgres":
        monkeypatch.setenv("LABELING_POSTGRES_URL", f"postgresql://user:tr0ub4dor@{nowhere}/x")
    elif down == "milvus":
        monkeypatch.setenv("LABELING_MILVUS_URI", f"http://{nowhere}")
    else:
        monkeypatch.setenv("LABELING_DAGSTER_POSTGRES_URL", f"postgresql+psycopg2://user:tr0ub4dor@{nowhere}/x")
    with serving(Settings.load()) as scrape:
        found = scrape()
    services = ("postgres", "milvus", "dagster_storage")
    assert {service: found[labeled("labeling_up", service=service)] for service in services} == {
        service: float(service != down) for service in services
    }
    assert f"{down} gives no metrics" in caplog.text
    assert "tr0ub4dor" not in caplog.text
    figures = {"postgres": "labeling_days", "milvus": "labeling_milvus_products", "dagster_storage": "labeling_runs"}
    assert {name for name, _ in found} & set(figures.values()) == {
        figures[service] for service in services if service != down
    }


def test_a_system_that_hangs_does_not_hold_up_the_scrape_and_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "SCRAPE_SECONDS", 0.05)
    answer, asked = threading.Event(), []

    def hang() -> list[metrics.Metric]:
        asked.append(1)
        answer.wait()
        return []

    collector = metrics.PipelineCollector({"slow": hang})
    for _ in range(3):
        assert [family.samples[0].value for family in collector.collect()] == [0]
    assert len(asked) == 1
    answer.set()


def test_a_port_that_is_taken_is_a_wrong_setting(settings: Settings) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with (
            pytest.raises(ConfigurationError, match="LABELING_METRICS_PORT"),
            metrics.metrics_server(settings, "127.0.0.1", taken.getsockname()[1]),
        ):
            pass


def test_the_command_serves_metrics_until_it_is_stopped(settings: Settings, engine: sa.Engine) -> None:
    command = [sys.executable, "-c", "from labeling_assets.cli import main; main()", "metrics", "--port", "0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {"PYTHONUNBUFFERED": "1"}
    ) as process:
        assert process.stdout is not None
        address = process.stdout.readline().split()[1]
        assert scraped(address)[labeled("labeling_up", service="postgres")] == 1
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 130, errors
