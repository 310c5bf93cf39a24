"""Designed products: a phrase of a theme, on a product, in colours, with the title it is sold under and its truth.

Everything is drawn from the random generator that is handed in, so the same seed gives the same products.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from labeling_assets.embedded.demo.backgrounds import background_names
from labeling_assets.embedded.demo.colours import PRODUCT_BODIES, details_for, readable_schemes, scheme_on
from labeling_assets.embedded.demo.designs import TALL_LAYOUTS, WIDE_LAYOUTS, Layout, Print
from labeling_assets.embedded.demo.drawing import Photo
from labeling_assets.embedded.demo.encoding import Form, Recipe
from labeling_assets.embedded.demo.lettering import FontStyle
from labeling_assets.embedded.demo.motifs import motif_subject
from labeling_assets.embedded.demo.phrases import (
    NAMES,
    PRODUCT_WEIGHTS,
    PRODUCT_WORDS,
    Language,
    Theme,
    items,
    lines_of,
)
from labeling_assets.embedded.demo.phrases_english import ENGLISH_THEMES
from labeling_assets.embedded.demo.phrases_vietnamese import VIETNAMESE_THEMES
from labeling_assets.embedded.demo.shapes import product_shape
from labeling_assets.products.records import LABEL_LISTS

Truth = dict[str, list[str] | str]
_SIZES_PX = ((640, 640),) * 7 + ((640, 800),) * 2 + ((800, 640),) * 2 + ((800, 800), (800, 800), (1000, 1000))
_FONTS: tuple[FontStyle, ...] = ("bold", "bold", "black", "regular", "italic")
_VIETNAMESE_SHARE = 0.22
# A capital letter narrower than this in a 512 px photo is hard to read for people and for OCR.
_NARROWEST_LETTER = 12 / 512
_SHAPE_SIZE_PX = 640


@dataclass(frozen=True)
class Merchandise:
    """One product design.

    Attributes:
        recipe: Its photo as an ordinary image file.
        photo: What its photo shows.
        theme: Where its phrase is from.
        language: Language of the phrase and the title.
        is_personalized: Whether a name or a year is printed.
    """

    recipe: Recipe
    photo: Photo
    theme: Theme
    language: Language
    is_personalized: bool

    @property
    def text(self) -> str:
        """The words printed on it."""
        return " ".join(self.photo.design.lines)


def design_merchandise(rng: random.Random) -> Merchandise:
    """One design of a random theme."""
    language: Language = "vi" if rng.random() < _VIETNAMESE_SHARE else "en"
    theme = rng.choice(VIETNAMESE_THEMES if language == "vi" else ENGLISH_THEMES)
    phrase = rng.choice(items(theme.phrases, " / "))
    name, year, born = rng.choice(NAMES[language]), rng.randint(2019, 2026), rng.randint(1955, 1999)
    lines, emphasis = lines_of(phrase, name=name, year=year, born=born)
    product = _product_for(rng, theme, lines)
    body = rng.choice(PRODUCT_BODIES[product])
    width_px, height_px = rng.choice(_SIZES_PX)
    photo = Photo(
        product=product,
        body=body,
        detail=rng.choice(details_for(product, body)),
        design=Print(
            lines, emphasis, rng.choice(items(theme.motifs)), _layout_for(rng, product, lines), rng.choice(_FONTS)
        ),
        scheme=rng.choice(readable_schemes(body, *([items(theme.schemes)] if theme.schemes else []))),
        background=_background_for(rng, product, theme),
        width_px=width_px,
        height_px=height_px,
        shift=round(rng.uniform(-1, 1), 2),
    )
    form: Form = rng.choices(("jpeg", "webp", "png"), (91, 5, 4))[0]
    recipe = Recipe(photo, form, rng.choice((82, 86, 90)))
    return Merchandise(recipe, photo, theme, language, is_personalized="{" in phrase)


def _product_for(rng: random.Random, theme: Theme, lines: Sequence[str]) -> str:
    """A product on which the lines are readable."""
    wanted = items(theme.products) or tuple(PRODUCT_WEIGHTS)
    longest = max(len(line) for line in lines)
    fitting = [name for name in wanted if longest * _NARROWEST_LETTER <= _print_width(name)]
    names = fitting or ["poster", "blanket"]
    weights = [1 if theme.products else PRODUCT_WEIGHTS[name] for name in names]
    return rng.choices(names, weights)[0]


def _print_width(product: str) -> float:
    """Width that text has on a product, in units of the photo."""
    left, top, right, bottom = product_shape(product, _SHAPE_SIZE_PX).print_box
    return (right - left) * (0.66 if (right - left) / (bottom - top) > 1.35 else 0.92)


def _layout_for(rng: random.Random, product: str, lines: Sequence[str]) -> Layout:
    """An arrangement that leaves the lines readable."""
    left, top, right, bottom = product_shape(product, _SHAPE_SIZE_PX).print_box
    if product == "cap":
        return "side by side"
    if (right - left) / (bottom - top) > 1.35:
        return rng.choice(WIDE_LAYOUTS)
    badge_width = min(right - left, bottom - top) * 0.7
    has_room = len(lines) < 3 and max(len(line) for line in lines) * _NARROWEST_LETTER * 1.25 <= badge_width
    return rng.choice([layout for layout in TALL_LAYOUTS if layout != "badge" or has_room])


def _background_for(rng: random.Random, product: str, theme: Theme) -> str:
    names = background_names(product_shape(product, _SHAPE_SIZE_PX).view)
    festive = [name for name in names if name in ("christmas lights", "fireplace glow")]
    if "Christmas" in theme.occasion and festive and rng.random() < 0.6:
        return festive[0]
    return rng.choice([name for name in names if name != "christmas lights"])


def title_of(merchandise: Merchandise, rng: random.Random) -> str:
    """A title as sellers write them."""
    english, vietnamese, _, _ = PRODUCT_WORDS[merchandise.photo.product]
    theme, text = merchandise.theme, merchandise.text
    if merchandise.language == "vi":
        return rng.choice(
            (
                f"{vietnamese} in chữ “{text}” - Quà tặng {theme.recipient_vi}",
                f"{vietnamese} {text}, quà ý nghĩa cho {theme.recipient_vi}",
                f"[FREESHIP] {vietnamese} {text} cao cấp",
            )
        )
    recipient, occasion = items(theme.image_recipient)[0], rng.choice(items(theme.occasion))
    gift = "Gift" if occasion == "Any occasion" else f"{occasion} Gift"
    titles = (
        f"{text} {english}, {gift} for {recipient}",
        f"{text} {english} - {items(theme.niche_theme)[-1]} {english} | {gift}",
        f"{items(theme.sentiment_tone)[0]} {english} “{text}”, {gift}",
    )
    return f"Personalized {titles[0]}" if merchandise.is_personalized else rng.choice(titles)


def truth_of(merchandise: Merchandise) -> Truth:
    """The fifteen label fields as the one who made the picture knows them."""
    photo, theme = merchandise.photo, merchandise.theme
    english, _, placements, purposes = PRODUCT_WORDS[photo.product]
    scheme = scheme_on(photo.body, photo.scheme)
    colours = list(dict.fromkeys((photo.body, *scheme.names)))
    truth: Truth = {name: list(items(getattr(theme, name, ""))) for name in LABEL_LISTS}
    return truth | {
        "usage_purpose": list(purposes),
        "personalization_type": ["Name or year"] if merchandise.is_personalized else ["None"],
        "product_type": [english],
        "placement_display_context": list(placements),
        "design_style": [_STYLES[photo.design.layout], "Monochrome" if photo.scheme == "ink" else "Flat illustration"],
        "color_aesthetic": colours,
        "trademark_level": "No TM",
        "main_subject": motif_subject(photo.design.motif),
        "text": merchandise.text,
    }


_STYLES: dict[Layout, str] = {
    "motif above": "Illustration with text",
    "motif between": "Illustration with text",
    "motif below": "Illustration with text",
    "badge": "Badge",
    "side by side": "Typography",
    "framed": "Typography",
}
