"""What is printed on demo products: the form of a theme, names of people, and words for products.

The phrases are in `phrases_english.py` and `phrases_vietnamese.py`. Lists are written with a comma between items,
phrases with ` / ` between them, `|` between lines, and `*` before the emphasised line; `{name}`, `{year}` (a recent
one) and `{born}` (a year of birth) are filled in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Language = Literal["en", "vi"]

NAMES: dict[Language, tuple[str, ...]] = {
    "en": ("EMMA", "Oliver", "SOPHIE", "Jack", "Lily", "NOAH", "Grace", "Mason", "RUBY", "Henry", "Chloe", "LEO"),
    "vi": ("Lan Anh", "Minh", "Hoa", "Tuấn", "Ngọc", "Bảo An", "Thảo", "Khánh Vy", "Hùng", "Mai"),
}


@dataclass(frozen=True, kw_only=True)
class Theme:
    """Phrases that share motifs and truth, in the words that a merchandiser would use.

    Attributes:
        phrases: What is printed.
        motifs: Names of motifs that suit.
        schemes: Names of ink schemes that suit; empty for any.
        products: Products that the phrases are sold on, the usual ones repeated; empty for any.
        recipient_vi: Whom the gift is for in a Vietnamese title.

    The other attributes are the truth of the label fields of that name.
    """

    phrases: str
    motifs: str
    image_recipient: str
    target_audience: str
    occasion: str
    niche_theme: str
    sentiment_tone: str
    message_type: str
    schemes: str = ""
    products: str = ""
    recipient_vi: str = ""


def items(text: str, separator: str = ", ") -> tuple[str, ...]:
    """The items of a list as written here."""
    return tuple(text.split(separator)) if text else ()


# English and Vietnamese name, and the truth of placement_display_context and usage_purpose.
PRODUCT_WORDS: dict[str, tuple[str, str, tuple[str, ...], tuple[str, ...]]] = {
    "mug": ("Mug", "Cốc sứ", ("Kitchen", "Office desk"), ("Drinking", "Gift")),
    "tumbler": ("Tumbler", "Bình giữ nhiệt", ("On the go", "Office desk"), ("Drinking", "Gift")),
    "candle": ("Candle", "Nến thơm", ("Living room", "Bedroom"), ("Home decoration", "Gift")),
    "plaque": ("Wooden Plaque", "Bảng gỗ treo tường", ("Wall", "Front door"), ("Home decoration", "Gift")),
    "acrylic": ("Acrylic Plaque", "Bảng mica để bàn", ("Shelf", "Office desk"), ("Home decoration", "Gift")),
    "ornament": ("Ornament", "Đồ trang trí treo cây", ("Christmas tree",), ("Holiday decoration", "Keepsake")),
    "poster": ("Poster", "Tranh treo tường", ("Wall",), ("Home decoration",)),
    "pillow": ("Pillow", "Gối tựa", ("Sofa", "Bedroom"), ("Home decoration", "Gift")),
    "blanket": ("Blanket", "Chăn lông", ("Sofa", "Bedroom"), ("Keeping warm", "Gift")),
    "doormat": ("Doormat", "Thảm chùi chân", ("Front door",), ("Home decoration",)),
    "tshirt": ("T-shirt", "Áo thun", ("Worn",), ("Clothing", "Gift")),
    "hoodie": ("Hoodie", "Áo hoodie", ("Worn",), ("Clothing", "Gift")),
    "cap": ("Cap", "Mũ lưỡi trai", ("Worn",), ("Clothing",)),
    "tote": ("Tote Bag", "Túi vải", ("Carried",), ("Shopping", "Gift")),
    "keyring": ("Key Ring", "Móc khóa", ("Keys",), ("Keepsake", "Gift")),
    "phonecase": ("Phone Case", "Ốp điện thoại", ("Phone",), ("Protection",)),
}
# How often each product is sold, roughly as in print-on-demand shops.
PRODUCT_WEIGHTS: dict[str, int] = {
    "mug": 16,
    "tshirt": 16,
    "hoodie": 7,
    "plaque": 8,
    "acrylic": 6,
    "ornament": 9,
    "blanket": 7,
    "tote": 6,
    "poster": 6,
    "keyring": 6,
    "tumbler": 6,
    "pillow": 6,
    "cap": 4,
    "doormat": 4,
    "phonecase": 3,
    "candle": 4,
}


def lines_of(phrase: str, **values: str | int) -> tuple[tuple[str, ...], int]:
    """The printed lines of a phrase, and the index of the emphasised one (-1 for none).

    >>> lines_of("*SENIOR|{year}", year=2024)
    (('SENIOR', '2024'), 0)
    """
    lines = [line.format(**values) for line in phrase.split("|")]
    emphasis = next((index for index, line in enumerate(lines) if line.startswith("*")), -1)
    return tuple(line.removeprefix("*") for line in lines), emphasis
