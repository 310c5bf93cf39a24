"""Child processes that are started again when they end, and that end with us however we end.

Which programs they are is the business of `dev.py`. They are looked at, not waited for: one thread keeps any number.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Sequence

import psutil
from rich.console import Console

from labeling_assets.embedded.launcher import Specification
from labeling_assets.embedded.process import launcher_command
from labeling_assets.errors import ServiceUnavailableError

FIRST_DELAY_SECONDS = 1.0
LONGEST_DELAY_SECONDS = 15.0
STABLE_SECONDS = 60.0
"""A process that ran for so long has its failures forgiven."""
MAX_FAILURES = 6
POLL_SECONDS = 0.1


class KeptProcess:
    """One child that is kept running.

    Args:
        name: For people.
        command: Program and arguments; the program is an absolute path.
        death_signal: What it gets when we are killed (on Linux).
        lock_fd: Open file that carries our lock, which the child shares.
    """

    def __init__(self, name: str, command: Sequence[str], death_signal: signal.Signals, lock_fd: int) -> None:
        self.name = name
        self._command = list(command)
        self._death_signal = death_signal
        self._lock_fd = lock_fd
        self._process: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        self._start_at = 0.0
        self._failures = 0

    def look(self, console: Console) -> None:
        """Start it where that is due, and see whether it has ended.

        Raises:
            ServiceUnavailableError: It ends again and again.
        """
        now = time.monotonic()
        if self._process is None:
            if now >= self._start_at:
                self._launch()
            return
        code = self._process.poll()
        if code is None:
            return
        self._process = None
        self._failures = 1 if now - self._started > STABLE_SECONDS else self._failures + 1
        if self._failures >= MAX_FAILURES:
            raise ServiceUnavailableError(
                f"The {self.name} ended {self._failures} times in a row, at last with code {code}.",
                "What it printed above tells why.",
            )
        delay_seconds = min(FIRST_DELAY_SECONDS * 2 ** (self._failures - 1), LONGEST_DELAY_SECONDS)
        self._start_at = now + delay_seconds
        console.print(f"The {self.name} ended with code {code}; it is started again in {delay_seconds:.0f} s.")

    def children(self) -> list[psutil.Process]:
        """Its own child processes that live."""
        if self._process is None or self._process.poll() is not None:
            return []
        with contextlib.suppress(psutil.NoSuchProcess):
            return psutil.Process(self._process.pid).children()
        return []

    def tell_to_stop(self) -> None:
        """Send SIGTERM."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()

    def wait_or_kill(self, deadline: float) -> None:
        """Wait for its end until a moment of the monotonic clock, then kill it with its children."""
        if self._process is None:
            return
        try:
            self._process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            for child in self.children():
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.kill()
            self._process.kill()
            self._process.wait()
        self._process = None
        self._start_at = 0.0

    def _launch(self) -> None:
        specification = Specification(
            command=self._command,
            user_id=None,
            group_id=None,
            death_signal=self._death_signal,
            parent_pid=os.getpid(),
            record_fd=None,
            record={},
            is_detached=False,
        )
        self._process = subprocess.Popen(
            launcher_command(specification),
            stdin=subprocess.DEVNULL,
            cwd="/",
            env=os.environ | {"PYTHONWARNINGS": "ignore"},
            pass_fds=(self._lock_fd,),
        )
        self._started = time.monotonic()
