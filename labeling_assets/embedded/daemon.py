"""Start, find and stop the supervisor of a home, from any number of processes at once.

Whoever gets the lock `stack.lock` starts the supervisor and hands the lock to it; everybody else waits for its state
file. So there is one supervisor a home, and a lock that is free means that none lives.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

from labeling_assets.embedded.home import Home, ServiceKey, StackState
from labeling_assets.embedded.image_host import ImageHostServer, answers_http
from labeling_assets.embedded.launcher import Specification
from labeling_assets.embedded.lock import ProcessId, owner_record
from labeling_assets.embedded.milvus import MilvusServer, answers_milvus
from labeling_assets.embedded.ports import LOOPBACK
from labeling_assets.embedded.postgres import PostgresServer, answers_postgres
from labeling_assets.embedded.process import launcher_command, prepare_log, python_environment
from labeling_assets.errors import ConfigurationError, ServiceUnavailableError

START_SECONDS = 400.0
"""Longer than the supervisor needs to give a server up and say why."""
STOP_SECONDS = 200.0
"""Longer than the three servers may take to stop one after the other."""
POLL_SECONDS = 0.05


def ensure_running(home: Home, keys: frozenset[ServiceKey]) -> bool:
    """Start the supervisor or attach to it, and wait until the services answer.

    Args:
        home: The home.
        keys: Services that must be the supervisor's own; the image host is added where there is a demo.

    Returns:
        Whether this call started the supervisor.

    Raises:
        ConfigurationError: The home, a port or an installed package must be mended first.
        ServiceUnavailableError: A service does not start or does not answer.
    """
    home.make()
    deadline = time.monotonic() + START_SECONDS
    has_started = False
    while time.monotonic() < deadline:
        lock_fd = home.lock_file.try_take()
        if lock_fd is None:
            state = home.read_state()
            if state is not None and _serves(home, state, keys):
                return has_started
        else:
            try:
                if has_started:
                    raise _failure(home)
                home.state_file.unlink(missing_ok=True)
                _spawn(home, keys, lock_fd)
                has_started = True
            finally:
                os.close(lock_fd)
        time.sleep(POLL_SECONDS)
    raise ServiceUnavailableError(
        f"The stack of {home.folder} did not answer within {START_SECONDS:.0f} s.", f"See {home.log_folder}."
    )


def stop_running(home: Home) -> bool:
    """Stop the supervisor and wait until nothing of it is left, also what a killed one left behind.

    Returns:
        Whether a supervisor was running.

    Raises:
        ServiceUnavailableError: It does not stop.
    """
    if not home.folder.is_dir():
        return False
    deadline = time.monotonic() + STOP_SECONDS
    was_running = False
    while (lock_fd := home.lock_file.try_take()) is None:
        supervisor = find_supervisor(home)
        if supervisor is not None and not was_running:
            was_running = True
            supervisor.send(signal.SIGTERM)
        if supervisor is not None and time.monotonic() > deadline:
            supervisor.send(signal.SIGKILL)  # its servers stop when it dies
        if time.monotonic() > deadline + 10:
            raise ServiceUnavailableError(f"The stack of {home.folder} does not stop.", f"See {home.log_folder}.")
        time.sleep(POLL_SECONDS)
    try:
        _remove_orphans(home)
        home.state_file.unlink(missing_ok=True)
    finally:
        os.close(lock_fd)
    return was_running


def find_supervisor(home: Home) -> ProcessId | None:
    """The living supervisor of a home."""
    program = home.lock_file.program()
    return program if program is not None and program.is_alive() else None


def is_answering(home: Home, key: ServiceKey, port: int) -> bool:
    """Whether a service of our own answers on its port.

    Raises:
        ConfigurationError: The password file is missing, or does not fit the data.
    """
    if key == "postgres":
        return answers_postgres(home.service_folder(key), port)
    return answers_milvus(LOOPBACK, port) if key == "milvus" else answers_http(port)


def _serves(home: Home, state: StackState, keys: frozenset[ServiceKey]) -> bool:
    """Whether the running supervisor offers the services and they answer; False means wait.

    Raises:
        ConfigurationError: It was started without one of them.
        ServiceUnavailableError: It has given one of them up.
    """
    if state.failure is not None:
        return False  # it is about to end, and gives the lock back
    if missing := keys - state.services.keys():
        if state.services.keys() <= {"image_host"}:
            stop_running(home)  # nobody's data depend on it, so it makes room for one with all services
            return False
        raise ConfigurationError(
            f"The stack of {home.folder} was started without {' and '.join(sorted(missing))} of its own.",
            "Run `labeling down`, then `labeling up`.",
        )
    for key in (*keys, *(("image_host",) if home.has_demo else ())):
        service = state.services.get(key)
        if service is not None and service.phase == "given up":
            raise ServiceUnavailableError(service.problem, "Then run `labeling down` and `labeling up`.")
        if service is None or service.phase != "running" or not is_answering(home, key, service.port):
            return False
    return True


def _failure(home: Home) -> ConfigurationError | ServiceUnavailableError:
    """Why the supervisor that we started has ended."""
    state = home.read_state()
    if state is None or state.failure is None:
        return ServiceUnavailableError("The stack ended before it answered.", f"See {home.log_file('supervisor')}.")
    kind = ConfigurationError if state.failure.is_configuration else ServiceUnavailableError
    return kind(state.failure.message, state.failure.remedy)


def _spawn(home: Home, keys: frozenset[ServiceKey], lock_fd: int) -> None:
    """Start a supervisor that outlives this process and takes the lock over."""
    command = [sys.executable, "-m", "labeling_assets.embedded.supervisor", "--home", str(home.folder)]
    command += ["--lock-fd", str(lock_fd), *(f"--service={key}" for key in sorted(keys))]
    specification = Specification(
        command=command,
        user_id=None,
        group_id=None,
        death_signal=None,
        parent_pid=None,
        record_fd=lock_fd,
        record=owner_record(),
        is_detached=True,
    )
    log_file = home.log_file("supervisor")
    prepare_log(log_file)
    with log_file.open("ab") as log:
        subprocess.run(
            launcher_command(specification),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=home.folder,
            env=python_environment(),
            pass_fds=(lock_fd,),
            check=True,
        )


def _remove_orphans(home: Home) -> None:
    """Wait for the servers of a killed supervisor to end."""
    PostgresServer(home.service_folder("postgres")).remove_orphans()
    MilvusServer(home.service_folder("milvus")).remove_orphans()
    ImageHostServer(home.service_folder("image_host"), 0, home.demo_folder).remove_orphans()
