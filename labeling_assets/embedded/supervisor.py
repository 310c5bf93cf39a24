"""The process that owns the servers of a home: `python -m labeling_assets.embedded.supervisor --home HOME`.

It starts them, tells in `stack.json` how they are, restarts one that dies, and stops them on SIGTERM or SIGINT. The
servers die with it however it ends, so nothing blocks the next start. One thread only: on Linux the kernel stops a
server when the thread that started it ends. What belongs here: deciding when a server runs. How one is started and
stopped is in `process.py`; who starts the supervisor is in `daemon.py`.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import time
from pathlib import Path

from labeling_assets.embedded.home import Failure, Home, Phase, ServiceKey, ServiceState, StackState
from labeling_assets.embedded.image_host import ImageHostServer
from labeling_assets.embedded.launcher import write_record
from labeling_assets.embedded.lock import owner_record
from labeling_assets.embedded.milvus import MilvusServer
from labeling_assets.embedded.postgres import PostgresServer
from labeling_assets.embedded.process import ServerProcess
from labeling_assets.errors import ConfigurationError, LabelingError

logger = logging.getLogger(__name__)

START_SECONDS = 180.0
"""Time that a server gets to answer; Milvus Lite reads its log again after a kill, measured up to 21 s."""
FIRST_DELAY_SECONDS = 0.5
LONGEST_DELAY_SECONDS = 30.0
STABLE_SECONDS = 60.0
"""A server that ran for so long has its failures forgiven."""
FAILURES_AT_START = 3
FAILURES_LATER = 10
STARTING_POLL_SECONDS = 0.05
RUNNING_POLL_SECONDS = 0.2


class Ward:
    """One server that is kept running.

    Args:
        server: The server.
        is_first_start: Whether somebody waits for the stack to come up, so that failures must be told soon.

    Attributes:
        phase: See `ServiceState`.
        has_run: Whether it ever answered.
        error: The last failure.
    """

    def __init__(self, server: ServerProcess, *, is_first_start: bool) -> None:
        self.server = server
        self._is_first_start = is_first_start
        self.phase: Phase = "waiting"
        self.has_run = False
        self.error: LabelingError | None = None
        self._failures = 0
        self._since = 0.0
        self._launch_at = 0.0

    def look(self) -> None:
        """Do what is due: launch the server, see whether it answers, notice that it died."""
        now = time.monotonic()
        try:
            if self.phase == "waiting" and now >= self._launch_at:
                self.server.launch()
                self.phase, self._since = "starting", time.monotonic()
            elif self.phase == "starting":
                self._look_at_start(now)
            elif self.phase == "running":
                if self.server.pid is None:
                    raise self.server.ended()
                if now - self._since > STABLE_SECONDS:
                    self._failures = 0
        except LabelingError as error:
            self._fail(error)

    def state(self) -> ServiceState:
        """What is said of it in `stack.json`."""
        problem = str(self.error) if self.error else ""
        return ServiceState(port=self.server.port, pid=self.server.pid, phase=self.phase, problem=problem)

    def _look_at_start(self, now: float) -> None:
        if self.server.is_ready():
            self.phase, self._since, self.has_run = "running", now, True
        elif now - self._since > START_SECONDS:
            raise self.server.late(START_SECONDS)

    def _fail(self, error: LabelingError) -> None:
        """Note a failure; try again later, ever more rarely, until there were too many."""
        self.server.stop()
        self.error = error
        self._failures += 1
        is_hopeless = isinstance(error, ConfigurationError) and not self.has_run
        is_impatient = self._is_first_start and not self.has_run
        if is_hopeless or self._failures >= (FAILURES_AT_START if is_impatient else FAILURES_LATER):
            self.phase = "given up"
            logger.error("%s is given up after %d failures: %s", self.server.name, self._failures, error)
            return
        delay_seconds = min(FIRST_DELAY_SECONDS * 2 ** (self._failures - 1), LONGEST_DELAY_SECONDS)
        self.phase, self._launch_at = "waiting", time.monotonic() + delay_seconds
        logger.warning("%s is started again in %.1f s: %s", self.server.name, delay_seconds, error)


class Supervisor:
    """Keeps the servers of a home running.

    Args:
        home: The home.
        keys: Services that are ours; the image host is added while there is a demo.
    """

    def __init__(self, home: Home, keys: frozenset[ServiceKey]) -> None:
        self.home = home
        self._ports = home.ports()
        self._has_started = False
        self._wards: dict[ServiceKey, Ward] = {key: self._make_ward(key) for key in sorted(keys)}
        self._is_stopping = False
        self._said: StackState | None = None

    def run(self) -> None:
        """Keep the servers running until SIGTERM or SIGINT.

        Raises:
            LabelingError: A server could not be started at all; none is left running.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._request_stop)
        try:
            while not self._is_stopping:
                self._look()
                is_busy = any(ward.phase == "starting" for ward in self._wards.values())
                time.sleep(STARTING_POLL_SECONDS if is_busy else RUNNING_POLL_SECONDS)
        finally:
            self.home.state_file.unlink(missing_ok=True)  # first, so that nobody attaches to what is about to end
            for ward in self._wards.values():
                ward.server.stop()

    def _look(self) -> None:
        self._follow_demo()
        for ward in self._wards.values():
            ward.look()
            if ward.error is not None and ward.phase == "given up" and not self._has_started:
                raise ward.error
        self._keep_moved_ports()
        self._has_started = self._has_started or all(ward.phase == "running" for ward in self._wards.values())
        state = StackState(services={key: ward.state() for key, ward in self._wards.items()})
        if self._has_started and state != self._said:
            self.home.write_state(state)
            self._said = state

    def _follow_demo(self) -> None:
        """Serve the demo's images while there are any."""
        if self.home.has_demo and "image_host" not in self._wards:
            self._wards["image_host"] = self._make_ward("image_host")
        elif not self.home.has_demo and "image_host" in self._wards:
            self._wards.pop("image_host").server.stop()

    def _keep_moved_ports(self) -> None:
        moved: dict[str, int] = {key: ward.server.port for key, ward in self._wards.items() if ward.server.port}
        ports = self._ports.model_copy(update=moved)
        if ports != self._ports:
            logger.warning("A port was taken by another program; the ports are now %s.", ports)
            self.home.keep_ports(ports)
            self._ports = ports

    def _make_ward(self, key: ServiceKey) -> Ward:
        return Ward(self._make_server(key), is_first_start=not self._has_started)

    def _make_server(self, key: ServiceKey) -> ServerProcess:
        folder, port, log_file = self.home.service_folder(key), getattr(self._ports, key), self.home.log_file(key)
        if key == "image_host":
            return ImageHostServer(folder, port, self.home.demo_folder, log_file)
        server: type[ServerProcess] = PostgresServer if key == "postgres" else MilvusServer
        return server(folder, port, can_move=True, log_file=log_file)

    def _request_stop(self, number: int, _frame: object) -> None:
        logger.info("Stopping on %s.", signal.Signals(number).name)
        self._is_stopping = True


