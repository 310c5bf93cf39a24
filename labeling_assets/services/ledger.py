"""The label ledger: what a vision model said of each image, so that no reply is paid for twice.

An entry is found by the sha256 of the image, the digest of the model, and the versions of prompt and schema. Images
that the model cannot label are remembered with the reason, so that a second run makes no call for them either; failures
that a retry can mend are not. Who asks the model, and when, is in `vision/labeler.py`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, fields

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB, insert

from labeling_assets.errors import LabelError
from labeling_assets.products.labels import ProductLabels
from labeling_assets.services.postgres import database_errors, waits_out_outages
from labeling_assets.services.tables import label_ledger

BATCH_SIZE = 500


@dataclass(frozen=True)
class LabelKey:
    """What besides the image decides a label.

    Attributes:
        model_digest: Digest of the model.
        prompt_version: `PROMPT_VERSION`.
        schema_version: `SCHEMA_VERSION`.
    """

    model_digest: str
    prompt_version: str
    schema_version: str


@dataclass(frozen=True)
class LedgerEntry:
    """What the model said of one image: labels, or why there are none.

    Attributes:
        model: Name of the model, for people.
        labels: The fifteen fields; None when the image was refused.
        error_class: Name of a class in `errors.py`; None when labeled.
        error_message: Its message.
        parse_step: How the reply was parsed; None when refused.
        model_calls: Requests made, the re-ask included.
        prompt_tokens: Tokens read in all of them.
        output_tokens: Tokens written in all of them.
        seconds: Time that all of them took.
    """

    model: str
    labels: ProductLabels | None
    error_class: str | None
    error_message: str | None
    parse_step: str | None
    model_calls: int
    prompt_tokens: int
    output_tokens: int
    seconds: float

    def error(self) -> LabelError:
        """The error that the entry remembers; plain `LabelError` for a class of another release."""
        classes = {error_class.__name__: error_class for error_class in LabelError.__subclasses__()}
        return classes.get(self.error_class or "", LabelError)(
            self.error_message or "the model gave no usable label",
            "The reason is remembered; `labeling quarantine retry --all` asks the model again.",
        )


class LabelLedger:
    """The table `label_ledger`. Thread-safe; short outages of PostgreSQL are waited for.

    Every method raises `ServiceUnavailableError` when PostgreSQL does not come back, and `ConfigurationError` when the
    table is missing.

    Args:
        engine: From `create_engine`, on a migrated database.
    """

    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine
        # Every statement here is a transaction of its own, so none is opened around it: that saves two round trips.
        self._engine = engine.execution_options(isolation_level="AUTOCOMMIT")

    def get_many(self, shas: Collection[str], key: LabelKey) -> dict[str, LedgerEntry]:
        """The entries of the images that have one, by sha256, read in batches."""
        entries: dict[str, LedgerEntry] = {}
        for batch in _batches(shas):
            entries |= self._get_batch(batch, key)
        return entries

    @waits_out_outages
    def _get_batch(self, shas: Sequence[str], key: LabelKey) -> dict[str, LedgerEntry]:
        with database_errors("The label ledger cannot be read"), self._engine.connect() as connection:
            rows = connection.execute(_FIND, {"shas": shas, **vars(key)}).mappings()
            return {row["image_sha256"]: _entry(row) for row in rows}

    @waits_out_outages
    def put(self, sha: str, key: LabelKey, entry: LedgerEntry) -> LedgerEntry:
        """Keep an entry, durable on return, and return the one that stands.

        The first entry wins: where another process was quicker, its entry is returned, so that both go on with the same
        label.
        """
        labels = entry.labels.model_dump() if entry.labels else None
        values = vars(entry) | vars(key) | {"image_sha256": sha, "labels": labels}
        with database_errors("The label ledger cannot be written"), self._engine.connect() as connection:
            row = connection.execute(_PUT, values).mappings().one()
            return entry if row["is_new"] else _entry(row)

    def forget(self, shas: Collection[str], key: LabelKey | None = None) -> int:
        """Remove what is remembered of images without a label, so that the model is asked again. Labels are kept.

        Args:
            shas: The images.
            key: Only failures under this key; None: under any.

        Returns:
            The number of entries removed.
        """
        return sum(self._forget_batch(batch, key) for batch in _batches(shas))

    def forget_labels(self, shas: Collection[str], key: LabelKey) -> int:
        """Remove all that is remembered of images under a key, labels included: the model is asked and paid again.

        Args:
            shas: The images.
            key: Entries under other keys are kept.

        Returns:
            The number of entries removed.
        """
        return sum(self._forget_batch(batch, key, labels_too=True) for batch in _batches(shas))

    @waits_out_outages
    def _forget_batch(self, shas: Sequence[str], key: LabelKey | None, *, labels_too: bool = False) -> int:
        statement = sa.delete(label_ledger).where(_IS_ONE_OF)
        if not labels_too:
            statement = statement.where(label_ledger.c.error_class.is_not(None))
        if key:
            statement = statement.where(*_HAS_KEY)
        with database_errors("The label ledger cannot be written"), self._engine.connect() as connection:
            return connection.execute(statement, {"shas": shas, **(vars(key) if key else {})}).rowcount


def _batches(shas: Collection[str]) -> Iterator[list[str]]:
    distinct = list(dict.fromkeys(shas))
    for start in range(0, len(distinct), BATCH_SIZE):
        yield distinct[start : start + BATCH_SIZE]


def _entry(row: sa.RowMapping) -> LedgerEntry:
    values = {field.name: row[field.name] for field in fields(LedgerEntry)}
    if values["labels"] is not None:
        values["labels"] = ProductLabels.model_validate(values["labels"])
    return LedgerEntry(**values)


# Statements are built once: they run for every image while a slot of the model server waits.
_IS_ONE_OF = label_ledger.c.image_sha256 == sa.any_(sa.bindparam("shas", type_=sa.ARRAY(sa.Text)))
_HAS_KEY = [label_ledger.c[field.name] == sa.bindparam(field.name) for field in fields(LabelKey)]
_FIND = sa.select(label_ledger).where(_IS_ONE_OF, *_HAS_KEY)
_PUT = (
    insert(label_ledger)
    .values({column.name: sa.bindparam(column.name) for column in label_ledger.c if column.server_default is None})
    .values(labels=sa.bindparam("labels", type_=JSONB(none_as_null=True)))
    # An update that changes nothing makes RETURNING tell the entry that was there; DO NOTHING would tell no row.
    .on_conflict_do_update(constraint=label_ledger.primary_key, set_={"model": label_ledger.c.model})
    .returning(label_ledger, sa.literal_column("xmax = 0", sa.Boolean).label("is_new"))
)
