"""A budget as an option of a command."""

from __future__ import annotations

import click

from labeling_assets.settings import Settings


def _with_prices(_: click.Context, __: click.Parameter, budget: float | None) -> float | None:
    """Refuse a budget where nothing has a price, before anything is started."""
    from labeling_assets.services.vision.budget import require_prices

    if budget is not None:
        require_prices(Settings.load().prices)
    return budget


budget_option = click.option(
    "--budget",
    type=click.FloatRange(min=0, min_open=True),
    callback=_with_prices,
    metavar="AMOUNT",
    help="What the labels may cost, at the prices LABELING_PRICE_…; no call is made that could overspend it.",
)
