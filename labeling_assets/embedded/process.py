"""What the servers of the laptop stack have in common: launch, readiness and stop of a child process.

Each server holds the lock `server.lock` of its folder for as long as any of its processes lives, so two servers never
work on one folder. What belongs here: nothing that only one kind of server needs.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from labeling_assets.embedded import launcher
from labeling_assets.embedded.home import make_folder
from labeling_assets.embedded.launcher import Specification
from labeling_assets.embedded.lock import LockFile, owner_record
from labeling_assets.embedded.ports import LOOPBACK, free_port, is_port_free
from labeling_assets.errors import ConfigurationError, ServiceUnavailableError

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.05
LOG_LIMIT_BYTES = 10_000_000
"""A log over this size is moved aside when its server starts."""


class ServerProcess(ABC):
    """One server as a child process that dies with its parent; a context manager that starts and stops it.

    Start it from the main thread: on Linux the kernel stops the server when the *thread* that started it ends.

    Args:
        folder: Folder of the server with its data and lock; made if missing.
        port: TCP port on 127.0.0.1; None takes a free one.
        can_move: Whether a port that another program holds is replaced by a free one.
        log_file: Where the output goes; default `server.log` in the folder.

    Attributes:
        folder: As given, absolute.
        port: The port in use; 0 before the first launch when none was given.
        log_file: As given.
    """

    name: ClassVar[str]
    """How people call it, such as `PostgreSQL`."""
    stop_signal: ClassVar[signal.Signals]
    """Ends it in good order; also what it gets when its parent dies."""
    stop_timeout_seconds: ClassVar[float] = 60.0

    def __init__(
        self, folder: Path, port: int | None = None, *, can_move: bool = False, log_file: Path | None = None
    ) -> None:
        self.folder = folder.absolute()
        self.port = port or 0
        self.log_file = log_file or self.folder / "server.log"
        self.lock_file = LockFile(self.folder / "server.lock")
        self._can_move = can_move
        self._process: subprocess.Popen[bytes] | None = None
        self._lock_fd = -1

    @property
    def pid(self) -> int | None:
        """Process id of the server; None when it does not run."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    @abstractmethod
    def command(self) -> list[str]:
        """Program and arguments. Never holds a secret: other users can read it."""

    @abstractmethod
    def is_answering(self) -> bool:
        """Whether the server answers a request of its own protocol now."""

    def environment(self) -> dict[str, str]:
        """Environment of the server: the caller's without our settings, which may hold secrets."""
        return python_environment()

    def user(self) -> tuple[int, int] | None:
        """User and group id that the server runs as; None keeps the caller's."""
        return None

    def prepare(self) -> None:
        """Get the folder ready before the launch; the lock is ours."""
        prepare_log(self.log_file)

    def complete(self) -> None:
        """Finish the set-up with the server's own means, once it answers; called after each launch."""
        logger.info("%s answers on %s:%d as process %s.", self.name, LOOPBACK, self.port, self.pid)

    def stragglers(self) -> list[int]:
        """Ids of processes that can outlive the killed server and keep its lock."""
        return []

    def start(self, timeout_seconds: float = 120.0) -> Self:
        """Launch the server and wait until it answers.

        Raises:
            ConfigurationError: The folder, its owner or the port must be mended first.
            ServiceUnavailableError: It died or did not answer in time; nothing is left running.
        """
        try:
            self.launch()
            deadline = time.monotonic() + timeout_seconds
            while not self.is_ready():
                if time.monotonic() > deadline:
                    raise self.late(timeout_seconds)
                time.sleep(POLL_SECONDS)
        except BaseException:
            self.stop()
            raise
        return self

    def launch(self) -> None:
        """Start the process and return at once, unless processes of a killed server must end first.

        Raises:
            ConfigurationError: The folder, its owner or the port must be mended first.
            ServiceUnavailableError: Another process works on the folder.
        """
        make_folder(self.folder)
        self._lock_fd = self.lock_file.take(self.stop_signal, self.stragglers)
        try:
            self.prepare()
            if not self.port or (self._can_move and not is_port_free(self.port)):
                self.port = free_port()
            if not is_port_free(self.port):
                raise self.port_taken()
            self._process = self.spawn(self.command(), self.stop_signal)
        finally:
            os.close(self._lock_fd)  # the server has inherited it
            self._lock_fd = -1

    def is_ready(self) -> bool:
        """Whether the launched server answers and is set up; ask until it is.

        Raises:
            ServiceUnavailableError: The process has died.
        """
        if self.pid is None:
            raise self.ended()
        if not self.is_answering():
            return False
        self.complete()
        return True

    def stop(self) -> None:
        """Stop the server in good order, by force when it does not go. Does nothing when it does not run."""
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.send_signal(self.stop_signal)
        try:
            self._process.wait(self.stop_timeout_seconds)
        except subprocess.TimeoutExpired:
            logger.warning("%s did not stop within %.0f s and is killed.", self.name, self.stop_timeout_seconds)
            self._process.kill()
            self._process.wait()
        self._process = None

    def remove_orphans(self) -> None:
        """Wait until nothing of an earlier, killed start is left, and end what does not go.

        Raises:
            ServiceUnavailableError: The folder has a living owner, or a process does not end.
        """
        if self.folder.is_dir():
            os.close(self.lock_file.take(self.stop_signal, self.stragglers))

    def __enter__(self) -> Self:
        """Start the server."""
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the server."""
        self.stop()

    def spawn(self, command: list[str], death_signal: signal.Signals) -> subprocess.Popen[bytes]:
        """In a launch, start a program that holds the lock, writes to the log, runs as `user()`, and dies with us."""
        user_id, group_id = self.user() or (None, None)
        specification = Specification(
            command=command,
            user_id=user_id,
            group_id=group_id,
            death_signal=death_signal,
            parent_pid=os.getpid(),
            record_fd=self._lock_fd,
            record=owner_record(),
            is_detached=False,
        )
        with self.log_file.open("ab") as log:
            return subprocess.Popen(
                launcher_command(specification),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env=self.environment(),
                pass_fds=(self._lock_fd,),
            )

    def ended(self) -> ServiceUnavailableError:
        """The error of a server that has died."""
        code = None if self._process is None else self._process.poll()
        return ServiceUnavailableError(
            f"{self.name} ended with code {code}; its last line: {self.last_line()}", f"See {self.log_file}."
        )

    def late(self, timeout_seconds: float) -> ServiceUnavailableError:
        """The error of a server that does not answer in time."""
        return ServiceUnavailableError(
            f"{self.name} did not answer within {timeout_seconds:.0f} s.", f"See {self.log_file}."
        )

    def port_taken(self) -> ConfigurationError:
        """The error of a port that another program holds."""
        return ConfigurationError(
            f"Port {self.port} of the {self.name} is taken by another program.", "Stop that program and try again."
        )

    def last_line(self) -> str:
        """The last line of the log."""
        with self.log_file.open("rb") as log:
            log.seek(max(0, self.log_file.stat().st_size - 4096))
            lines = log.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "none"


def python_environment() -> dict[str, str]:
    """Environment of a Python program of ours: it finds this package, writes UTF-8 at once, and sees no setting."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LABELING_")}
    packages = [str(Path(__file__).parents[2]), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    path = os.pathsep.join(package for package in packages if package)
    return {**kept, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1"}


def launcher_command(specification: Specification) -> list[str]:
    """The command that becomes what the specification says."""
    return [sys.executable, "-I", "-S", launcher.__file__, json.dumps(specification)]


def prepare_log(log_file: Path) -> None:
    """Move a log that has grown over the limit aside, and see that others cannot read the new one."""
    if log_file.exists() and log_file.stat().st_size > LOG_LIMIT_BYTES:
        log_file.replace(log_file.with_name(log_file.name + ".1"))
    log_file.touch(mode=0o600)
