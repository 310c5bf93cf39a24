"""Where everything of the laptop stack lies under `LABELING_HOME`, the ports it keeps, and the supervisor's state.

    <home>/stack.lock          held by the supervisor while it lives
    <home>/stack.json          its state: which services it owns, and how they are
    <home>/ports.json          ports chosen at the first start and kept
    <home>/postgres/           data/, password, server.lock
    <home>/milvus/             data/, server.lock
    <home>/image_host/         server.lock
    <home>/demo/images/        the image host runs while this folder exists
    <home>/dagster/            DAGSTER_HOME
    <home>/logs/               a log for the supervisor and each service

Files are replaced whole, so that a reader never sees half of one.
"""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from labeling_assets.embedded.lock import LockFile
from labeling_assets.embedded.ports import free_port
from labeling_assets.errors import ConfigurationError

Model = TypeVar("Model", bound=BaseModel)
ServiceKey = Literal["postgres", "milvus", "image_host"]
Phase = Literal["waiting", "starting", "running", "given up"]


class Ports(BaseModel):
    """The ports of a home, all on 127.0.0.1."""

    model_config = ConfigDict(frozen=True)

    postgres: int
    milvus: int
    image_host: int


class ServiceState(BaseModel):
    """What the supervisor says of one service that it owns.

    Attributes:
        port: Port on 127.0.0.1.
        pid: Process id; None while it does not run.
        phase: `waiting` before a start, `starting`, `running`, or `given up` after too many failures.
        problem: Why it last failed; empty when it never did.
    """

    port: int
    pid: int | None
    phase: Phase
    problem: str = ""


class Failure(BaseModel):
    """Why a supervisor ended before its services answered."""

    is_configuration: bool
    message: str
    remedy: str


class StackState(BaseModel):
    """Content of `stack.json`."""

    services: dict[ServiceKey, ServiceState] = {}
    failure: Failure | None = None


class Home:
    """The files of one home.

    Args:
        folder: `LABELING_HOME`, absolute.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lock_file = LockFile(folder / "stack.lock")
        self.state_file = folder / "stack.json"
        self.ports_file = folder / "ports.json"
        self.demo_folder = folder / "demo"
        self.dagster_folder = folder / "dagster"
        self.log_folder = folder / "logs"

    def service_folder(self, key: ServiceKey) -> Path:
        """Folder of a service's data and lock."""
        return self.folder / key

    def log_file(self, key: ServiceKey | Literal["supervisor"]) -> Path:
        """Log of a service or the supervisor."""
        return self.log_folder / f"{key}.log"

    @property
    def has_demo(self) -> bool:
        """Whether there are demo images to serve."""
        return (self.demo_folder / "images").is_dir()

    def make(self) -> None:
        """Make the home and its log folder where they are missing.

        Raises:
            ConfigurationError: They cannot be made.
        """
        make_folder(self.folder)
        make_folder(self.log_folder, mode=0o700)

    def known_ports(self) -> Ports | None:
        """The ports of this home; None before they are chosen.

        Raises:
            ConfigurationError: The file is damaged.
        """
        return _read(self.ports_file, Ports)

    def ports(self) -> Ports:
        """The ports of this home, chosen at the first call; every caller gets the same.

        Raises:
            ConfigurationError: The file is damaged, or the home cannot be made.
        """
        while (ports := self.known_ports()) is None:
            make_folder(self.folder)
            draft = _draft(self.ports_file, Ports(postgres=free_port(), milvus=free_port(), image_host=free_port()))
            with contextlib.suppress(FileExistsError):  # another process was first, and its choice holds
                os.link(draft, self.ports_file)
            draft.unlink()
        return ports

    def keep_ports(self, ports: Ports) -> None:
        """Replace the ports; only the supervisor does so, when a port had to move."""
        _draft(self.ports_file, ports).replace(self.ports_file)

    def read_state(self) -> StackState | None:
        """What the supervisor said last; None when it has said nothing.

        Raises:
            ConfigurationError: The file is damaged.
        """
        return _read(self.state_file, StackState)

    def write_state(self, state: StackState) -> None:
        """Say how the services are; only the supervisor does so."""
        _draft(self.state_file, state).replace(self.state_file)


def make_folder(folder: Path, mode: int | None = None) -> None:
    """Make a folder and its missing parents whatever the umask; folders that exist keep their mode.

    Args:
        folder: The folder.
        mode: Mode of what is made; default closed to others, but for root, whose PostgreSQL must pass as `nobody`.

    Raises:
        ConfigurationError: The folder cannot be made.
    """
    if mode is None:
        mode = 0o711 if os.geteuid() == 0 else 0o700
    try:
        for missing in reversed([path for path in (folder, *folder.parents) if not path.exists()]):
            missing.mkdir(exist_ok=True)
            missing.chmod(mode)
        if not folder.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    except OSError as error:
        raise ConfigurationError(
            f"The folder {folder} cannot be made: {error.strerror}.",
            "Set LABELING_HOME to a folder that you may write.",
        ) from error


def _draft(path: Path, content: BaseModel) -> Path:
    """The content in a new file beside `path`, readable for its owner only."""
    draft_fd, draft = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    with os.fdopen(draft_fd, "w", encoding="utf-8") as file:
        file.write(content.model_dump_json(indent=2))
        file.flush()
        os.fsync(file.fileno())
    return Path(draft)


def _read(path: Path, model: type[Model]) -> Model | None:
    try:
        return model.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        raise ConfigurationError(
            f"The file {path} cannot be read or is damaged.", "Remove it and try again."
        ) from error
