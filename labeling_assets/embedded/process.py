"""What the servers of the laptop stack have in common: one owner a folder, launch, readiness, stop, orphans.

Each server holds a lock on `server.lock` in its folder for as long as any of its processes lives, because the open lock file
is inherited. So a lock that can be taken means that nothing of an earlier server is left, and two servers never work on
one folder. The lock file says which process holds it. What belongs here: nothing that only one kind of server needs.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from labeling_assets.embedded import launcher
from labeling_assets.embedded.launcher import Specification, start_time
from labeling_assets.errors import ConfigurationError, ServiceUnavailableError

logger = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"
PORTS = range(20_000, 32_000)
"""Below the ports that Linux (32768) and macOS (49152) give to outgoing connections, so a port stays free while we are down."""
POLL_SECONDS = 0.05
LOG_LIMIT_BYTES = 10_000_000
ORPHAN_GRACE_SECONDS = 20.0 if sys.platform == "linux" else 0.0
"""An orphan got its stop signal from the kernel on Linux; elsewhere nobody told it yet."""
ORPHAN_STOP_SECONDS = 30.0
ORPHAN_KILL_SECONDS = 10.0


class ServerProcess(ABC):
    """One server as a child process that dies with its parent; a context manager that starts and stops it.

    Start it from the main thread: on Linux the kernel stops the server when the *thread* that started it ends.

    Args:
        folder: Folder of the server; made if missing. Holds its data and lock.
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
    stop_timeout_seconds: ClassVar[float] = 60.0

    def __init__(
        self, folder: Path, port: int | None = None, *, can_move: bool = False, log_file: Path | None = None
    ) -> None:
        self.folder = folder.absolute()
        self.port = port or 0
        self.log_file = log_file or self.folder / "server.log"
        self._can_move = can_move
        self._process: subprocess.Popen[bytes] | None = None

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
        kept = {name: value for name, value in os.environ.items() if not name.startswith("LABELING_")}
        return {**kept, "PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1"}

    def user(self) -> tuple[int, int] | None:
        """User and group id that the server runs as; None keeps the caller's."""
        return None

    def prepare(self, lock_fd: int) -> None:  # noqa: B027 - a hook that most servers do not need
        """Get the folder ready before the launch. What it starts must inherit `lock_fd`."""

    def complete(self) -> None:  # noqa: B027 - a hook that most servers do not need
        """Finish the set-up with the server's own means, once it answers. Called after each launch."""

    def stragglers(self) -> list[int]:
        """Process ids that outlived a killed server and still hold its lock."""
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
                    raise ServiceUnavailableError(
                        f"{self.name} did not answer within {timeout_seconds:.0f} s.", self._see_log
                    )
                time.sleep(POLL_SECONDS)
        except BaseException:
            self.stop()
            raise
        return self

    def launch(self) -> None:
        """Start the process and return at once.

        Raises:
            ConfigurationError: The folder, its owner or the port must be mended first.
            ServiceUnavailableError: Another process works on the folder.
        """
        make_folder(self.folder)
        lock_fd = self._take_lock()
        try:
            self.prepare(lock_fd)
            if not self.port or (self._can_move and not is_port_free(self.port)):
                self.port = free_port()
            if not is_port_free(self.port):
                raise ConfigurationError(
                    f"Port {self.port} of the {self.name} is taken by another program.",
                    "Stop that program and try again.",
                )
            self._process = self.spawn(self.command(), lock_fd, self.stop_signal)
        finally:
            os.close(lock_fd)

    def is_ready(self) -> bool:
        """Whether the launched server answers and is set up; call it until it is true.

        Raises:
            ServiceUnavailableError: The process has died.
        """
        if self._process is None or (code := self._process.poll()) is not None:
            ended = "is not started" if self._process is None else f"ended with code {code}"
            raise ServiceUnavailableError(f"{self.name} {ended}: {self._last_line()}", self._see_log)
        if not self.is_answering():
            return False
        self.complete()
        return True

    def poll(self) -> int | None:
        """Exit code of the server, negative for a signal; None while it runs."""
        return None if self._process is None else self._process.poll()

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

    def __enter__(self) -> Self:
        """Start the server."""
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the server."""
        self.stop()

    def spawn(self, command: list[str], lock_fd: int, death_signal: signal.Signals) -> subprocess.Popen[bytes]:
        """Start a program that holds the lock, writes to the log, runs as `user()` and dies with this process."""
        user = self.user()
        specification = Specification(
            command=command,
            user_id=user[0] if user else None,
            group_id=user[1] if user else None,
            death_signal=death_signal,
            parent_pid=os.getpid(),
            record_fd=lock_fd,
            record=_owner_record(),
            is_detached=False,
        )
        rotate_log(self.log_file)
        with self.log_file.open("ab") as log:
            return subprocess.Popen(
                launcher_command(specification),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env=self.environment(),
                pass_fds=(lock_fd,),
            )

    @property
    def _see_log(self) -> str:
        return f"See {self.log_file}."

    def _last_line(self) -> str:
        with self.log_file.open("rb") as log:
            log.seek(max(0, self.log_file.stat().st_size - 4096))
            lines = log.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it wrote nothing."

    def _take_lock(self) -> int:
        """The open lock file, locked for us, after every process of an earlier owner is gone."""
        lock_fd = os.open(self.folder / "server.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            began = time.monotonic()
            sent: set[signal.Signals] = set()
            while not try_lock(lock_fd):
                self._send_orphan_away(_read_record(lock_fd), time.monotonic() - began, sent)
                time.sleep(POLL_SECONDS)
            os.ftruncate(lock_fd, 0)
            os.pwrite(lock_fd, json.dumps(_owner_record()).encode(), 0)
        except BaseException:
            os.close(lock_fd)
            raise
        return lock_fd

    def _send_orphan_away(self, record: Mapping[str, object], waited_seconds: float, sent: set[signal.Signals]) -> None:
        """Signal the server of a dead owner, ever more firmly; raise when its owner lives or it does not go."""
        owner = record.get("owner_pid")
        if owner != os.getpid() and is_alive(owner, record.get("owner_started")):
            raise ServiceUnavailableError(
                f"The folder {self.folder} is in use by process {owner}.", "Stop that process, or use another folder."
            )
        if waited_seconds > ORPHAN_GRACE_SECONDS + ORPHAN_STOP_SECONDS + ORPHAN_KILL_SECONDS:
            raise ServiceUnavailableError(
                f"A process of an earlier {self.name} still holds {self.folder / 'server.lock'} and does not end.",
                "End it by hand; `fuser` with that file tells its id.",
            )
        if waited_seconds > ORPHAN_GRACE_SECONDS and self.stop_signal not in sent:
            sent.add(self.stop_signal)
            signal_process(record.get("pid"), record.get("started"), self.stop_signal)
        if waited_seconds > ORPHAN_GRACE_SECONDS + ORPHAN_STOP_SECONDS and signal.SIGKILL not in sent:
            sent.add(signal.SIGKILL)
            signal_process(record.get("pid"), record.get("started"), signal.SIGKILL)
        if not is_alive(record.get("pid"), record.get("started")):
            for pid in self.stragglers():
                logger.warning("Process %d of a killed %s is killed.", pid, self.name)
                signal_process(pid, start_time(pid), signal.SIGKILL)


def launcher_command(specification: Specification) -> list[str]:
    """The command that becomes what the specification says."""
    return [sys.executable, "-I", "-S", launcher.__file__, json.dumps(specification)]


def try_lock(lock_fd: int) -> bool:
    """Take the exclusive lock of an open file without waiting; whether that was possible."""
    try:
        fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_alive(pid: object, started: object) -> bool:
    """Whether the process that had this id at that start time still runs; false for ids given to another process."""
    return isinstance(pid, int) and pid > 0 and started is not None and start_time(pid) == started


def signal_process(pid: object, started: object, number: signal.Signals) -> None:
    """Signal a process if it is still the one that began at `started`."""
    if isinstance(pid, int) and is_alive(pid, started):
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            logger.debug("Process %d ended by itself.", pid)


def is_port_free(port: int) -> bool:
    """Whether a server can listen on the loopback port now.

    SO_REUSEADDR lets connections in TIME_WAIT pass; a listening socket still refuses. gRPC servers share a port silently
    (SO_REUSEPORT), so they must be asked this before.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def free_port() -> int:
    """A port on which nothing listens, drawn at random so that two stacks starting together do not meet."""
    for _ in range(1000):
        port = secrets.choice(PORTS)
        if is_port_free(port):
            return port
    raise ServiceUnavailableError(f"No free port between {PORTS.start} and {PORTS.stop} on {LOOPBACK}.")


