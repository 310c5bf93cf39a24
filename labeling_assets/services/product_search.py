"""Search for products by text, with filters on labels, store, platform and day (S1).

What belongs here: from what a person asks to vectors and filters. How Milvus is asked is in `services/milvus`.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from labeling_assets.errors import ConfigurationError
from labeling_assets.products.records import LABEL_FIELDS, LABEL_LISTS
from labeling_assets.products.vectors import DESCRIPTION_VECTOR
from labeling_assets.services.embedding import Embedder
from labeling_assets.services.milvus.filters import all_of, any_of, literal
from labeling_assets.services.milvus.store import MilvusStore, ProductHit


@dataclass(frozen=True)
class ProductFilters:
    """What a product must be like; every condition given must hold, and nothing given excludes nothing.

    Attributes:
        labels: Label field → values; the product has at least one of them, written exactly so.
        stores: Stores, any of them.
        platforms: Platforms, any of them.
        first_day: First business day.
        last_day: Last business day, included.
    """

    labels: Mapping[str, Sequence[str]] = field(default_factory=dict)
    stores: Sequence[str] = ()
    platforms: Sequence[str] = ()
    first_day: dt.date | None = None
    last_day: dt.date | None = None

    def expression(self) -> str:
        """The conditions as filter expression of Milvus; empty where there is none.

        Raises:
            ConfigurationError: A label field does not exist.
        """
        conditions = [_label_condition(name, values) for name, values in self.labels.items() if values]
        for name, wanted in (("name_store", self.stores), ("platform", self.platforms)):
            if wanted:
                conditions.append(f"{name} in {any_of(wanted)}")
        if self.first_day:
            conditions.append(f"date >= {literal(self.first_day.isoformat())}")
        if self.last_day:
            conditions.append(f"date <= {literal(self.last_day.isoformat())}")
        return all_of(conditions)


def search_products(
    store: MilvusStore, embedder: Embedder, text: str, limit: int, filters: ProductFilters | None = None
) -> list[ProductHit]:
    """The products whose description is nearest to the text, best first.

    Args:
        store: The collection.
        embedder: The embedder that made the collection's vectors.
        text: What is looked for, in any language that the embedder reads.
        limit: Hits at most.
        filters: What the products must be like.

    Raises:
        ConfigurationError: The text is blank, a label field does not exist, or nothing was indexed yet.
        EmbedderMismatchError: The collection holds vectors of another embedder.
        ServiceUnavailableError: Milvus does not answer.
    """
    if not text.strip():
        raise ConfigurationError("The search text is empty.", "Say what the product should be like.")
    expression = (filters or ProductFilters()).expression()
    store.check_embedder(embedder.identity)
    return store.search(embedder.embed_query(text), DESCRIPTION_VECTOR, limit, expression)


def _label_condition(name: str, values: Sequence[str]) -> str:
    if name not in LABEL_FIELDS:
        raise ConfigurationError(f"There is no label field {name!r}.", f"The fields are {', '.join(LABEL_FIELDS)}.")
    if name in LABEL_LISTS:
        return f"array_contains_any({name}, {any_of(values)})"
    return f"{name} in {any_of(values)}"
