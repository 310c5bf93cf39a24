"""One owner for each folder: a lock file that says who holds it, and what is done about processes of a dead owner.

The lock is a `flock` on an open file that the holder's processes inherit, so it is free only when the last of them is
gone, however they ended. The file's content is the record of the holder: `owner_pid`, who took the lock, and `pid`, the
program that was started with it, each with its start time, since pids are given anew.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from labeling_assets.embedded.launcher import start_time
from labeling_assets.errors import ConfigurationError, ServiceUnavailableError

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.05
GRACE_SECONDS = 30.0 if sys.platform == "linux" else 0.0
"""Time before an orphan is told to stop: on Linux the kernel has told it already."""
STOP_SECONDS = 30.0
"""Time that an orphan gets to stop after it was told."""
KILL_SECONDS = 10.0
"""Time that the system gets to end a killed process."""


@dataclass(frozen=True)
class ProcessId:
    """A process, told apart from a later one with the same pid.

    Attributes:
        pid: Process id.
        started: What `start_time` says of it.
    """

    pid: int
    started: str

    @classmethod
    def current(cls) -> ProcessId:
        """This process."""
        return cls(os.getpid(), start_time(os.getpid()) or "")

    def is_alive(self) -> bool:
        """Whether that very process still runs."""
        return start_time(self.pid) == self.started

    def send(self, number: signal.Signals) -> None:
        """Signal the process, if it is still that one."""
        if self.is_alive():
            try:
                os.kill(self.pid, number)
            except ProcessLookupError:
                logger.debug("Process %d ended by itself.", self.pid)


class LockFile:
    """The lock of a folder.

    Args:
        path: The lock file; its folder exists.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def try_take(self) -> int | None:
        """Take the lock without waiting.

        Returns:
            The open file that carries the lock, or None when it is held. Closing it gives the lock back, unless a child
            inherited it.

        Raises:
            ConfigurationError: The file cannot be opened.
        """
        try:
            lock_fd = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise ConfigurationError(
                f"The lock file {self.path} cannot be opened: {error.strerror}.",
                "Run as the user who owns the folder, or set LABELING_HOME to a folder of your own.",
            ) from error
        try:
            fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock_fd)
            return None
        os.ftruncate(lock_fd, 0)
        os.pwrite(lock_fd, json.dumps(owner_record()).encode(), 0)
        return lock_fd

    def program(self) -> ProcessId | None:
        """The program last started with the lock; it may be dead. None while there is none."""
        return self._recorded("pid", "started")

    def owner(self) -> ProcessId | None:
        """The process that last took the lock; it may be dead."""
        return self._recorded("owner_pid", "owner_started")

    def take(self, stop_signal: signal.Signals, stragglers: Callable[[], list[int]] = list) -> int:
        """Take the lock, waiting for processes of a dead owner to end and making them end when they do not.

        Args:
            stop_signal: Ends the program in good order.
            stragglers: Ids of processes that can outlive the killed program and keep the lock.

        Returns:
            The open file that carries the lock.

        Raises:
            ServiceUnavailableError: The holder belongs to a living owner, or does not end.
        """
        began = time.monotonic()
        signals = [(GRACE_SECONDS, stop_signal), (GRACE_SECONDS + STOP_SECONDS, signal.SIGKILL)]
        while (lock_fd := self.try_take()) is None:
            waited_seconds = time.monotonic() - began
            self._require_dead_owner()
            program = self.program()
            while signals and waited_seconds >= signals[0][0]:
                number = signals.pop(0)[1]
                if program is not None:
                    program.send(number)
            if program is not None and not program.is_alive():
                for pid in stragglers():
                    ProcessId(pid, start_time(pid) or "").send(signal.SIGKILL)
            if waited_seconds > GRACE_SECONDS + STOP_SECONDS + KILL_SECONDS:
                raise ServiceUnavailableError(
                    f"A process of an earlier start still holds {self.path} and does not end.",
                    "End it by hand; `fuser` with that file tells its id.",
                )
            time.sleep(POLL_SECONDS)
        return lock_fd

    def _require_dead_owner(self) -> None:
        owner = self.owner()
        if owner is not None and owner.pid != os.getpid() and owner.is_alive():
            raise ServiceUnavailableError(
                f"The folder {self.path.parent} is in use by process {owner.pid}.",
                "Stop that process, or use another folder.",
            )

    def _recorded(self, pid_key: str, started_key: str) -> ProcessId | None:
        try:
            record = json.loads(self.path.read_bytes())
            return ProcessId(int(record[pid_key]), str(record[started_key]))
        except PermissionError as error:
            raise ConfigurationError(
                f"The lock file {self.path} cannot be read: {error.strerror}.", "Run as the user who owns the folder."
            ) from error
        except (FileNotFoundError, ValueError, KeyError, TypeError):  # no file, or its holder is writing it now
            return None


def owner_record() -> dict[str, object]:
    """What a lock file says of the process that takes it."""
    current = ProcessId.current()
    return {"owner_pid": current.pid, "owner_started": current.started}
