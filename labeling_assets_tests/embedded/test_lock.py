"""The lock of a folder, and who is signalled because of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labeling_assets.embedded import lock
from labeling_assets.embedded.lock import LockFile, ProcessId
from labeling_assets.errors import ConfigurationError, ServiceUnavailableError

HOLD = """
import sys, time
from pathlib import Path
from labeling_assets.embedded.lock import LockFile
fd = LockFile(Path(sys.argv[1])).try_take()
print(fd, flush=True)
time.sleep(600)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "server.lock"


def test_a_lock_is_taken_once_and_given_back(path: Path) -> None:
    first = LockFile(path).try_take()
    assert first is not None
    assert LockFile(path).try_take() is None
    assert LockFile(path).owner() == ProcessId.current()
    assert LockFile(path).program() is None
    os.close(first)
    second = LockFile(path).try_take()
    assert second is not None
    os.close(second)


def test_a_lock_is_held_until_the_last_process_that_inherited_it_ends(path: Path) -> None:
    held = LockFile(path).try_take()
    assert held is not None
    child = subprocess.Popen(["sleep", "600"], pass_fds=(held,))
    os.close(held)
    assert LockFile(path).try_take() is None
    child.kill()
    child.wait()
    again = LockFile(path).try_take()
    assert again is not None
    os.close(again)


def test_a_living_owner_keeps_its_lock(path: Path) -> None:
    owner = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE)
    assert owner.stdout is not None
    owner.stdout.readline()
    with pytest.raises(ServiceUnavailableError, match=f"in use by process {owner.pid}"):
        LockFile(path).take(signal.SIGTERM)
    owner.kill()
    owner.communicate()
    os.close(LockFile(path).take(signal.SIGTERM))


@pytest.fixture
def orphan(path: Path) -> subprocess.Popen[bytes]:
    """A process that holds the lock of a dead owner and ignores SIGTERM."""
    held = LockFile(path).try_take()
    assert held is not None
    command = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(600)"
    child = subprocess.Popen([sys.executable, "-c", command], pass_fds=(held,), stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    os.close(held)
    return child


def _record(path: Path, pid: int, started: str | None) -> None:
    path.write_text(json.dumps({"owner_pid": 1, "owner_started": "never", "pid": pid, "started": started}))


def test_an_orphan_that_ignores_the_stop_signal_is_killed(
    path: Path, orphan: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "GRACE_SECONDS", 0.0)
    monkeypatch.setattr(lock, "STOP_SECONDS", 0.2)
    _record(path, orphan.pid, lock.start_time(orphan.pid))
    os.close(LockFile(path).take(signal.SIGTERM))
    orphan.communicate()
    assert orphan.returncode == -signal.SIGKILL


def test_a_process_that_got_the_pid_of_a_dead_server_is_never_signalled(
    path: Path, orphan: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GRACE_SECONDS", "STOP_SECONDS", "KILL_SECONDS"):
        monkeypatch.setattr(lock, name, 0.1)
    _record(path, orphan.pid, "another time")
    with pytest.raises(ServiceUnavailableError, match="does not end"):
        LockFile(path).take(signal.SIGTERM)
    assert orphan.poll() is None
    orphan.kill()
    orphan.communicate()


@given(
    st.binary(max_size=80)
    | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(lambda v: json.dumps(v).encode())
)
def test_garbage_in_a_lock_file_names_nobody(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "garbage.lock"
    path.write_bytes(content)
    assert LockFile(path).program() is None
    assert LockFile(path).owner() is None


@pytest.mark.parametrize("pid", ["12", 12.5, True, None, -1, 2**70])
def test_a_recorded_pid_that_is_no_pid_is_not_alive(path: Path, pid: object) -> None:
    path.write_text(json.dumps({"pid": pid, "started": "now"}))
    program = LockFile(path).program()
    assert program is None or not program.is_alive()


def test_a_lock_file_that_cannot_be_opened_is_a_wrong_setting(path: Path) -> None:
    path.mkdir()
    with pytest.raises(ConfigurationError, match="cannot be opened"):
        LockFile(path).try_take()
