"""Homes for the tests of the laptop stack."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from labeling_assets.embedded import stack
from labeling_assets.settings import Settings
from labeling_assets_tests.embedded.stack_probes import (
    new_home,
    processes_of,
)


@pytest.fixture(scope="module")
def settings() -> Iterator[Settings]:
    """Settings of one home for the tests that need a stack; each starts or attaches to it, and may kill its parts."""
    settings = Settings(home=new_home())
    yield settings
    stack.stop(settings)
    assert not processes_of(settings.home)
    shutil.rmtree(settings.home)


@pytest.fixture
def other() -> Iterator[Settings]:
    """Settings of another home."""
    settings = Settings(home=new_home() / "not there yet")
    yield settings
    stack.stop(settings)
    assert not processes_of(settings.home)
    shutil.rmtree(settings.home.parent)
