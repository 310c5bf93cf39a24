"""What is known to be right of an image: of the demo catalogue's images, whose maker wrote it down when drawing them.

The truth lies in `<home>/demo/truth.json` as path → label fields, beside the image files.
"""

from __future__ import annotations

import functools
import hashlib
import json
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from pydantic import ValidationError

from labeling_assets.errors import ConfigurationError
from labeling_assets.products.labels import ProductLabels

FILE = "truth.json"


class KnownTruth:
    """The truth of a demo catalogue's images; of no image where there is no catalogue.

    Args:
        folder: Folder of the demo, `<home>/demo`; it need not exist.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def of(self, url: str, sha256: str) -> ProductLabels | None:
        """The label that an image should get; None where nobody knows.

        The path of the URL finds the entry and the content proves it: other images may have the same path.

        Raises:
            ConfigurationError: The file of truths cannot be read.
        """
        try:
            path = unquote(urlsplit(url).path).lstrip("/")
        except ValueError:  # no URL
            return None
        fields = self._fields.get(path)
        if fields is None or self._digest(path) != sha256:
            return None
        try:
            return ProductLabels.model_validate(fields)
        except ValidationError as error:
            raise self._unreadable(f"{path} has no valid label") from error

    @functools.cached_property
    def _fields(self) -> dict[str, Any]:
        try:
            fields = json.loads((self._folder / FILE).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise self._unreadable(str(error)) from error
        if not isinstance(fields, dict):
            raise self._unreadable("it holds no object")
        return fields

    def _digest(self, path: str) -> str | None:
        try:
            return hashlib.sha256((self._folder / path).read_bytes()).hexdigest()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._unreadable(str(error)) from error

    def _unreadable(self, reason: str) -> ConfigurationError:
        return ConfigurationError(f"{self._folder / FILE} cannot be read: {reason}.", "Run `labeling demo` again.")
