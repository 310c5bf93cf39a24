"""What the tests of several services share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from labeling_assets_tests.standins.ollama import OllamaServer


@pytest.fixture(scope="session")
def running_server() -> Iterator[OllamaServer]:
    """The stand-in for Ollama; a test that uses it begins with `renew`."""
    with OllamaServer() as server:
        yield server
