"""What Dagster's runs write to the console, as JSON lines where LABELING_LOG_FORMAT asks for it.

A run whose configuration names no logger, which is every run that the UI or a sensor starts, gets Dagster's own
coloured logger whatever loggers the definitions have (dagster 1.13, `create_log_manager`); so that default is replaced
too.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import dagster as dg
from dagster._core.execution import context_creation_job

from labeling_assets import logs
from labeling_assets.settings import Settings

DEFAULT_LEVEL = "DEBUG"
"""As Dagster's own logger, whose lines on the progress of a run are of this level."""


@dg.logger(
    {"log_level": dg.Field(str, default_value=DEFAULT_LEVEL), "name": dg.Field(str, default_value="dagster")},
    description="One JSON object a line on standard error.",
)
def json_console(context: dg.InitLoggerContext) -> logging.Logger:
    """A logger of its own, so that other handlers of the process do not repeat its lines."""
    config = context.logger_config
    logger = logging.Logger(config["name"], level=config["log_level"].upper())
    handler = logs.StandardErrorHandler()
    handler.setFormatter(logs.formatter(Settings.load()))
    logger.addHandler(handler)
    return logger


def loggers(settings: Settings) -> dict[str, dg.LoggerDefinition]:
    """The loggers of the definitions by name; with JSON, they are made the default of this process's runs as well."""
    if settings.log_format != "json":
        return {}
    logs.configure(settings, logging.WARNING)
    context_creation_job.default_system_loggers = _json_loggers  # type: ignore[attr-defined]
    return {"console": json_console}


def _json_loggers(
    instance: dg.DagsterInstance | None,
) -> Sequence[tuple[dg.LoggerDefinition, Mapping[str, object]]]:
    level = (instance.python_log_level if instance else None) or DEFAULT_LEVEL
    return [(json_console, {"name": "dagster", "log_level": level})]
