"""`labeling search`: products by what a person writes."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table

from labeling_assets.settings import Settings

if TYPE_CHECKING:
    from labeling_assets.services.milvus import ProductHit
    from labeling_assets.services.product_search import ProductFilters

DAY = click.DateTime(formats=["%Y-%m-%d"])
