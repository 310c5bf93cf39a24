"""The virtual environments of the peers, and how a script is run in one.

Each peer is installed from PyPI, in the versions of `requirements/<peer>.txt`, into an environment of its own, since
their dependencies conflict with one another and with ours. Nothing of ours is installed there: a script of this folder
gets its work as a JSON file and answers with lines of JSON, see `job.py`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import venv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import platformdirs

SCRIPTS = Path(__file__).parent
PROJECT = SCRIPTS.parents[1]
ENVIRONMENTS = Path(os.environ.get("LABELING_BENCH_ENVS") or platformdirs.user_cache_path("labeling-bench"))
TAIL_CHARS = 4_000
LIMIT_SECONDS = 900
"""A script that takes longer hangs."""


class PeerError(Exception):
    """A peer's script failed; the message ends with what it wrote last."""


def python_of(peer: str) -> Path:
    """The interpreter of a peer's environment, which is made at its first use."""
    requirements = SCRIPTS / "requirements" / f"{peer}.txt"
    version = hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()[:12]
    folder = ENVIRONMENTS / f"{peer}-{version}"
    is_complete = folder / "complete"
    python = folder / "bin" / "python"
    if is_complete.exists():
        return python
    wanted = [line for line in requirements.read_text().splitlines() if line and not line.startswith("#")]
    print(f"Installing {', '.join(wanted)} into {folder}, once", flush=True)
    shutil.rmtree(folder, ignore_errors=True)  # what an interrupted installation left
    venv.create(folder, with_pip=True)
    # What the first import would compile is compiled here, so that it is in no measurement.
    install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--compile"]
    subprocess.run([*install, "--requirement", str(requirements)], check=True)
    is_complete.touch()
    return python


def run_peer(peer: str, script: str, job: Mapping[str, Any], **variables: str) -> list[dict[str, Any]]:
    """Run a script in a peer's environment to its end; returns the lines that it answered.

    Args:
        peer: Name of the environment.
        script: Name of a module in this folder.
        job: What the script gets.
        variables: Environment variables for it.

    Raises:
        PeerError: It ended with an error, or did not end within `LIMIT_SECONDS`.
    """
    with started_peer(peer, script, job, **variables) as (process, log):
        assert process.stdout is not None
        limit = threading.Timer(LIMIT_SECONDS, os.killpg, (process.pid, signal.SIGKILL))
        limit.start()
        try:
            answers = [json.loads(line) for line in process.stdout]
            code = process.wait()
        finally:
            limit.cancel()
        if code != 0:
            said = log.read_text(errors="replace")[-TAIL_CHARS:]
            raise PeerError(f"{script} ended with code {code}:\n{said}")
    return answers


@contextlib.contextmanager
def started_peer(
    peer: str, script: str, job: Mapping[str, Any], **variables: str
) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A running script with its log, in a session of its own; it and all that it started are killed at the end.

    The arguments are those of `run_peer`.
    """
    python = python_of(peer)
    outer = {name: value for name, value in os.environ.items() if not name.startswith(("LABELING_", "PYTHON"))}
    with tempfile.TemporaryDirectory(prefix="labeling-peer-") as folder:
        job_file, log_file = Path(folder) / "job.json", Path(folder) / "log"
        job_file.write_text(json.dumps(job))
        with log_file.open("w") as log:
            process = subprocess.Popen(
                # As a script, not as a module: DataChain resumes scripts only. -P: this folder shadows no library.
                [python, "-P", SCRIPTS / f"{script}.py", job_file],
                env=outer | {"PYTHONPATH": str(PROJECT), "PYTHONWARNINGS": "ignore"} | variables,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        try:
            yield process, log_file
        finally:
            kill_session(process)


def kill_session(process: subprocess.Popen[str]) -> None:
    """Kill -9 a process that leads a session, and what it started in it."""
    with contextlib.suppress(ProcessLookupError):  # all of them have ended
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdout is not None:
        process.stdout.close()
