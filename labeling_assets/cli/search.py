"""`labeling search`: products by what a person writes."""

from __future__ import annotations

import datetime as dt
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click
from rich.markup import escape
from rich.table import Table

from labeling_assets.cli.days import DAY
from labeling_assets.cli.output import output, plain_table
from labeling_assets.errors import ConfigurationError
from labeling_assets.settings import Settings

if TYPE_CHECKING:
    from labeling_assets.services.milvus import ProductHit

SHOWN_LABELS = ("product_type", "image_recipient", "occasion", "niche_theme", "color_aesthetic")


@click.command()
@click.argument("text")
@click.option("--limit", default=10, show_default=True, type=click.IntRange(1, 1000), help="Hits at most.")
@click.option(
    "--label", "labels", multiple=True, metavar="FIELD=VALUE", help="Only products with this label; repeatable."
)
@click.option("--store", "stores", multiple=True, help="Only this store; repeatable.")
@click.option("--platform", "platforms", multiple=True, help="Only this platform; repeatable.")
@click.option("--from", "first_day", type=DAY, help="First business day.")
@click.option("--to", "last_day", type=DAY, help="Last business day, included.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def search(
    text: str,
    limit: int,
    labels: Sequence[str],
    stores: Sequence[str],
    platforms: Sequence[str],
    first_day: dt.date | None,
    last_day: dt.date | None,
    *,
    as_json: bool,
) -> None:
    """Find products by TEXT: score, id, store and labels of the best hits.

    Example: labeling search "mug for dad" --label occasion="Father's Day" --limit 5
    """
    from labeling_assets.embedded import stack

    filters = {
        "labels": _label_filters(labels),
        "stores": stores,
        "platforms": platforms,
        "first_day": first_day,
        "last_day": last_day,
    }
    hits = find(stack.start(Settings.load()), text, limit, **filters)
    if as_json:
        click.echo(json.dumps([asdict(hit) for hit in hits], ensure_ascii=False, indent=2, default=str))
    elif hits:
        output().print(hit_table(hits))
    else:
        output().print("No product matches.")


def find(settings: Settings, text: str, limit: int, **filters: Any) -> list[ProductHit]:  # noqa: ANN401 - see ProductFilters
    """The products nearest to a text; the settings have all addresses filled in."""
    from labeling_assets.services.connect import Services
    from labeling_assets.services.product_search import ProductFilters, search_products

    services = Services(settings)
    return search_products(services.vector_store, services.embedder, text, limit, ProductFilters(**filters))


def hit_table(hits: Iterable[ProductHit]) -> Table:
    """The hits for people."""
    table = plain_table(None, "score")
    table.add_column("id", no_wrap=True)
    for name in ("store", "title", "labels"):
        table.add_column(name, overflow="fold")
    for hit in hits:
        labels = [", ".join(hit.labels[name]) for name in SHOWN_LABELS if hit.labels[name]]
        labels += [f"“{hit.labels['text']}”"] if hit.labels["text"] else []
        cells = (hit.id_sanpham, hit.name_store, hit.title or "", " · ".join(labels))
        table.add_row(f"{hit.score or 0:.3f}", *map(escape, cells))
    return table


def _label_filters(labels: Sequence[str]) -> Mapping[str, Sequence[str]]:
    filters: dict[str, list[str]] = defaultdict(list)
    for label in labels:
        name, separator, value = label.partition("=")
        if not separator or not value:
            raise ConfigurationError(
                f"--label {label!r} cannot be read.", 'Write FIELD=VALUE, such as occasion="Christmas".'
            )
        filters[name].append(value)
    return filters
