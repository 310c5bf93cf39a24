"""Log lines of this process: for people, or one JSON object a line (LABELING_LOG_FORMAT).

A JSON line has `time` (ISO 8601, UTC), `level`, `logger` and `message`; `exception` where there is one; and of a run
`run_id`, `job`, `step` and `partition` (a day, or `first...last`) where they are known. Secrets and image bytes are
removed from every text. What Dagster's runs write to the console is bound to this in `run_logs.py`.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
import sys
from collections.abc import Callable
from typing import TextIO

from labeling_assets.services.redaction import Redactor
from labeling_assets.settings import Settings

TEXT_FORMAT = "%(levelname)s %(name)s: %(message)s"
_HANDLER_NAME = "labeling"


class JsonFormatter(logging.Formatter):
    """Formats a record as one JSON object.

    Args:
        redact: Removes what must not be logged from a text.
    """

    def __init__(self, redact: Callable[[str], str]) -> None:
        super().__init__()
        self._redact = redact

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        context = getattr(record, "dagster_meta", None) or {}
        values = {
            "time": dt.datetime.fromtimestamp(record.created, dt.UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": self._message(record, context),
            "run_id": context.get("run_id"),
            "job": context.get("job_name"),
            "step": context.get("step_key"),
            "partition": _partition(context.get("job_tags") or {}),
            "exception": self._exception(record, context),
        }
        return json.dumps({key: value for key, value in values.items() if value}, ensure_ascii=False)

    def _message(self, record: logging.LogRecord, context: dict[str, object]) -> str:
        # Dagster puts job, run and step in front of its messages; here they have keys of their own.
        return self._redact(str(context.get("orig_message") or record.getMessage()))

    def _exception(self, record: logging.LogRecord, context: dict[str, object]) -> str:
        if record.exc_info:
            return self._redact(self.formatException(record.exc_info))
        data = getattr(context.get("dagster_event"), "event_specific_data", None)
        error = getattr(data, "error", None)  # of a failed step or run
        return self._redact(str(error)) if error else ""


class RedactingFormatter(logging.Formatter):
    """Formats a record for people, without secrets.

    Args:
        redact: Removes what must not be logged from a text.
    """

    def __init__(self, redact: Callable[[str], str]) -> None:
        super().__init__(TEXT_FORMAT)
        self._redact = redact

    def format(self, record: logging.LogRecord) -> str:
        """The lines of the record."""
        return self._redact(super().format(record))


class StandardErrorHandler(logging.StreamHandler[TextIO]):
    """Writes to what `sys.stderr` is at the moment, a line at a time."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record."""
        self.stream = sys.stderr
        super().emit(record)


def formatter(settings: Settings) -> logging.Formatter:
    """The formatter of LABELING_LOG_FORMAT."""
    redact = Redactor.of(settings)
    return JsonFormatter(redact) if settings.log_format == "json" else RedactingFormatter(redact)


def configure(settings: Settings, level: int) -> None:
    """Send what this process logs to its standard error, from this level on. A second call replaces the first."""
    root = logging.getLogger()
    for handler in [each for each in root.handlers if each.name == _HANDLER_NAME]:
        root.removeHandler(handler)
    handler = StandardErrorHandler()
    handler.name = _HANDLER_NAME
    handler.setFormatter(formatter(settings))
    root.addHandler(handler)
    root.setLevel(level)


def _partition(tags: dict[str, str]) -> str:
    """The partition of a run by its tags, with a range as its first and last day."""
    if day := tags.get("dagster/partition"):
        return day
    ends = (tags.get("dagster/asset_partition_range_start"), tags.get("dagster/asset_partition_range_end"))
    return f"{ends[0]}...{ends[1]}" if all(ends) else ""
