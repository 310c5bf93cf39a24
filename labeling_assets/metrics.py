"""Prometheus metrics of the pipeline, read when they are scraped.

Each outside system gives its own figures; where one is down, `labeling_up` of it is 0, its figures are left out, and
those of the others are there. Labels take values from the code (statuses, pools, stages, classes of errors), never
from data, so that the number of series is bounded. `PipelineCollector` says what each figure means.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import dagster as dg
from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from labeling_assets import instance as dagster_instance
from labeling_assets.errors import ConfigurationError
from labeling_assets.services.connect import Services
from labeling_assets.services.milvus.collection import ALIAS_SUFFIX
from labeling_assets.services.milvus.connection import MilvusConnection
from labeling_assets.services.pipeline_totals import PipelineTotals
from labeling_assets.settings import Settings

SCRAPE_SECONDS = 8.0
"""A system that has not answered by then counts as down; Prometheus itself gives up after 10 s."""
FINISHED = (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)
logger = logging.getLogger(__name__)

Read = Callable[[], Iterable[Metric]]


class PipelineCollector(Collector):
    """Reads the figures of all systems at once, each within `SCRAPE_SECONDS`.

    Args:
        systems: What reads the figures of each system, by its name in `labeling_up`.
    """

    def __init__(self, systems: Mapping[str, Read]) -> None:
        self._systems = systems
        self._under_way: dict[str, Future[list[Metric]]] = {}
        self._lock = threading.Lock()

    def collect(self) -> Iterator[Metric]:
        """The figures of every system that answers."""
        up = GaugeMetricFamily("labeling_up", "Whether a system answers (1) or not (0).", labels=["service"])
        deadline = time.monotonic() + SCRAPE_SECONDS
        outcomes = {name: self._started(name, read) for name, read in self._systems.items()}
        for name, outcome in outcomes.items():
            try:
                found = outcome.result(timeout=max(0.0, deadline - time.monotonic()))
            except Exception as error:  # noqa: BLE001 - whatever breaks one system's figures, the others are there
                logger.warning("%s gives no metrics: %s: %s", name, type(error).__name__, error)
                found = []
                up.add_metric([name], 0)
            else:
                up.add_metric([name], 1)
            yield from found
        yield up

    def _started(self, name: str, read: Read) -> Future[list[Metric]]:
        """Read in a thread that no scrape waits for too long; one that hangs is not joined by a second."""
        with self._lock:
            outcome = self._under_way.get(name)
            if outcome is None or outcome.done():
                outcome = self._under_way[name] = Future()
                threading.Thread(target=_settle, args=(outcome, read), daemon=True, name=f"metrics of {name}").start()
            return outcome


def _settle(outcome: Future[list[Metric]], read: Read) -> None:
    try:
        outcome.set_result(list(read()))
    except BaseException as error:  # noqa: BLE001 - handed on to the scrape
        outcome.set_exception(error)


class PipelineFigures:
    """The figures of each system.

    Args:
        settings: With all addresses filled in.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._milvus = MilvusConnection(
            settings.milvus_uri or "", settings.milvus_token.get_secret_value() if settings.milvus_token else ""
        )
        self._kept = contextlib.ExitStack()
        self._kept.callback(self._milvus.close)
        self._instance: dg.DagsterInstance | None = None

    def close(self) -> None:
        """Close the connections."""
        self._kept.close()

    @property
    def systems(self) -> dict[str, Read]:
        """What reads the figures of each system."""
        return {"dagster_storage": self.dagster_storage, "postgres": self.postgres, "milvus": self.milvus}

    def dagster_storage(self) -> Iterator[Metric]:
        """Runs of the look-back window, and the pools."""
        if self._instance is None:  # made once its database answers
            self._instance = self._kept.enter_context(dagster_instance.pooled_instance())
        yield from self._runs(self._instance)
        yield from self._pools(self._instance)

    def _runs(self, instance: dg.DagsterInstance) -> Iterator[Metric]:
        now = dt.datetime.now(dt.UTC)
        since = now - dt.timedelta(days=self._settings.look_back_days)
        runs = GaugeMetricFamily("labeling_runs", "Runs of the look-back window by status.", labels=["status"])
        for status in dg.DagsterRunStatus:
            count = instance.get_runs_count(dg.RunsFilter(statuses=[status], created_after=since))
            runs.add_metric([status.value.lower()], count)
        age = GaugeMetricFamily(
            "labeling_last_run_age_seconds", "Time since the last run of each outcome ended.", labels=["status"]
        )
        duration = GaugeMetricFamily(
            "labeling_last_run_duration_seconds", "How long the last run of each outcome took.", labels=["status"]
        )
        for status in FINISHED:
            wanted = dg.RunsFilter(statuses=[status], created_after=since)
            for run in instance.get_run_records(wanted, limit=1, order_by="update_timestamp"):
                ended = run.end_time or run.update_timestamp.timestamp()
                age.add_metric([status.value.lower()], max(0.0, now.timestamp() - ended))
                if run.start_time is not None:  # a run that could not start has none
                    duration.add_metric([status.value.lower()], ended - run.start_time)
        yield from (runs, age, duration)

    def _pools(self, instance: dg.DagsterInstance) -> Iterator[Metric]:
        slots = GaugeMetricFamily("labeling_pool_slots", "Steps that a pool lets work at once.", labels=["pool"])
        used = GaugeMetricFamily("labeling_pool_slots_used", "Steps that work in a pool.", labels=["pool"])
        waiting = GaugeMetricFamily("labeling_pool_steps_waiting", "Steps that wait for a pool.", labels=["pool"])
        for pool in dagster_instance.POOLS:
            info = instance.event_log_storage.get_concurrency_info(pool)
            slots.add_metric([pool], info.slot_count)
            used.add_metric([pool], info.active_slot_count)
            waiting.add_metric([pool], info.pending_step_count)
        yield from (slots, used, waiting)

    def postgres(self) -> Iterator[Metric]:
        """Days, quarantine and label ledger."""
        totals = PipelineTotals(Services(self._settings).product_database.engine)
        yield from self._days(totals)
        quarantined = GaugeMetricFamily(
            "labeling_quarantined_rows",
            "Rows in quarantine by stage, class of error, and whether a retry can help.",
            labels=["stage", "error_class", "can_retry"],
        )
        for (stage, error_class, can_retry), count in totals.quarantined().items():
            quarantined.add_metric([stage, error_class, str(can_retry).lower()], count)
        yield quarantined
        ledger = totals.ledger()
        entries = GaugeMetricFamily("labeling_ledger_entries", "Images in the label ledger.", labels=["outcome"])
        entries.add_metric(["labeled"], ledger.labeled)
        entries.add_metric(["refused"], ledger.refused)
        yield entries
        # Gauges, not counters: what is forgotten so that the model is asked again leaves the sums.
        yield GaugeMetricFamily("labeling_ledger_model_calls", "Calls behind the ledger.", ledger.model_calls)
        yield GaugeMetricFamily("labeling_ledger_prompt_tokens", "Tokens read for the ledger.", ledger.prompt_tokens)
        yield GaugeMetricFamily("labeling_ledger_output_tokens", "Tokens written for it.", ledger.output_tokens)
        yield GaugeMetricFamily("labeling_ledger_model_seconds", "Time the model took for it.", ledger.model_seconds)
        cost = self._settings.prices.cost(ledger.prompt_tokens, ledger.output_tokens, ledger.model_seconds)
        yield GaugeMetricFamily("labeling_ledger_cost", "Cost of the ledger at the prices of the settings.", cost)

    def _days(self, totals: PipelineTotals) -> Iterator[Metric]:
        settings, now = self._settings, dt.datetime.now(self._settings.zone)
        yesterday = now.date() - dt.timedelta(days=1)
        first = max(settings.first_day, now.date() - dt.timedelta(days=settings.look_back_days))
        found = totals.days(min(first, now.date()), yesterday)
        days = GaugeMetricFamily(
            "labeling_days",
            "Days of the look-back window: in every store (synced), not yet (missing), failed and not mended (failed).",
            labels=["state"],
        )
        for state in ("synced", "missing", "failed"):
            days.add_metric([state], getattr(found, state))
        yield days
        if found.newest_synced is not None:
            end = dt.datetime.combine(found.newest_synced + dt.timedelta(days=1), dt.time(), settings.zone)
            yield GaugeMetricFamily(
                "labeling_newest_synced_day_age_seconds",
                "Time since the end of the newest day that every store holds.",
                max(0.0, now.timestamp() - end.timestamp()),
            )

    def milvus(self) -> Iterator[Metric]:
        """Products in the collection; 0 before the first day is run."""
        alias = self._settings.milvus_collection + ALIAS_SUFFIX
        count = 0
        if self._milvus.call("has_collection", alias, seconds=SCRAPE_SECONDS):
            rows = self._milvus.call("query", alias, filter="", output_fields=["count(*)"], seconds=SCRAPE_SECONDS)
            count = int(rows[0]["count(*)"])
        yield GaugeMetricFamily("labeling_milvus_products", "Products in the Milvus collection.", count)


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _QuietHandler(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - inherited
        logger.debug(format, *args)


@contextlib.contextmanager
def metrics_server(settings: Settings, host: str, port: int) -> Iterator[WSGIServer]:
    """A server of the metrics that listens already; `serve_forever` answers.

    Args:
        settings: With all addresses filled in.
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one, see `server_port`.

    Raises:
        ConfigurationError: The port is taken, or the address is not of this machine.
    """
    with contextlib.closing(PipelineFigures(settings)) as figures:
        registry = CollectorRegistry()
        registry.register(PipelineCollector(figures.systems))
        try:
            server = make_server(host, port, make_wsgi_app(registry), _Server, _QuietHandler)
        except OSError as error:
            raise ConfigurationError(
                f"The metrics cannot be served on {host}:{port}: {error.strerror}.",
                "Set LABELING_METRICS_PORT to a free port.",
            ) from error
        with server:
            yield server
