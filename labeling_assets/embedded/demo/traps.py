r"""The traps: what real catalogues contain and naive code breaks on, each as a function that adds its rows to a day.

A trap comes on every seventh day (more often in a catalogue of fewer days), chosen by the calendar, so that it stays on
its day when the catalogue grows.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Callable

from labeling_assets.embedded.demo.contents import LABELED, NOT_CRAWLED, HostedImage
from labeling_assets.embedded.demo.encoding import CONTENT_TYPES, Form, Recipe
from labeling_assets.embedded.demo.merchandise import design_merchandise
from labeling_assets.embedded.demo.shop import Shop

HOSTILE_ID = "x' or 1==1 -- \"\\\n%s {0} $(id) Mẹ"
"""Quotes, a backslash, a newline, filter syntax, placeholders, a shell substitution and a Vietnamese letter."""
_TRAPS: list[Callable[[Shop], None]] = []


def add_traps(shop: Shop, slots: int) -> None:
    """Add the traps whose turn it is on the shop's day, when they are spread over `slots` days."""
    for number, trap in enumerate(_TRAPS):
        if shop.day.toordinal() % slots == number % slots:
            trap(shop)


def _trap(function: Callable[[Shop], None]) -> Callable[[Shop], None]:
    _TRAPS.append(function)
    return function


def _id(shop: Shop, name: str, number: int = 1) -> str:
    return f"{shop.day:%y%m%d}-{name.replace(' ', '-')}-{number}"


def _one_row(shop: Shop, name: str, expected: str, form: Form = "jpeg", **answer: object) -> None:
    """A trap of one product with one image."""
    merchandise = design_merchandise(shop.rng)
    if expected != LABELED:
        answer["truth"] = None
    path = shop.host(merchandise, Recipe(merchandise.photo, form), name.replace(" ", "-"), **answer)
    shop.add_row(_id(shop, name), path, merchandise)
    shop.add_trap(name, expected)


@_trap
def _same_image(shop: Shop) -> None:
    merchandise = design_merchandise(shop.rng)
    path = shop.host(merchandise)
    for number in (1, 2, 3):
        shop.add_row(_id(shop, "same image", number), path, merchandise)
    shop.add_trap("same image", LABELED, 3)


@_trap
def _same_bytes_other_url(shop: Shop) -> None:
    merchandise = design_merchandise(shop.rng)
    for number, variant in enumerate(("", "copy"), 1):
        shop.add_row(_id(shop, "same bytes", number), shop.host(merchandise, variant=variant), merchandise)
    shop.add_trap("same bytes under another URL", LABELED, 2)


@_trap
def _near_identical(shop: Shop) -> None:
    merchandise = design_merchandise(shop.rng)
    for number, recipe in enumerate((merchandise.recipe, Recipe(merchandise.photo, "small jpeg", 70)), 1):
        shop.add_row(_id(shop, "near-identical", number), shop.host(merchandise, recipe), merchandise)
    shop.add_trap("near-identical image", LABELED, 2)


@_trap
def _product_twice(shop: Shop) -> None:
    """Two rows of a product that differ in everything but the id."""
    for hour in (9, 15):
        merchandise = design_merchandise(shop.rng)
        moment = shop.start() + dt.timedelta(hours=hour)
        shop.add_row(_id(shop, "twice"), shop.host(merchandise), merchandise, moment)
    shop.add_trap("product twice on a day", LABELED, 2)


@_trap
def _row_twice(shop: Shop) -> None:
    """One row that stands in the table twice."""
    merchandise = design_merchandise(shop.rng)
    row = shop.add_row(_id(shop, "row twice"), shop.host(merchandise), merchandise)
    shop.catalogue.rows.append(row)
    shop.add_trap("row twice", LABELED, 2)


@_trap
def _no_product_id(shop: Shop) -> None:
    for product_id in (None, "", "  "):
        merchandise = design_merchandise(shop.rng)
        shop.add_row(product_id, shop.host(merchandise), merchandise)
    shop.add_trap("no product id", LABELED, 3)


@_trap
def _no_image(shop: Shop) -> None:
    merchandise = design_merchandise(shop.rng)
    for number, image in enumerate((None, "", " \t\n "), 1):
        shop.add_row(_id(shop, "no image", number), image, merchandise)
    shop.add_trap("no image", NOT_CRAWLED, 3)


