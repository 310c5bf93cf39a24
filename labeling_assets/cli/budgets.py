"""A budget as an option of a command."""

from __future__ import annotations

import click

budget_option = click.option(
    "--budget",
    type=click.FloatRange(min=0, min_open=True),
    metavar="AMOUNT",
    help="What the labels may cost, at the prices LABELING_PRICE_…; no call is made that could overspend it.",
)
