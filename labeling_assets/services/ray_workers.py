"""Actors of a Ray cluster (`ray_cluster.py`) that build services and serve their calls.

A worker is an actor that builds services from plain values and serves one call at a time. A worker that dies loses
nothing: its call goes to another, and Ray starts it anew. The nodes of a cluster need this package in the same version.
What is called there is the business of `ray_engine.py`.
"""

from __future__ import annotations

import os
import queue
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from labeling_assets.errors import (
    ConfigurationError,
    LabelingError,
    RowError,
    ServiceUnavailableError,
)

MAX_DEATHS = 3
"""Workers that may die on the same call until it is what they die of."""
START_SECONDS = 300.0
"""How long no worker may come free while calls wait: actors start in seconds, unless the cluster has no room for them,
and a call takes seconds."""


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
        self._last_free = 0.0
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
            ServiceUnavailableError: No worker comes free in time, all of them die, or the cluster is at fault.
            ConfigurationError: The workers cannot start, or differ.
        """
        from ray.exceptions import RayError, RayTaskError

        try:
            return self._call(service, expected_mark, name, arguments, fault or ServiceUnavailableError)
        except RayTaskError:  # raised by the service, and no `LabelingError`
            raise
        except (RayError, ConnectionError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
            raise ServiceUnavailableError(
                f"The Ray cluster fails: {type(error).__name__}: {reason}.", "See `ray status` and the cluster's logs."
            ) from error

    def _call(
        self,
        service: RemoteService,
        expected_mark: object,
        name: str,
        arguments: tuple[object, ...],
        fault: type[LabelingError],
    ) -> Any:  # noqa: ANN401 - whatever the service returns
        """The same; errors of the cluster itself are those of Ray."""
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
                    raise fault(message, remedy) from error
            finally:
                if is_free:
                    self._put_back(actor)
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
            last_free = self._last_free
            try:
                actor = self._idle.get(timeout=START_SECONDS)
            except queue.Empty:
                if self._last_free != last_free:  # they are busy with calls of others
                    continue
                raise ServiceUnavailableError(
                    f"No Ray worker came free for {START_SECONDS:.0f} s.",
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

    def _put_back(self, actor: Any) -> None:  # noqa: ANN401 - an actor handle
        self._last_free = time.monotonic()
        self._idle.put(actor)

    def _await(self, actor: Any) -> None:  # noqa: ANN401 - an actor handle
        """Have an actor back among the idle ones when it has started, again or for the first time."""

        def started(future: Any) -> None:  # noqa: ANN401 - a future of concurrent.futures
            error = future.exception()
            if error is None:
                self._put_back(actor)
            else:
                self._broken.append(error)
                self._idle.put(None)

        actor.ready.options(max_task_retries=-1).remote().future().add_done_callback(started)