@_trap
def _missing(shop: Shop) -> None:
    merchandise = design_merchandise(shop.rng)
    path = f"images/{merchandise.recipe.name}-missing.jpg"
    shop.catalogue.images[path] = HostedImage(None, "text/plain", status=404)
    shop.add_row(_id(shop, "404"), path, merchandise)
    shop.add_trap("404", "ImageNotFoundError")


@_trap
def _busy_at_first(shop: Shop) -> None:
    _one_row(shop, "503 at first try", LABELED, first_status=503)


@_trap
def _truncated(shop: Shop) -> None:
    _one_row(shop, "truncated JPEG", "InvalidImageError", "truncated jpeg")


@_trap
def _html_page(shop: Shop) -> None:
    _one_row(shop, "HTML page", "InvalidImageError", "html")


@_trap
def _html_page_as_jpeg(shop: Shop) -> None:
    _one_row(shop, "HTML page as JPEG", "InvalidImageError", "html", content_type="image/jpeg")


@_trap
def _tiny(shop: Shop) -> None:
    _one_row(shop, "20 pixels", "ImageTooSmallError", "tiny png")


@_trap
def _bomb(shop: Shop) -> None:
    _one_row(shop, "decompression bomb", "ImageTooLargeError", "bomb png")


@_trap
def _transparent(shop: Shop) -> None:
    _one_row(shop, "transparent PNG", LABELED, "transparent png")


@_trap
def _palette(shop: Shop) -> None:
    _one_row(shop, "palette PNG", LABELED, "palette png")


@_trap
def _cmyk(shop: Shop) -> None:
    _one_row(shop, "CMYK JPEG", LABELED, "cmyk jpeg")


@_trap
def _rotated(shop: Shop) -> None:
    _one_row(shop, "EXIF rotation", LABELED, "rotated jpeg")


@_trap
def _grey(shop: Shop) -> None:
    _one_row(shop, "greyscale PNG", LABELED, "grey png")


@_trap
def _grey_16_bit(shop: Shop) -> None:
    _one_row(shop, "16-bit PNG", LABELED, "16-bit grey png")


@_trap
def _webp(shop: Shop) -> None:
    _one_row(shop, "WEBP", LABELED, "webp")


@_trap
def _wrong_content_type(shop: Shop) -> None:
    _one_row(shop, "PNG as JPEG", LABELED, "png", content_type=CONTENT_TYPES["jpg"])


@_trap
def _no_content_type(shop: Shop) -> None:
    _one_row(shop, "image as octet stream", LABELED, content_type="application/octet-stream")


@_trap
def _redirect(shop: Shop) -> None:
    merchandise = design_merchandise(shop.rng)
    target = shop.host(merchandise)
    path = f"images/{merchandise.recipe.name}-moved.jpg"
    shop.catalogue.images[path] = HostedImage(None, "text/plain", status=302, location=target)
    shop.add_row(_id(shop, "redirect"), path, merchandise)
    shop.add_trap("redirect", LABELED)


@_trap
def _private_address(shop: Shop) -> None:
    """The address under which clouds keep secrets."""
    merchandise = design_merchandise(shop.rng)
    shop.add_row(_id(shop, "private address"), "http://169.254.169.254/latest/meta-data/photo.jpg", merchandise)
    shop.add_trap("private address", "ImageAddressRefusedError")


@_trap
def _hostile_id(shop: Shop) -> None:
    """Quotes, markup and filter syntax in the id, the title and the store."""
    merchandise = design_merchandise(shop.rng)
    row = shop.add_row(f"{HOSTILE_ID} {shop.day:%y%m%d}", shop.host(merchandise), merchandise)
    title, store = "Mug <b>\"Best\"</b> & 'Only' \\ 100% | `x`", 'O\'Neil "&" Sons'
    shop.catalogue.rows[-1] = dataclasses.replace(row, title=title, store=store)
    shop.add_trap("hostile product id", LABELED)


def _boundary(shop: Shop, name: str, moment: dt.datetime) -> None:
    merchandise = design_merchandise(shop.rng)
    shop.add_row(_id(shop, name), shop.host(merchandise), merchandise, moment)
    shop.add_trap(name, LABELED)


@_trap
def _before_midnight(shop: Shop) -> None:
    """The last moments of a day; the first ones of the next day are the next trap's."""
    _boundary(shop, "one second before midnight", shop.end() - dt.timedelta(seconds=1))
    _boundary(shop, "one microsecond before midnight", shop.end() - dt.timedelta(microseconds=1))


@_trap
def _midnight(shop: Shop) -> None:
    _boundary(shop, "at midnight", shop.start())
    _boundary(shop, "just after midnight", shop.start() + dt.timedelta(seconds=1))
