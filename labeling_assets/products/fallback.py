"""What counts as a fallback label: a valid label in which the model recognised nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from labeling_assets.products.records import LABEL_LISTS

FILLED_WITHOUT_RECOGNITION = frozenset({"color_aesthetic", "design_style", "message_type", "personalization_type"})
"""Lists that say something of every picture: its colours, its style, and that it bears no message."""

REQUIRED_FIELDS = (*(name for name in LABEL_LISTS if name not in FILLED_WITHOUT_RECOGNITION), "main_subject", "text")


def is_fallback_label(labels: Mapping[str, Any]) -> bool:
    """Whether nothing was recognised: no subject, no words, and no word on product, people, purpose, occasion or theme.

    No label is made up here when a reply cannot be used: such an image goes into quarantine. What is left to watch for
    is a model that answers in the right form and says nothing, as broken weights or black pictures make it. Colours and
    style do not count, since every picture has them. A label whose reply was asked for again, or was mended, is no
    fallback; `parse_step` and the counts of the labeler tell of those.

    Args:
        labels: The fifteen label fields.
    """
    return not any(labels[name] for name in REQUIRED_FIELDS)
