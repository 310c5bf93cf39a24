"""A kept child comes back when it ends, is given up when it ends again and again, and goes when it is told to."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from rich.console import Console

from labeling_assets.cli import kept_processes
from labeling_assets.cli.kept_processes import KeptProcess
from labeling_assets.errors import ServiceUnavailableError

STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print(child.pid, file=open(sys.argv[1], "w"), flush=True)
time.sleep(60)
"""


@pytest.fixture
def lock() -> Iterator[int]:
    lock = os.open(os.devnull, os.O_RDWR)
    yield lock
    os.close(lock)


@pytest.fixture(autouse=True)
def _no_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_processes, "FIRST_DELAY_SECONDS", 0.0)


def kept(program: str, lock: int, *arguments: str) -> KeptProcess:
    return KeptProcess("child", [sys.executable, "-c", program, *arguments], signal.SIGKILL, lock)


def look_until_written(process: KeptProcess, file: Path, lines: int) -> list[str]:
    while not file.exists() or len(file.read_text().splitlines()) < lines:
        process.look(Console(quiet=True))
        time.sleep(0.01)
    return file.read_text().splitlines()


def test_a_child_that_ends_is_started_again(tmp_path: Path, lock: int) -> None:
    note = "import os, sys; print(os.getpid(), file=open(sys.argv[1], 'a'))"
    process = kept(note, lock, str(tmp_path / "pids"))
    assert len(set(look_until_written(process, tmp_path / "pids", 2))) == 2
    process.wait_or_kill(time.monotonic())


def test_a_child_that_ends_again_and_again_is_an_error_that_names_it(lock: int) -> None:
    process = kept("import sys; sys.exit(3)", lock)
    with pytest.raises(ServiceUnavailableError, match=r"child ended \d times in a row, at last with code 3"):
        look_until_written(process, Path(os.devnull), 1)


def test_a_child_that_does_not_stop_is_killed_with_its_children(tmp_path: Path, lock: int) -> None:
    process = kept(STUBBORN, lock, str(tmp_path / "pid"))
    (pid,) = look_until_written(process, tmp_path / "pid", 1)
    grandchild = psutil.Process(int(pid))
    process.tell_to_stop()
    process.wait_or_kill(time.monotonic() + 0.2)
    assert process.children() == []
    psutil.wait_procs([grandchild], timeout=30)
    assert not grandchild.is_running() or grandchild.status() == psutil.STATUS_ZOMBIE
