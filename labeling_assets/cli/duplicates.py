"""`labeling duplicates`: products that show nearly the same picture, and where a picture is known from."""

from __future__ import annotations

import datetime as dt
import itertools
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.markup import escape

from labeling_assets.cli.days import DAY
from labeling_assets.cli.output import output
from labeling_assets.errors import ConfigurationError, ImageError
from labeling_assets.settings import Settings

if TYPE_CHECKING:
    import sqlalchemy as sa

    from labeling_assets.services.near_duplicates import ImageUse

SHOWN_USES = 5
FILES_AT_ONCE = 256
_SHA256 = re.compile("[0-9a-f]{64}")


@click.command()
@click.option("--start", type=DAY, help="First day, YYYY-MM-DD; by default the first that was run.")
@click.option("--end", type=DAY, help="Last day, included; by default the last that was run.")
@click.option(
    "--image",
    "images",
    multiple=True,
    metavar="FILE|FOLDER|SHA256",
    help="Look up this image file, all files of a folder, or an image of the platform; repeatable.",
)
@click.option(
    "--bits", type=click.IntRange(0, 7), help="Bits of 64 that may differ; by default LABELING_NEAR_DUPLICATE_BITS."
)
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1), help="Groups or hits listed at most.")
def duplicates(start: dt.date | None, end: dt.date | None, images: Sequence[str], bits: int | None, limit: int) -> None:
    """List groups of near duplicates among the products, or what is near an image.

    With --image, all images of the platform are searched, and --start and --end choose the days whose products are
    named. Exit code 1 if a file is no usable image.
    """
    settings = Settings.load()
    bits = settings.near_duplicate_bits if bits is None else bits
    if images:
        _look_up(settings, start, end, images, bits, limit)
    else:
        _list_groups(settings, start, end, bits, limit)


def _list_groups(settings: Settings, start: dt.date | None, end: dt.date | None, bits: int, limit: int) -> None:
    from labeling_assets.services.images.files import open_root
    from labeling_assets.services.near_duplicates import days_with_images, images_of_days

    storage = open_root(settings.storage_root)
    days = days_with_images(storage, start, end)
    found = images_of_days(storage, days)
    groups = found.groups(bits)
    console = output()
    for group in groups[:limit]:
        console.print(f"[bold]{group.representative}[/] {_products(found.uses[group.representative])}", soft_wrap=True)
        for near in group.members:
            console.print(
                f"    {near.distance} bits  {near.sha256} {_products(found.uses[near.sha256])}", soft_wrap=True
            )
    alike = sum(len(group.members) for group in groups)
    console.print(
        f"{len(groups)} groups of near duplicates on {len(days)} days, at most {bits} bits apart; "
        f"{alike} of {len(found.phashes)} images are near the first of their group.",
        soft_wrap=True,
    )


def _look_up(
    settings: Settings, start: dt.date | None, end: dt.date | None, images: Sequence[str], bits: int, limit: int
) -> None:
    from labeling_assets.embedded import stack
    from labeling_assets.services.connect import Services
    from labeling_assets.services.images.files import open_root
    from labeling_assets.services.near_duplicates import NearDuplicates, days_with_images, images_of_days
    from labeling_assets.services.postgres import migrate

    settings = stack.start(settings)
    engine = Services(settings).product_database.engine
    migrate(engine)
    storage = open_root(settings.storage_root)
    uses = images_of_days(storage, days_with_images(storage, start, end)).uses
    near_duplicates, console, has_failed = NearDuplicates(engine, bits), output(), False
    for name, phash in _hashes(engine, images):
        if isinstance(phash, ImageError):
            has_failed = True
            console.print(f"[bold]{escape(name)}[/] [red]{escape(str(phash))}[/]", soft_wrap=True)
            continue
        hits = near_duplicates.find(phash, limit)
        console.print(f"[bold]{escape(name)}[/] {_summary(phash, len(hits))}", soft_wrap=True)
        for hit in hits:
            console.print(
                f"    {hit.distance} bits  {hit.sha256} {_products(uses.get(hit.sha256, []))}", soft_wrap=True
            )
    if has_failed:
        sys.exit(1)


def _summary(phash: str, hits: int) -> str:
    from labeling_assets.products.perceptual_hash import is_flat

    if is_flat(phash):
        return "is blank or nearly so: its hash says nothing."
    return f"hash {phash}, {hits} images are near." if hits else f"hash {phash}, nothing is near."


def _hashes(engine: sa.Engine, images: Sequence[str]) -> Iterator[tuple[str, str | ImageError]]:
    """Name and hash of everything that was given, in that order; or what is wrong with a file."""
    from labeling_assets.services.images.history import ImageHistory

    for given in images:
        path = Path(given)
        if path.is_dir():
            yield from _hashes_of_files(sorted(each for each in path.rglob("*") if each.is_file()))
        elif path.is_file():
            yield from _hashes_of_files([path])
        elif _SHA256.fullmatch(given):
            facts = ImageHistory(engine).facts(given)
            if facts is None:
                raise ConfigurationError(f"No image {given} is known.", "Give the sha256 of a fetched image.")
            yield given, facts.phash
        else:
            raise ConfigurationError(f"{given!r} is no file, no folder and no sha256.", "Give one of these.")


def _hashes_of_files(paths: Sequence[Path]) -> Iterator[tuple[str, str | ImageError]]:
    from labeling_assets.products.perceptual_hash import to_hex
    from labeling_assets.services.images.perceptual_hash import phash_bodies

    for start in range(0, len(paths), FILES_AT_ONCE):
        batch = paths[start : start + FILES_AT_ONCE]
        hashes, errors = phash_bodies([path.read_bytes() for path in batch])
        for number, path in enumerate(batch):
            yield str(path), errors.get(number) or to_hex(hashes[number])


def _products(uses: Sequence[ImageUse]) -> str:
    """The products that show an image, for people; ids as Python strings, since they may hold anything."""
    shown = [f"{use.day} {use.id_sanpham!r} {use.name_store}" for use in itertools.islice(uses, SHOWN_USES)]
    more = [f"and {len(uses) - SHOWN_USES} more"] if len(uses) > SHOWN_USES else []
    return escape("; ".join([*shown, *more]))