def main() -> int:
    """Own the servers of a home until told to stop; the exit code."""
    options = _parser().parse_args()
    os.umask(0o077)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    home = Home(Path(options.home).absolute())
    home.make()
    lock_fd = options.lock_fd
    if lock_fd is None:
        lock_fd = home.lock_file.try_take()
        if lock_fd is None:
            logger.error("Another supervisor owns %s.", home.folder)
            return 1
        write_record(lock_fd, owner_record())
    os.set_inheritable(lock_fd, False)  # noqa: FBT003 - the standard library wants it so
    try:
        Supervisor(home, frozenset(options.service)).run()
    except LabelingError as error:
        logger.error("The stack cannot start: %s", error)  # noqa: TRY400 - an error with a remedy needs no trace
        failure = Failure(
            is_configuration=isinstance(error, ConfigurationError), message=error.message, remedy=error.remedy
        )
        home.write_state(StackState(failure=failure))
        return 1
    logger.info("Stopped.")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Own the servers of a home until SIGTERM or SIGINT.")
    parser.add_argument("--home", required=True, help="LABELING_HOME")
    parser.add_argument(
        "--service", action="append", choices=["postgres", "milvus"], default=[], help="a server to own"
    )
    parser.add_argument("--lock-fd", type=int, help="open file that carries the lock of the home")
    return parser


if __name__ == "__main__":
    sys.exit(main())
