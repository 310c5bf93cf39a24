"""The prompts of the vision model: a folder for each version, and the class that builds what is sent.

`v<version>/label.md` is the prompt and says why it is built as it is; `v<version>/reask.md` follows a reply that could
not be used. A prompt depends on nothing but its version: no product, store or setting goes into it. Another prompt is
another folder; those of earlier versions stay, so that they can be compared. A prompt of one's own is a file, whose
version is the digest of its text.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from labeling_assets.errors import ConfigurationError
from labeling_assets.products.labels import LABEL_SCHEMA

PROMPT_VERSION = "1"
"""The version in use, part of the ledger's key. Where it changes, every image is asked about again."""

MAX_PROMPT_BYTES = 32_768
"""Of a file; about 10,000 tokens, more than fits in the context of a small model beside an image."""

_SCHEMA_MARK = "{schema}"


@dataclass(frozen=True)
class Prompt:
    """A prompt for one image.

    Attributes:
        version: What labels are kept by: the number of a packaged prompt, or `file-` and 12 hex digits.
        text: As it is sent, the JSON schema of the reply included.
        reask_template: What is sent after a reply that could not be used, with `{prompt}` and `{fault}`.
    """

    version: str
    text: str
    reask_template: str

    def again(self, fault: str) -> str:
        """The prompt for asking once more, with what was wrong with the first reply in few words."""
        values = {"prompt": self.text, "fault": fault}
        return re.sub(r"\{(prompt|fault)\}", lambda mark: values[mark[1]], self.reask_template)


@functools.cache
def prompt_versions() -> tuple[str, ...]:
    """The versions of the packaged prompts, oldest first."""
    folders = [each.name for each in resources.files(__package__).iterdir() if re.fullmatch(r"v\d+", each.name)]
    return tuple(sorted((name.removeprefix("v") for name in folders), key=int))


@functools.cache
def packaged_prompt(version: str = PROMPT_VERSION) -> Prompt:
    """The prompt of a version.

    Raises:
        ConfigurationError: There is no such version.
    """
    if version not in prompt_versions():
        raise ConfigurationError(
            f"There is no prompt {version!r}.", f"Versions: {', '.join(prompt_versions())}; or name a file."
        )
    return Prompt(version, _with_schema(_packaged_text(version, "label.md")), _packaged_text(version, "reask.md"))


def prompt_of_file(path: Path) -> Prompt:
    """A prompt of one's own: UTF-8 text in which `{schema}` stands where the JSON schema goes.

    Comments `<!-- … -->` are not sent. After a reply that could not be used, the version in use tells what follows.

    Raises:
        ConfigurationError: The file cannot be read, or is no prompt.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_PROMPT_BYTES + 1)
    except OSError as error:
        raise ConfigurationError(
            f"The prompt {str(path)!r} cannot be read: {error.strerror or error}.", "Name a readable text file."
        ) from error
    if len(content) > MAX_PROMPT_BYTES:
        raise ConfigurationError(
            f"The prompt {str(path)!r} is longer than {MAX_PROMPT_BYTES} bytes.", "Shorten it; models read less."
        )
    try:
        text = _without_comments(content.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"The prompt {str(path)!r} is no UTF-8 text.", "Save it as UTF-8.") from error
    if _SCHEMA_MARK not in text:
        raise ConfigurationError(
            f"The prompt {str(path)!r} does not show the schema of the reply.",
            f"Write {_SCHEMA_MARK} where it belongs, best at the end.",
        )
    digest = hashlib.sha256(text.encode()).hexdigest()
    return Prompt(f"file-{digest[:12]}", _with_schema(text), _packaged_text(PROMPT_VERSION, "reask.md"))


def build_prompt(version: str = PROMPT_VERSION) -> str:
    """The prompt of a version for one image, the JSON schema of the reply included."""
    return packaged_prompt(version).text


def build_reask_prompt(fault: str, version: str = PROMPT_VERSION) -> str:
    """The prompt of a version for asking once more, with what was wrong with the first reply in few words."""
    return packaged_prompt(version).again(fault)


def _with_schema(text: str) -> str:
    return text.replace(_SCHEMA_MARK, json.dumps(LABEL_SCHEMA, separators=(",", ":")))


def _packaged_text(version: str, name: str) -> str:
    return _without_comments(resources.files(__package__).joinpath(f"v{version}", name).read_text(encoding="utf-8"))


def _without_comments(text: str) -> str:
    return re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL).strip()
