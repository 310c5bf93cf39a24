"""Who made a label: model, prompt and schema; and when a label is stale. Pure functions.

A label is stale when another model, prompt or schema is in use now than when it was made. It is as right as it was, but
labels of one day made in two ways do not compare.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class LabelVersion:
    """What besides the image decides a label.

    Attributes:
        model: Name of the model.
        model_digest: Its digest; empty where the model server could not be asked for it.
        prompt_version: Version of the prompt.
        schema_version: Version of the label schema.
    """

    model: str
    model_digest: str
    prompt_version: str
    schema_version: str

    def has_made(self, other: LabelVersion) -> bool:
        """Whether this version makes the labels of the other; told by the model's name where no digest is known."""
        return all(getattr(other, name) == value for name, value in self.key.items())

    @property
    def key(self) -> Mapping[str, str]:
        """The columns of the label ledger that find its labels, with their values."""
        model = {"model_digest": self.model_digest} if self.model_digest else {"model": self.model}
        return model | {"prompt_version": self.prompt_version, "schema_version": self.schema_version}

    def __str__(self) -> str:
        digest = f" ({self.model_digest[:12]})" if self.model_digest else ""
        return f"{self.model}{digest}, prompt {self.prompt_version}, schema {self.schema_version}"
