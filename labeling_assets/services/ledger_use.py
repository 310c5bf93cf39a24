"""What the labels in the ledger have taken: calls, tokens and seconds an image, and which images one would find there.

Only sums and keys are read, never labels. The ledger itself is in `ledger.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from labeling_assets.products.plan import LabelUse, Spread
from labeling_assets.services.postgres import database_errors, waits_out_outages
from labeling_assets.services.tables import label_ledger

LOWEST, HIGHEST = 0.1, 0.9
"""Percentiles of a `Spread`."""
MEASURES = ("prompt_tokens", "output_tokens", "seconds")
BATCH_SIZE = 5_000


class LedgerUse:
    """Table `label_ledger`, read for plans.

    Every method raises `ServiceUnavailableError` when PostgreSQL does not come back.

    Args:
        engine: From `create_engine`, on a migrated database.
    """

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def seen(self, key: Mapping[str, str]) -> LabelUse | None:
        """What an image has taken so far: under the key; else of its model at all; else of any model; None: nothing.

        Of other models only labels with tokens count: the others, such as those of the embedded labeler, tell nothing
        of a model that reads some.

        Args:
            key: Columns and values that identify model, prompt and schema; `model_digest` or `model` is the model.
        """
        model = {name: value for name, value in key.items() if name in ("model", "model_digest")}
        scopes = [
            (_is(key), "this model and prompt"),
            (_is(model), "this model with other prompts"),
            ([label_ledger.c.prompt_tokens > 0], "other models"),
        ]
        return next((use for scope, source in scopes if (use := self._seen(scope, source))), None)

    @waits_out_outages
    def _seen(self, scope: Sequence[sa.ColumnElement[Any]], source: str) -> LabelUse | None:
        query = sa.select(sa.func.count().label("images"), sa.func.avg(label_ledger.c.model_calls).label("calls"))
        for name in MEASURES:
            column = label_ledger.c[name]
            query = query.add_columns(
                sa.func.avg(column).label(name),
                *(
                    sa.func.percentile_cont(share).within_group(column).label(f"{name}_{share}")
                    for share in (LOWEST, HIGHEST)
                ),
            )
        query = query.where(*scope, label_ledger.c.model_calls > 0)
        with database_errors("The label ledger cannot be read"), self._engine.connect() as connection:
            row = connection.execute(query).mappings().one()
        if not row["images"]:
            return None
        spreads = {
            name: Spread.of(float(row[f"{name}_{LOWEST}"]), float(row[name]), float(row[f"{name}_{HIGHEST}"]))
            for name in MEASURES
        }
        return LabelUse(images=row["images"], source=source, calls=float(row["calls"]), **spreads)

    def known(self, shas: Sequence[str], key: Mapping[str, str]) -> set[str]:
        """Those of the images that have an entry under the key, labeled or refused."""
        found: set[str] = set()
        for start in range(0, len(shas), BATCH_SIZE):
            found |= self._known(shas[start : start + BATCH_SIZE], key)
        return found

    @waits_out_outages
    def _known(self, shas: Sequence[str], key: Mapping[str, str]) -> set[str]:
        is_one_of = label_ledger.c.image_sha256 == sa.any_(sa.literal(list(shas), sa.ARRAY(sa.Text)))
        query = sa.select(label_ledger.c.image_sha256).where(is_one_of, *_is(key))
        with database_errors("The label ledger cannot be read"), self._engine.connect() as connection:
            return set(connection.execute(query).scalars())


def _is(key: Mapping[str, str]) -> list[sa.ColumnElement[Any]]:
    return [label_ledger.c[name] == value for name, value in key.items()]
