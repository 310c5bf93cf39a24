"""Colours of products and prints by name, and which go together.

The names are what a person would say, and become the truth of `color_aesthetic`.
"""

from __future__ import annotations

from dataclasses import dataclass

RGB = tuple[int, int, int]

PRODUCT_COLOURS: dict[str, RGB] = {
    "white": (250, 249, 246),
    "cream": (245, 236, 216),
    "natural canvas": (231, 219, 196),
    "light grey": (203, 206, 210),
    "black": (34, 34, 37),
    "charcoal": (66, 68, 73),
    "navy": (32, 46, 84),
    "royal blue": (42, 82, 160),
    "light blue": (176, 208, 232),
    "teal": (38, 122, 124),
    "mint": (190, 226, 208),
    "forest green": (36, 78, 56),
    "olive": (104, 108, 66),
    "red": (184, 38, 46),
    "burgundy": (112, 28, 46),
    "pink": (246, 200, 208),
    "coral": (240, 128, 112),
    "mustard": (222, 168, 52),
    "lavender": (206, 194, 232),
    "purple": (94, 62, 134),
    "natural wood": (206, 164, 116),
    "walnut": (112, 74, 50),
    "whitewashed wood": (226, 218, 206),
    "coir brown": (176, 136, 92),
}
PRODUCT_BODIES: dict[str, tuple[str, ...]] = {
    "mug": ("white", "white", "white", "black", "navy", "cream", "pink", "mint"),
    "tshirt": (
        "white",
        "black",
        "navy",
        "light grey",
        "red",
        "forest green",
        "charcoal",
        "light blue",
        "pink",
        "mustard",
    ),
    "hoodie": ("black", "charcoal", "navy", "light grey", "burgundy", "forest green", "lavender"),
    "cap": ("black", "navy", "white", "olive", "red", "natural canvas"),
    "tote": ("natural canvas", "natural canvas", "cream", "black", "light blue"),
    "keyring": ("white", "black", "natural wood", "navy", "cream"),
    "phonecase": ("white", "black", "pink", "lavender", "teal", "navy"),
    "tumbler": ("white", "black", "teal", "pink", "navy", "burgundy", "mint"),
    "candle": ("white", "cream", "natural canvas"),
    "plaque": ("natural wood", "walnut", "whitewashed wood"),
    "acrylic": ("white", "white", "cream", "black"),
    "ornament": ("white", "white", "cream", "red", "forest green"),
    "poster": ("white", "cream", "navy", "charcoal", "light blue", "mint"),
    "pillow": ("white", "cream", "natural canvas", "light grey", "navy", "pink"),
    "blanket": ("light blue", "cream", "pink", "navy", "burgundy", "forest green", "light grey", "lavender"),
    "doormat": ("coir brown",),
}
WOODEN = frozenset({"natural wood", "walnut", "whitewashed wood"})
_DETAILS = ("red", "navy", "teal", "pink", "black", "forest green", "mustard", "royal blue", "white")
OWN_DETAIL: dict[str, tuple[str, ...]] = {
    "tshirt": (),
    "tote": (),
    "hoodie": (),
    "cap": (),
    "blanket": ("cream", "white", "light grey"),
    "doormat": ("black",),
    "ornament": ("red", "forest green", "burgundy", "mustard"),
    "phonecase": ("charcoal", "black"),
    "candle": ("cream", "white"),
}


@dataclass(frozen=True)
class Scheme:
    """Inks of a print.

    Attributes:
        main: Text and outlines.
        accent: The emphasised line and the large areas of a motif.
        third: Small areas.
        names: What a person calls them.
    """

    main: RGB
    accent: RGB
    third: RGB
    names: tuple[str, ...]


ON_LIGHT: dict[str, Scheme] = {
    "classic": Scheme((34, 34, 38), (196, 38, 48), (120, 124, 130), ("black", "red")),
    "navy and coral": Scheme((28, 42, 82), (228, 96, 82), (86, 150, 168), ("navy", "coral")),
    "forest": Scheme((34, 72, 52), (190, 120, 44), (104, 140, 84), ("green", "ochre")),
    "rose": Scheme((96, 38, 60), (214, 92, 124), (146, 160, 120), ("burgundy", "pink")),
    "retro": Scheme((70, 46, 36), (216, 112, 42), (40, 122, 120), ("brown", "orange", "teal")),
    "violet": Scheme((58, 40, 100), (148, 92, 186), (220, 150, 60), ("purple", "lilac")),
    "ocean": Scheme((20, 62, 104), (30, 130, 170), (236, 160, 60), ("blue", "turquoise")),
    "ink": Scheme((30, 30, 34), (30, 30, 34), (96, 98, 104), ("black",)),
    "christmas": Scheme((150, 24, 32), (196, 30, 40), (32, 108, 62), ("red", "green")),
    "tet": Scheme((166, 24, 28), (216, 40, 36), (214, 150, 30), ("red", "gold")),
}
ON_DARK: dict[str, Scheme] = {
    "classic": Scheme((250, 248, 242), (240, 84, 76), (190, 194, 200), ("white", "red")),
    "navy and coral": Scheme((246, 240, 228), (255, 146, 120), (140, 200, 214), ("cream", "coral")),
    "forest": Scheme((244, 238, 220), (226, 170, 84), (168, 200, 140), ("cream", "ochre")),
    "rose": Scheme((252, 236, 236), (250, 158, 178), (196, 206, 170), ("white", "pink")),
    "retro": Scheme((246, 230, 200), (246, 156, 72), (110, 190, 184), ("cream", "orange", "teal")),
    "violet": Scheme((240, 232, 252), (196, 160, 240), (248, 200, 110), ("white", "lilac")),
    "ocean": Scheme((234, 244, 250), (110, 200, 230), (250, 196, 110), ("white", "turquoise")),
    "ink": Scheme((252, 252, 250), (252, 252, 250), (200, 202, 206), ("white",)),
    "christmas": Scheme((252, 246, 230), (244, 190, 86), (150, 210, 160), ("cream", "gold")),
    "tet": Scheme((255, 240, 196), (250, 200, 80), (252, 222, 150), ("cream", "gold")),
}
EVERYDAY_SCHEMES = tuple(name for name in ON_LIGHT if name not in ("christmas", "tet"))


def luminance(colour: RGB) -> float:
    """Perceived brightness, 0 to 255 (Rec. 601)."""
    return 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]


def scheme_on(body: str, name: str) -> Scheme:
    """The inks of a scheme for a light or a dark product colour."""
    return (ON_LIGHT if luminance(PRODUCT_COLOURS[body]) > 125 else ON_DARK)[name]


def readable_schemes(body: str, wanted: tuple[str, ...] = EVERYDAY_SCHEMES) -> tuple[str, ...]:
    """The wanted schemes whose inks stand out from a product colour; plain ink where none does."""
    if body == "coir brown":
        return ("ink",)  # coir mats are printed in black
    readable = tuple(name for name in wanted if _stands_out(scheme_on(body, name), PRODUCT_COLOURS[body]))
    return readable or ("ink",)


def _stands_out(scheme: Scheme, body: RGB) -> bool:
    """Whether text and motif differ enough from the product; small areas may not."""
    for ink, distance in ((scheme.main, 190), (scheme.accent, 140)):
        if sum((a - b) ** 2 for a, b in zip(ink, body, strict=True)) < distance**2:
            return False
    return True


def details_for(product: str, body: str) -> tuple[str, ...]:
    """Colours for the details of a product: handle, and the like."""
    return OWN_DETAIL.get(product, _DETAILS) or (body,)
