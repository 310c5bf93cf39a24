"""The prompt of the vision model: its version and the two functions that build it from the texts beside this file.

`label.md` is the prompt and says why it is built as it is; `reask.md` follows a reply that could not be used. The
prompt depends on nothing but its version: no product, store or setting goes into it.
"""

from __future__ import annotations

import functools
import json
import re
from importlib import resources

from labeling_assets.products.labels import LABEL_SCHEMA

PROMPT_VERSION = "1"
"""Part of the ledger's key. Raise it with any change of the texts; every image is then asked again."""


@functools.cache
def build_prompt() -> str:
    """The prompt for one image, the JSON schema of the reply included."""
    return _text("label.md").replace("{schema}", json.dumps(LABEL_SCHEMA, separators=(",", ":")))


def build_reask_prompt(fault: str) -> str:
    """The prompt for asking once more, with what was wrong with the first reply in few words."""
    return _text("reask.md").replace("{fault}", fault).replace("{prompt}", build_prompt())


def _text(name: str) -> str:
    """A packaged text without its comment."""
    text = resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
    return re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL).strip()
