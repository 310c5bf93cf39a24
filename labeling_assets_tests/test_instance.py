"""The Dagster instance of a home."""

from __future__ import annotations

from labeling_assets import instance as subject
from labeling_assets.definitions import build_defs


def test_every_pool_of_an_asset_is_made_before_runs() -> None:
    graph = build_defs().resolve_asset_graph()
    pools = [graph.get(key).pools or set() for key in graph.materializable_asset_keys]
    assert set().union(*pools) == set(subject.POOLS)
