"""Threads that keep every slot of a model server busy while the next images are prepared.

What is done with an image is the caller's business (`labeler.py`); here are only threads, their order and their end.
"""

from __future__ import annotations

import atexit
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from weakref import WeakSet

Outcome = TypeVar("Outcome")
MAX_READERS = 8
LATER_SECONDS = 0.1


@dataclass(frozen=True)
class Ready:
    """The image of a key, which is to have a slot."""

    jpeg: bytes


@dataclass(frozen=True)
class Later:
    """A key that cannot be worked on now, and is to be prepared again after the others."""


class SlotPipeline(Generic[Outcome]):
    """Prepares submitted keys and works on them, in as many threads as the server has slots.

    A slot's thread finishes the work of one image before it takes the next. Other threads prepare images for it, at
    most one waiting image a slot, so memory does not grow with the number of keys. The first error of a thread stops
    all: no new work is begun, what is under way is finished.

    Args:
        slots: Requests that the server serves at once.
        prepare: Gets a key and returns its image, or its outcome where it needs no slot, or `Later`.
        work: Gets a key and its image and returns its outcome.
    """

    def __init__(
        self,
        slots: int,
        prepare: Callable[[str], Ready | Later | Outcome],
        work: Callable[[str, bytes], Outcome],
    ) -> None:
        self.outstanding = 0
        self._slots = slots
        self._prepare = prepare
        self._work = work
        self._waiting: deque[tuple[float, str]] = deque()
        self._ready: deque[tuple[str, bytes]] = deque()
        self._preparing = 0
        self._changed = threading.Condition()
        self._is_stopped = False
        _pipelines.add(self)
        self._done: queue.SimpleQueue[Outcome | _Failure] = queue.SimpleQueue()
        # A program may end without calling `stop`. Daemons, since Python joins others before it calls `atexit`.
        self._threads = [
            threading.Thread(target=self._run, args=(step,), name=name, daemon=True)
            for count, step, name in (
                (min(slots, MAX_READERS), self._prepare_one, "image-reader"),
                (slots, self._work_on_one, "vision-slot"),
            )
            for _ in range(count)
        ]

    def submit(self, key: str) -> None:
        """Have a key worked on; returns at once."""
        with self._changed:
            self.outstanding += 1
            self._waiting.append((0.0, key))
            self._changed.notify_all()
        if self._threads[0].ident is None:
            atexit.register(self.stop)
            for thread in self._threads:
                thread.start()

    def next_outcome(self) -> Outcome:
        """Wait for the next finished work.

        Raises:
            BaseException: What `prepare` or `work` raised in a thread.
        """
        outcome = self._done.get()
        if isinstance(outcome, _Failure):
            raise outcome.error
        self.outstanding -= 1
        return outcome

    def stop(self, timeout_seconds: float | None = None) -> None:
        """Begin no new work, and wait for what is under way, but no longer than the timeout."""
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        self._halt()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(None if deadline is None else max(0.0, deadline - time.monotonic()))
        atexit.unregister(self.stop)

    def _halt(self) -> None:
        with self._changed:
            self._is_stopped = True
            self._changed.notify_all()

    def _run(self, step: Callable[[], None]) -> None:
        try:
            while not self._is_stopped:
                step()
        except BaseException as error:  # noqa: BLE001 - `next_outcome` raises it in the caller's thread
            self._halt()
            self._done.put(_Failure(error))

    def _prepare_one(self) -> None:
        with self._changed:
            while not self._is_stopped and (wait_seconds := self._seconds_to_next_key()) != 0:
                self._changed.wait(wait_seconds)
            if self._is_stopped:
                return
            _, key = self._waiting.popleft()
            self._preparing += 1
        prepared = self._prepare(key)
        with self._changed:
            self._preparing -= 1
            if isinstance(prepared, Ready):
                self._ready.append((key, prepared.jpeg))
            elif isinstance(prepared, Later):
                self._waiting.append((time.monotonic() + LATER_SECONDS, key))
            else:
                self._done.put(prepared)
            self._changed.notify_all()

    def _seconds_to_next_key(self) -> float | None:
        """Time until a key may be prepared: 0 for now, None when first something else must happen."""
        if not self._waiting or len(self._ready) + self._preparing >= self._slots:
            return None
        return max(self._waiting[0][0] - time.monotonic(), 0)

    def _work_on_one(self) -> None:
        with self._changed:
            while not self._is_stopped and not self._ready:
                self._changed.wait()
            if self._is_stopped:
                return
            key, jpeg = self._ready.popleft()
            self._changed.notify_all()
        self._done.put(self._work(key, jpeg))


_pipelines: WeakSet[SlotPipeline[Any]] = WeakSet()


def finish_requests(timeout_seconds: float) -> None:
    """Begin no new work in this process, and wait for what is under way, so that nobody pays for it again."""
    for pipeline in list(_pipelines):
        pipeline.stop(timeout_seconds)


class _Failure:
    """An error on its way from a thread to the caller."""

    def __init__(self, error: BaseException) -> None:
        self.error = error
