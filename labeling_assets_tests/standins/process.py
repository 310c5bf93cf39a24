"""The stand-in for Ollama as a process of its own, for tests that kill and benchmarks that measure."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

PROJECT = Path(__file__).parents[2]
START_SECONDS = 30


@contextlib.contextmanager
def ollama_process(*, slots: int, latency_ms: int) -> Iterator[str]:
    """The address of a stand-in that runs as long as the block."""
    with killable_ollama_process(slots=slots, latency_ms=latency_ms) as (url, _):
        yield url


@contextlib.contextmanager
def killable_ollama_process(*, slots: int, latency_ms: int) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """The address of a stand-in that runs as long as the block, and its process, which may be killed before."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    module = "labeling_assets_tests.standins.ollama"
    options = ["--port", str(port), "--slots", str(slots), "--latency-ms", str(latency_ms)]
    process = subprocess.Popen([sys.executable, "-m", module, *options], cwd=PROJECT)
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_until_up(url)
        yield url, process
    finally:
        process.terminate()
        process.wait()


def _wait_until_up(url: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            httpx.get(url).raise_for_status()
        except httpx.TransportError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return
