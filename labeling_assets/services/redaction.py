"""What must not leave the platform in a text: secrets and the bytes of images.

`Redactor` is put in front of alerts and log lines, as the last line of defence: errors raised on purpose hold no secret
in the first place. What belongs here: how such values are recognised in free text. Who sends the text is elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from urllib.parse import unquote, urlsplit

from pydantic import SecretStr

from labeling_assets.settings import Settings

HIDDEN = "***"
REMOVED = "[data removed]"
MIN_SECRET_CHARS = 4
"""A shorter password would hide ordinary words."""

# Every repetition is bounded, or begins with a sign that it cannot contain: no text makes a search slow.
_USER_AND_PASSWORD = re.compile(r"(?<=://)[^\s/?#:@]{0,100}:\S{0,200}@")
_USER_ALONE = re.compile(r"(?<=://)[^\s/?#:@]{1,200}@")
_NAMED_SECRET = re.compile(
    r"(?i)((?:password|passwd|secret|api[_-]?key|access[_-]?key|signature|credential|token|authorization)"
    r"['\"]?\s{0,5}[=:]\s{0,5}['\"]?(?:(?:bearer|basic)\s{1,5})?)[^\s'\"&,;]+"
)
_BEARER = re.compile(r"(?i)\bbearer\s{1,5}[\w.~+/=-]{8,500}")
_DATA_URI = re.compile(r"data:[\w.+-]{1,50}/[\w.+-]{1,50}[;,][^\s\"'<>)]*")
_BASE64 = re.compile(r"[A-Za-z0-9+/_=-]{200,}")
_BASE64_LINES = re.compile(r"(?:[A-Za-z0-9+/]{60,}={0,2}\s{1,3}){2,}[A-Za-z0-9+/]{0,199}={0,2}")
_BYTES = re.compile(r"(?:\\x[0-9a-fA-F]{2}[^\\\n]{0,8}){8,}")
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffd]+")


class Redactor:
    """Removes known secrets, passwords in URLs, named credentials, and image bytes from a text.

    Args:
        secrets: Values that are hidden wherever they stand.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        long_enough = {secret for secret in secrets if len(secret) >= MIN_SECRET_CHARS}
        longest_first = sorted(long_enough, key=len, reverse=True)
        self._secrets = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None

    @classmethod
    def of(cls, settings: Settings) -> Redactor:
        """The redactor that knows every secret of the settings, and the parts of it that are secret by themselves."""
        values = (getattr(settings, name) for name in Settings.model_fields)
        secrets = (value.get_secret_value() for value in values if isinstance(value, SecretStr))
        return cls(part for secret in secrets for part in _parts(secret))

    def __call__(self, text: str) -> str:
        """The text without what must not leave; takes time in proportion to its length."""
        if self._secrets is not None:
            text = self._secrets.sub(HIDDEN, text)
        for pattern in (_USER_AND_PASSWORD, _USER_ALONE):
            text = pattern.sub(f"{HIDDEN}@", text)
        text = _NAMED_SECRET.sub(rf"\g<1>{HIDDEN}", text)
        text = _BEARER.sub(f"Bearer {HIDDEN}", text)
        for pattern in (_DATA_URI, _BASE64, _BASE64_LINES, _BYTES):
            text = pattern.sub(REMOVED, text)
        return _CONTROL.sub("", text)


def _parts(secret: str) -> Iterator[str]:
    """The secret and, of a URL or of `user:password`, what libraries may show of it alone."""
    yield secret
    if "://" not in secret:
        yield secret.partition(":")[2]
        return
    _, _, rest = secret.partition("://")
    authority, slash, path = rest.partition("/")
    if "@" not in authority and slash:  # the path of a webhook is its secret; that of a database is its name
        yield slash + path
    try:
        password = urlsplit(secret).password
    except ValueError:
        return
    if password:
        yield from (password, unquote(password))
