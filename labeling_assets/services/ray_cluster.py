"""The connection to a Ray cluster, or one of its own on this machine, and the workers on it.

What a worker is and how it is called is in `ray_workers.py`.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import secrets
import signal
import socket
import threading
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from labeling_assets.errors import ConfigurationError
from labeling_assets.services.ray_workers import RayWorkers

KNOCK_SECONDS = 10.0
QUIET: Mapping[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
OBJECT_STORE_BYTES = 512 * 2**20
"""Shared memory of a cluster on this machine; a batch of 64 images of 512 px takes 50 MB."""


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
                os.environ.setdefault("RAY_AUTH_MODE", "token")
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
