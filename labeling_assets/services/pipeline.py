"""Threads that keep models busy: while one batch computes, the next is prepared and the one before it is written.

Labels and vectors go through the same pipeline. What is done with an item is the business of the caller
(`vision/labeler.py`, `embedding/cached.py`); here are only threads, their order and their end.
"""

from __future__ import annotations

import atexit
import heapq
import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from weakref import WeakSet

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")
MAX_READERS = 8
LATER_SECONDS = 0.1
LOOK_SECONDS = 0.5
"""How often a thread that sleeps looks whether its pipeline is stopped."""
DONE_BATCHES = 2
"""Finished batches of each worker that may wait for the caller; then no further one is begun."""


@dataclass(frozen=True)
class Ready(Generic[Item]):
    """What a key stands for, which is to be worked on."""

    item: Item


@dataclass(frozen=True)
class Later:
    """A key that cannot be worked on now, and is to be prepared again after the others."""


class StoppedError(Exception):
    """The pipeline of a thread is stopped, so the thread does not begin what it was about to.

    Attributes:
        failed_attempts: See `LabelingError`.
    """

    failed_attempts: int = 0


class Pipeline(Generic[Item, Outcome]):
    """Prepares submitted keys in some threads and works on them, in batches, in others.

    Both queues are bounded, so memory does not grow with the number of keys: one batch waits for each worker, and a
    caller that does not take outcomes halts the workers. A batch is not waited for when nothing more can be prepared
    now: the last one may be smaller. A worker gets the earliest keys that are ready; outcomes come as they are done.
    The first error of a thread stops all: no new work is begun, what is under way is finished and handed out.

    Attributes:
        outstanding: Submitted keys whose outcome the caller has not taken.

    Args:
        workers: Batches worked on at once: slots of a model server, devices of an embedder.
        prepare: Gets a key and returns what is to be worked on, or its outcome where no work is needed, or `Later`.
        work: Gets the keys and items of a batch and returns an outcome for each.
        batch: Items of a batch.
        readers: Threads that prepare, at most.
    """

    def __init__(
        self,
        workers: int,
        prepare: Callable[[str], Ready[Item] | Later | Outcome],
        work: Callable[[Sequence[tuple[str, Item]]], Sequence[Outcome]],
        *,
        batch: int = 1,
        readers: int = MAX_READERS,
    ) -> None:
        self.outstanding = 0
        self._prepare = prepare
        self._work = work
        self._batch = batch
        self._capacity = workers * batch
        self._numbers = itertools.count()
        self._waiting: deque[tuple[float, int, str]] = deque()
        self._preparing = 0
        self._ready: list[tuple[int, str, Item]] = []
        self._done: deque[Outcome] = deque()
        self._error: BaseException | None = None
        self._running = 0
        self._changed = threading.Condition()
        self._is_stopped = False
        _pipelines.add(self)
        # A program may end without calling `stop`. Daemons, since Python joins others before it calls `atexit`.
        self._threads = [
            threading.Thread(target=self._run, args=(step,), name=name, daemon=True)
            for count, step, name in (
                (min(self._capacity, readers), self._prepare_one, "pipeline-reader"),
                (workers, self._work_on_batch, "pipeline-worker"),
            )
            for _ in range(count)
        ]

    def submit(self, keys: Iterable[str]) -> None:
        """Have keys worked on; returns at once. Batches are full when the keys are submitted together."""
        with self._changed:
            waiting = [(0.0, number, key) for key, number in zip(keys, self._numbers, strict=False)]
            self.outstanding += len(waiting)
            self._waiting.extend(waiting)
            self._changed.notify_all()
            is_first = bool(waiting) and not self._running and self._threads[0].ident is None
            if is_first:
                self._running = len(self._threads)
        if is_first:
            atexit.register(self.stop)
            for thread in self._threads:
                thread.start()

    def next_outcomes(self) -> list[Outcome]:
        """Wait for finished work, and take all that there is: at least one outcome.

        Raises:
            BaseException: What `prepare` or `work` raised in a thread, once everything that was finished is taken.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._done or (self._error and not self._running))
            if not self._done and self._error:
                raise self._error
            outcomes = list(self._done)
            self._done.clear()
            self.outstanding -= len(outcomes)
            self._changed.notify_all()
        return outcomes

    def stop(self, timeout_seconds: float | None = None) -> None:
        """Begin no new work, and wait for what is under way, but no longer than the timeout."""
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        self._halt()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(None if deadline is None else max(0.0, deadline - time.monotonic()))
        atexit.unregister(self.stop)

    @property
    def is_stopped(self) -> bool:
        """Whether no new work is begun."""
        return self._is_stopped

    def _halt(self, error: BaseException | None = None) -> None:
        with self._changed:
            self._is_stopped = True
            self._error = self._error or error
            self._changed.notify_all()

    def _run(self, step: Callable[[], None]) -> None:
        _this_thread.pipeline = self
        try:
            while not self._is_stopped:
                step()
        except StoppedError:
            pass  # the thread has begun nothing, and its key counts as one that was never worked on
        except BaseException as error:  # noqa: BLE001 - `next_outcomes` raises it in the caller's thread
            self._halt(error)
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify_all()

    def _prepare_one(self) -> None:
        with self._changed:
            while not self._is_stopped and (wait_seconds := self._seconds_to_next_key()) != 0:
                self._changed.wait(wait_seconds)
            if self._is_stopped:
                return
            _, number, key = self._waiting.popleft()
            self._preparing += 1
        prepared = self._prepare(key)
        with self._changed:
            self._preparing -= 1
            if isinstance(prepared, Ready):
                heapq.heappush(self._ready, (number, key, prepared.item))
            elif isinstance(prepared, Later):
                self._waiting.append((time.monotonic() + LATER_SECONDS, number, key))
            else:
                self._done.append(prepared)
            self._changed.notify_all()

    def _seconds_to_next_key(self) -> float | None:
        """Time until a key may be prepared: 0 for now, None when first something else must happen."""
        if not self._waiting or len(self._ready) + self._preparing >= self._capacity:
            return None
        return max(self._waiting[0][0] - time.monotonic(), 0)

    def _work_on_batch(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._is_stopped or self._has_batch())
            if self._is_stopped:
                return
            taken = [heapq.heappop(self._ready) for _ in range(min(self._batch, len(self._ready)))]
            self._changed.notify_all()
        outcomes = self._work([(key, item) for _, key, item in taken])
        with self._changed:
            self._done.extend(outcomes)
            self._changed.notify_all()

    def _has_batch(self) -> bool:
        """Whether there is a batch to work on, and room for its outcomes."""
        if not self._ready or len(self._done) >= DONE_BATCHES * self._capacity:
            return False
        return len(self._ready) >= self._batch or (self._preparing == 0 and self._seconds_to_next_key() != 0)


_pipelines: WeakSet[Pipeline[Any, Any]] = WeakSet()
_this_thread = threading.local()


def raise_if_stopped() -> None:
    """End this thread's work when its pipeline is stopped; a thread of none goes on.

    To be called inside `work` before what would be new, after each wait above all.

    Raises:
        StoppedError: It is.
    """
    pipeline: Pipeline[Any, Any] | None = getattr(_this_thread, "pipeline", None)
    if pipeline and pipeline.is_stopped:
        raise StoppedError


def sleep(seconds: float) -> None:
    """Sleep, but hardly longer than this thread's pipeline goes on.

    Raises:
        StoppedError: It is stopped.
    """
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        time.sleep(min(left, LOOK_SECONDS))
        raise_if_stopped()


def finish_requests(timeout_seconds: float) -> None:
    """Begin no new work in this process, and wait for what is under way, so that nobody pays for it again."""
    for pipeline in list(_pipelines):
        pipeline.stop(timeout_seconds)
