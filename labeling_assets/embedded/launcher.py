"""A small program that turns itself into a server process: `python -I -S launcher.py SPECIFICATION`.

The specification is the JSON of `Specification`. A program of its own, and not a `preexec_fn`, because the caller may
run threads (gRPC), where Python code between fork and exec can dead-lock. Only the standard library is imported, so
that it starts in some twenty milliseconds. What belongs here: what must happen between fork and exec.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TypedDict

PR_SET_PDEATHSIG = 1
"""Option of prctl(2), from <sys/prctl.h>."""
RESET_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGCHLD, signal.SIGPIPE)


class Specification(TypedDict):
    """What to become.

    Attributes:
        command: Program and arguments; the program is an absolute path.
        user_id: User and group id to run as; null keeps the caller's.
        group_id: See `user_id`.
        death_signal: Signal that the server gets when its parent dies, however it dies; null: it outlives its parent.
        parent_pid: The parent that must still live when the signal is armed; null when detached.
        record_fd: Open file that holds the server's lock; the launcher writes who it is there. Null: no record.
        record: What else to write there: who owns the server.
        is_detached: Leave the caller's process tree, so that nobody has to wait for the process.
    """

    command: list[str]
    user_id: int | None
    group_id: int | None
    death_signal: int | None
    parent_pid: int | None
    record_fd: int | None
    record: dict[str, object]
    is_detached: bool


def start_time(pid: int) -> str | None:
    """When a process began, as text that differs when the pid was given to another process; None when it is dead.

    A zombie counts as dead: it holds nothing any more.
    """
    if sys.platform == "linux":
        try:
            text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            return None
        fields = text.rpartition(")")[2].split()  # the name before it may hold spaces and parentheses
        return None if fields[0] in {"Z", "X"} else fields[19]
    shown = subprocess.run(["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    state, _, began = shown.stdout.strip().partition(" ")
    return None if not state or state.startswith("Z") else began.strip()


def become(specification: Specification) -> None:
    """Replace this process by the server. Does not return.

    The order matters: a change of user clears the death signal, so the signal is armed after it; the parent may have
    died before it was armed, so the parent is looked at after that.
    """
    if specification["is_detached"] and os.fork() > 0:
        os._exit(0)
    os.setsid()
    os.umask(0o077)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    for number in RESET_SIGNALS:
        # A background job of a non-interactive shell inherits SIGINT ignored, and both servers stop by SIGINT.
        signal.signal(number, signal.SIG_DFL)
    if specification["record_fd"] is not None:
        write_record(specification["record_fd"], specification["record"])
    if specification["user_id"] is not None and specification["group_id"] is not None:
        os.setgroups([])
        os.setgid(specification["group_id"])
        os.setuid(specification["user_id"])
    if specification["death_signal"] is not None and sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(PR_SET_PDEATHSIG, specification["death_signal"], 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
        if os.getppid() != specification["parent_pid"]:
            os._exit(1)
    os.execv(specification["command"][0], specification["command"])  # noqa: S606 - a shell is what we avoid


def write_record(record_fd: int, record: dict[str, object]) -> None:
    """Write this process's id and start time, with `record`, into the lock file."""
    text = json.dumps({**record, "pid": os.getpid(), "started": start_time(os.getpid())})
    os.ftruncate(record_fd, 0)
    os.pwrite(record_fd, text.encode(), 0)


if __name__ == "__main__":
    become(json.loads(sys.argv[1]))
