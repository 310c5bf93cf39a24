"""The code location: everything under `defs/`, bound to resources.

`build_defs` is the seam for tests and tools that bring resources of their own; Dagster loads `defs`.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path

import dagster as dg

from labeling_assets.abandoned_runs import marking_executor
from labeling_assets.pool_waits import sleep_while_waiting
from labeling_assets.resources import default_resources
from labeling_assets.run_logs import loggers
from labeling_assets.settings import Settings
from labeling_assets.storage_waits import wait_out_outages


def build_defs(resources: Mapping[str, object] | None = None) -> dg.Definitions:
    """Every definition of this code location, bound to `resources` (those of the settings by default)."""
    sleep_while_waiting()
    wait_out_outages()
    settings = Settings.load()
    bound = dict(default_resources(settings) if resources is None else resources)
    platform = dg.Definitions(resources=bound, executor=marking_executor, loggers=loggers(settings))
    return dg.Definitions.merge(_in_folder(), platform)


@functools.cache
def _in_folder() -> dg.Definitions:
    """What the modules under `defs/` define; Dagster takes half a second to look for it."""
    return dg.load_from_defs_folder(path_within_project=Path(__file__).parent)


@dg.definitions
def defs() -> dg.Definitions:
    """The definitions that Dagster's tools load."""
    return build_defs()
