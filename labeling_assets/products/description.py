"""The description of a product in Markdown, Vietnamese or English, from its label.

It is text for people and for the text embedder; programs read the label's fields. Title, store and words come from
outside, so each is put on one line and what Markdown would take for markup is escaped.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from labeling_assets.products.labels import ProductLabels

UNKNOWN = "Unknown"
LISTED_ITEMS = 3

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


def _line(value: str | Sequence[str] | None) -> str:
    """One line of escaped text, or the empty string."""
    text = value if isinstance(value, str) else ", ".join((value or ())[:LISTED_ITEMS])
    line = "".join(char for char in " ".join(text.split()) if unicodedata.category(char) not in ("Cc", "Cs"))
    return _MARKUP.sub(r"\\\g<0>", line)
