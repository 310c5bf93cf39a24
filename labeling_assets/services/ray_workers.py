"""Actors of a Ray cluster that build services and serve their calls.

A worker is an actor that builds services from plain values and serves one call at a time. A worker that dies loses
nothing: its call goes to another, and Ray starts it anew. The nodes of a cluster need this package in the same version.
What is called there is the business of `ray_engine.py`.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import queue
import secrets
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from labeling_assets.errors import (
    ConfigurationError,
    LabelingError,
    RowError,
    ServiceUnavailableError,
)

MAX_DEATHS = 3
"""Workers that may die on the same call until it is what they die of."""
START_SECONDS = 300.0
"""How long a call waits for a worker: actors start in seconds, unless the cluster has no room for them."""
KNOCK_SECONDS = 10.0
QUIET: Mapping[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
OBJECT_STORE_BYTES = 512 * 2**20
"""Shared memory of a cluster on this machine; a batch of 64 images of 512 px takes 50 MB."""


@dataclass(frozen=True)
class RemoteService:
    """What a worker builds, once.

    Attributes:
        factory: A function or class of this package, found by its name on the worker.
        values: Its arguments, plain values and no secrets.
        mark: Attribute that is the same wherever the service gives the same results.
    """

    factory: Callable[..., Any]
    values: tuple[Any, ...]
    mark: str


class Worker:
    """What an actor holds: the services that it was asked for."""

    def __init__(self) -> None:
        self._services: dict[RemoteService, Any] = {}

    def ready(self) -> int:
        """The id of the process, as soon as it runs."""
        return os.getpid()

    def call(self, service: RemoteService, expected_mark: object, name: str, arguments: tuple[Any, ...]) -> Any:  # noqa: ANN401 - whatever the service returns
        """The value of an attribute, or of a method for its arguments.

        Raises:
            ConfigurationError: Another release is installed here, which gives other results.
        """
        if service not in self._services:
            self._services[service] = service.factory(*service.values)
        built = self._services[service]
        mark = getattr(built, service.mark)
        if expected_mark not in (None, mark):
            raise ConfigurationError(
                f"The Ray workers differ: one has {mark}, another {expected_mark}.",
                "Install the same versions of labeling-assets and its libraries on every node.",
            )
        value = getattr(built, name)
        return value(*arguments) if callable(value) else value


class RayWorkers:
    """Actors of one kind. Thread-safe.

    Args:
        count: Actors; those that the cluster has no room for are waited for, while the others work.
        resources: What each takes: `num_cpus`, `num_gpus`.
    """

    def __init__(self, count: int, resources: Mapping[str, float]) -> None:
        import ray

        actor = ray.remote(Worker).options(max_restarts=-1, max_task_retries=0, **resources)
        self.count = count
        self._actors: list[Any] = [actor.remote() for _ in range(count)]
        self._idle: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._broken: list[BaseException] = []
        for each in self._actors:
            self._await(each)

    def call(
        self,
        service: RemoteService,
        name: str,
        *arguments: object,
        expected_mark: object = None,
        fault: type[RowError] | None = None,
    ) -> Any:  # noqa: ANN401 - whatever the service returns
        """Call a method of a service, or read an attribute, on the next free worker.

        Args:
            service: The service.
            name: Name of the method or attribute.
            *arguments: Arguments of the method.
            expected_mark: The mark that the service must have; None: any.
            fault: Error of a call on which workers die; None: the cluster is at fault.

        Raises:
            LabelingError: What the service raised, or `fault`.
            ServiceUnavailableError: No worker is free in time, or all of them die.
            ConfigurationError: The workers cannot start, or differ.
        """
        import ray
        from ray.exceptions import NodeDiedError, ObjectLostError, OutOfMemoryError, RayActorError, RayTaskError

        deaths = 0
        while True:
            actor = self._check_out()
            is_free = False
            try:
                value = ray.get(actor.call.remote(service, expected_mark, name, arguments))
                is_free = True
            except RayTaskError as error:
                if isinstance(error.cause, LabelingError):
                    raise error.cause from None
                raise
            except (RayActorError, NodeDiedError, OutOfMemoryError, ObjectLostError) as error:
                deaths += 1
                if deaths == MAX_DEATHS:
                    message = f"{deaths} Ray workers died on the same call ({type(error).__name__})."
                    remedy = "Memory is the usual cause: see the logs of the cluster."
                    raise (fault or ServiceUnavailableError)(message, remedy) from error
            finally:
                if is_free:
                    self._idle.put(actor)
                else:
                    self._await(actor)
            if is_free:
                return value

    def close(self) -> None:
        """End the actors."""
        import ray

        for actor in self._actors:
            ray.kill(actor)

    def _check_out(self) -> Any:  # noqa: ANN401 - an actor handle
        while True:
            try:
                actor = self._idle.get(timeout=START_SECONDS)
            except queue.Empty:
                raise ServiceUnavailableError(
                    f"No Ray worker was free for {START_SECONDS:.0f} s.",
                    "See `ray status` for what the cluster has left; a worker takes LABELING_RAY_CPUS_PER_WORKER.",
                ) from None
            if actor is not None:
                return actor
            if len(self._broken) == self.count:
                self._idle.put(None)
                reason = str(self._broken[-1]).strip().splitlines()[-1]
                raise ConfigurationError(
                    f"The Ray workers cannot start: {reason}", "Install labeling-assets on every node of the cluster."
                )

    def _await(self, actor: Any) -> None:  # noqa: ANN401 - an actor handle
        """Have an actor back among the idle ones when it has started, again or for the first time."""

        def started(future: Any) -> None:  # noqa: ANN401 - a future of concurrent.futures
            error = future.exception()
            if error is not None:
                self._broken.append(error)
            self._idle.put(actor if error is None else None)

        actor.ready.options(max_task_retries=-1).remote().future().add_done_callback(started)


class RayCluster:
    """A connection to Ray, one a process, and the workers of it.

    Args:
        address: `ray://host:10001` or `auto`; empty: a cluster on this machine, which ends with `close`.
        cpus_per_worker: CPUs of a worker without a GPU.

    Raises:
        ConfigurationError: Ray is not installed, or the cluster cannot be reached.
    """

    def __init__(self, address: str, cpus_per_worker: float) -> None:
        if importlib.util.find_spec("ray") is None:
            raise ConfigurationError(
                "LABELING_ENGINE is ray, which is not installed.", "pip install 'labeling-assets[ray]'"
            )
        import ray

        self._cpus_per_worker = cpus_per_worker
        self._lock = threading.Lock()
        self._workers: dict[bool, RayWorkers] = {}
        self._is_ours = not ray.is_initialized()
        if self._is_ours:
            _connect(address)
        resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]  # Ray's own
        self.gpus = int(resources.get("GPU", 0))
        self._cpus = resources.get("CPU", 0.0)

    def workers(self, *, on_gpu: bool) -> RayWorkers:
        """The workers that have a GPU each, or those that have none; all services of a process share them.

        Raises:
            ConfigurationError: The cluster has no GPU.
        """
        with self._lock:
            if on_gpu not in self._workers:
                if on_gpu:
                    self._workers[on_gpu] = RayWorkers(self.gpus, {"num_cpus": 0, "num_gpus": 1})
                else:
                    count = max(1, int(self._cpus / self._cpus_per_worker))
                    self._workers[on_gpu] = RayWorkers(count, {"num_cpus": self._cpus_per_worker})
            return self._workers[on_gpu]

    def close(self) -> None:
        """End the workers, and the cluster if it is one on this machine that was started here."""
        import ray

        if not ray.is_initialized():  # Ray shuts itself down when the program ends
            return
        for workers in self._workers.values():
            workers.close()
        self._workers.clear()
        if self._is_ours:
            ray.shutdown()


def _connect(address: str) -> None:
    import ray

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        _knock(address)
        with _own_signal_handler():
            if address:
                ray.init(address, **QUIET)
            else:
                # A cluster's servers listen on all interfaces and run what they are sent: only by who has the token.
                os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
                start_cluster(object_store_memory=OBJECT_STORE_BYTES)
    except (ConnectionError, RuntimeError, ValueError, OSError, ray.exceptions.RayError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise ConfigurationError(
            f"The Ray cluster {address or 'on this machine'} cannot be reached: {reason}.",
            "Check LABELING_RAY_ADDRESS, and that the cluster runs the same releases of Python and Ray.",
        ) from error


def start_cluster(**options: Any) -> None:  # noqa: ANN401 - those of `ray.init`
    """Start a cluster on this machine, which ends with this process.

    Ray waits 30 s for its first server, which is too short where the machine is busy and the files are cold.

    Raises:
        RuntimeError: It does not start, also at the second try.
    """
    import ray

    os.environ.setdefault("RAY_gcs_server_port_wait_time_s", "60")
    try:
        ray.init("local", include_dashboard=False, **QUIET, **options)
    except RuntimeError:
        ray.shutdown()
        ray.init("local", include_dashboard=False, **QUIET, **options)


def _knock(address: str) -> None:
    """Raise `OSError` at once where nobody listens, which Ray itself tells after minutes and many log lines."""
    parts = urlsplit(address if "://" in address else f"//{address}")
    if parts.hostname and parts.port:
        socket.create_connection((parts.hostname, parts.port), timeout=KNOCK_SECONDS).close()


@contextlib.contextmanager
def _own_signal_handler() -> Iterator[None]:
    """Keep the handler of SIGTERM, which Ray replaces with one that leaves the process at once."""
    is_main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if is_main:
            signal.signal(signal.SIGTERM, handler)