def make_folder(folder: Path, mode: int = 0o711) -> None:
    """Make a folder and its missing parents with this mode whatever the umask; existing ones keep theirs.

    Raises:
        ConfigurationError: The folder cannot be made.
    """
    try:
        for missing in reversed([path for path in (folder, *folder.parents) if not path.exists()]):
            missing.mkdir(exist_ok=True)
            missing.chmod(mode)
        if not folder.is_dir():
            raise NotADirectoryError(20, "a file of this name is in the way")
    except OSError as error:
        raise ConfigurationError(
            f"The folder {folder} cannot be made: {error.strerror}.",
            "Set LABELING_HOME to a folder that you may write.",
        ) from error


def rotate_log(log_file: Path) -> None:
    """Move a log that has grown over the limit aside, replacing the one moved before."""
    if log_file.exists() and log_file.stat().st_size > LOG_LIMIT_BYTES:
        log_file.replace(log_file.with_name(log_file.name + ".1"))


def _owner_record() -> dict[str, object]:
    return {"owner_pid": os.getpid(), "owner_started": start_time(os.getpid())}


def _read_record(lock_fd: int) -> dict[str, object]:
    """What the lock file says of its holder; empty while it is being written."""
    try:
        record = json.loads(os.pread(lock_fd, 4096, 0))
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}
