"""A product in words, from its title and label: the description for people, and the text for the embedder.

The description is Markdown, Vietnamese or English. Title, store and words come from outside, so each is put on one line
and what Markdown would take for markup is escaped. Programs read the label's fields.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from labeling_assets.products.labels import ProductLabels

UNKNOWN = "Unknown"
LISTED_ITEMS = 3

EMBEDDING_TEXT_VERSION = "2"
"""Raise it with any change of `embedding_text`: stores then take the new vectors when a day runs again."""
EMBEDDED_FIELDS = (
    *("product_type", "image_recipient", "occasion", "niche_theme", "main_subject", "text"),
    *("design_style", "color_aesthetic", "usage_purpose", "target_audience", "sentiment_tone"),
    *("message_type", "personalization_type", "placement_display_context"),
)
"""Label fields in the text for the embedder, the most telling first. `trademark_level` is for filters alone."""
REPEATED_FIELDS = ("product_type", "image_recipient", "occasion", "niche_theme", "main_subject", "color_aesthetic")
"""What is searched for most stands once more at the end: to an embedder that counts words it then counts more, and one
that reads little does not get there."""
TITLE_WORDS_FIRST = 16
"""Words of a title before the label; the rest stands at the end. An embedder may read no more than 64 tokens."""

_LANGUAGES = ("vi", "en")
_Wording = tuple[str, str]
"""The same words in each of `_LANGUAGES`."""

_SECTIONS: tuple[tuple[_Wording, dict[str, _Wording]], ...] = (
    (
        ("Thông tin cơ bản", "Basic information"),
        {
            "title": ("Tên sản phẩm", "Title"),
            "id_sanpham": ("Mã sản phẩm", "Product id"),
            "name_store": ("Cửa hàng", "Store"),
            "platform": ("Nền tảng", "Platform"),
        },
    ),
    (
        ("Đối tượng và mục đích", "Audience and purpose"),
        {
            "image_recipient": ("Người nhận", "Recipient"),
            "target_audience": ("Khách hàng mục tiêu", "Target audience"),
            "usage_purpose": ("Mục đích sử dụng", "Purpose"),
            "occasion": ("Dịp", "Occasion"),
        },
    ),
    (
        ("Phân loại", "Classification"),
        {
            "product_type": ("Loại sản phẩm", "Product type"),
            "niche_theme": ("Chủ đề", "Niche or theme"),
            "message_type": ("Loại thông điệp", "Message type"),
            "personalization_type": ("Cá nhân hóa", "Personalization"),
            "trademark_level": ("Mức độ nhãn hiệu", "Trademark level"),
        },
    ),
    (
        ("Thiết kế và trưng bày", "Design and display"),
        {
            "main_subject": ("Chủ thể chính", "Main subject"),
            "text": ("Chữ trên sản phẩm", "Words on the product"),
            "design_style": ("Phong cách", "Style"),
            "color_aesthetic": ("Màu sắc", "Colours"),
            "sentiment_tone": ("Cảm xúc", "Tone"),
            "placement_display_context": ("Nơi trưng bày", "Displayed"),
        },
    ),
)
_SUMMARY_HEADING: _Wording = ("Tóm tắt", "Summary")
_SUMMARY: dict[str, _Wording] = {
    "product_type": ("Sản phẩm: {}", "Product: {}"),
    "main_subject": ("hình in: {}", "print: {}"),
    "image_recipient": ("dành cho: {}", "for: {}"),
    "occasion": ("dịp: {}", "occasion: {}"),
    "design_style": ("phong cách: {}", "style: {}"),
}
_MARKUP = re.compile(r"[\\`*\[\]<~]|(?<!\w)_|_(?!\w)|&(?=#?\w+;)")


def describe(
    labels: ProductLabels,
    *,
    title: str | None,
    name_store: str | None,
    platform: str | None,
    id_sanpham: str,
    language: str,
) -> str:
    """The Markdown description of one product; `Unknown` where nothing is known, the first three items of a list.

    Args:
        labels: Label of the product's image.
        title: Title of the source.
        name_store: Store.
        platform: Platform.
        id_sanpham: Key of the product.
        language: `vi` or `en`.
    """
    chosen = _LANGUAGES.index(language)
    product = {"title": title, "name_store": name_store, "platform": platform, "id_sanpham": id_sanpham}
    values = {field: _line(value) for field, value in (labels.model_dump() | product).items()}
    blocks = []
    for heading, fields in _SECTIONS:
        lines = [f"- **{names[chosen]}:** {values[field] or UNKNOWN}" for field, names in fields.items()]
        blocks += [f"## {heading[chosen]}", "\n".join(lines)]
    known = [wording[chosen].format(values[field]) for field, wording in _SUMMARY.items() if values[field]]
    blocks += [f"## {_SUMMARY_HEADING[chosen]}", f"{'; '.join(known)}." if known else UNKNOWN]
    return "\n\n".join(blocks) + "\n"


def embedding_text(product: Mapping[str, Any]) -> str:
    """What the text vector of a product is made of: title and label values in plain words, the most telling first.

    Nothing that is the same in every product, and no id, store or platform, which are for filters. Never blank: a
    product without title of which nothing was recognised gives its description.

    Args:
        product: Fields of a `LabeledProduct`, by name.
    """
    words = _plain(product["title"]).split(" ")
    parts = [
        " ".join(words[:TITLE_WORDS_FIRST]),
        *(_plain(product[field]) for field in EMBEDDED_FIELDS),
        " ".join(words[TITLE_WORDS_FIRST:]),
        *(_plain(product[field]) for field in REPEATED_FIELDS),
    ]
    return ". ".join(filter(None, parts)) or str(product["description"])


def _line(value: str | Sequence[str] | None) -> str:
    """One line of escaped text, or the empty string."""
    return _MARKUP.sub(r"\\\g<0>", _plain(value))


def _plain(value: str | Sequence[str] | None) -> str:
    """One line of text, or the empty string."""
    text = value if isinstance(value, str) else ", ".join((value or ())[:LISTED_ITEMS])
    return "".join(char for char in " ".join(text.split()) if unicodedata.category(char) not in ("Cc", "Cs"))
