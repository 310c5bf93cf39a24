"""Threads that keep every slot of a model server busy while images are read ahead.

What is done with an image is the caller's business (`labeler.py`); here are only threads, their order and their end.
"""

from __future__ import annotations

import atexit
import queue
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

Outcome = TypeVar("Outcome")
MAX_READERS = 8


class SlotPipeline(Generic[Outcome]):
    """Runs `work` on submitted keys, in as many threads as the server has slots.

    A slot's thread finishes the work of one key before it takes the next. Others read ahead for it, at most one waiting
    image a slot, so memory does not grow with the number of keys. The first error of a thread stops all: no new work is
    begun, what is under way is finished.

    Args:
        slots: Requests that the server serves at once.
        read: Gives the image of a key.
        work: Gets a key and a function that waits for its image (and raises what `read` raised).
    """

    def __init__(
        self, slots: int, read: Callable[[str], bytes], work: Callable[[str, Callable[[], bytes]], Outcome]
    ) -> None:
        self.outstanding = 0
        self._slots = slots
        self._read = read
        self._work = work
        self._waiting: deque[str] = deque()
        self._read_ahead: deque[tuple[str, Future[bytes]]] = deque()
        self._changed = threading.Condition()
        self._is_stopped = False
        self._done: queue.SimpleQueue[Outcome | _Failure] = queue.SimpleQueue()
        self._readers = ThreadPoolExecutor(min(slots, MAX_READERS), "image-reader")
        # A program may end without calling `stop`. Daemons, since Python joins others before it calls `atexit`.
        self._threads = [
            threading.Thread(target=self._serve_slot, name=f"vision-slot-{slot}", daemon=True) for slot in range(slots)
        ]

    def submit(self, key: str) -> None:
        """Have a key worked on; returns at once."""
        with self._changed:
            self.outstanding += 1
            self._waiting.append(key)
            self._start_reading()
            self._changed.notify()
        if self._threads[0].ident is None:
            atexit.register(self.stop)
            for thread in self._threads:
                thread.start()

    def next_outcome(self) -> Outcome:
        """Wait for the next finished work.

        Raises:
            BaseException: What `read` or `work` raised in a thread.
        """
        outcome = self._done.get()
        if isinstance(outcome, _Failure):
            raise outcome.error
        self.outstanding -= 1
        return outcome

    def stop(self) -> None:
        """Begin no new work, and wait for what is under way."""
        self._halt()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()
        self._readers.shutdown(cancel_futures=True)
        atexit.unregister(self.stop)

    def _halt(self) -> None:
        with self._changed:
            self._is_stopped = True
            self._changed.notify_all()

    def _start_reading(self) -> None:
        """Read the next keys, up to one a slot; the lock is held."""
        while self._waiting and len(self._read_ahead) < self._slots:
            key = self._waiting.popleft()
            self._read_ahead.append((key, self._readers.submit(self._read, key)))

    def _take(self) -> tuple[str, Future[bytes]] | None:
        """The next key and its image, or None when all is stopped."""
        with self._changed:
            while not (self._read_ahead or self._is_stopped):
                self._changed.wait()
            if self._is_stopped:
                return None
            taken = self._read_ahead.popleft()
            self._start_reading()
            return taken

    def _serve_slot(self) -> None:
        try:
            while (taken := self._take()) is not None:
                key, reading = taken
                self._done.put(self._work(key, reading.result))
        except BaseException as error:  # noqa: BLE001 - `next_outcome` raises it in the caller's thread
            self._halt()
            self._done.put(_Failure(error))


class _Failure:
    """An error on its way from a slot's thread to the caller's."""

    def __init__(self, error: BaseException) -> None:
        self.error = error
