"""A business day as an argument of a command."""

from __future__ import annotations

import datetime as dt

import click


class Day(click.ParamType[dt.date]):
    """A day as YYYY-MM-DD; the command gets a `datetime.date`."""

    name = "YYYY-MM-DD"

    def convert(self, value: str | dt.date, param: click.Parameter | None, ctx: click.Context | None) -> dt.date:
        """The day of a text; click hands a value that is converted already through again."""
        if isinstance(value, dt.date):
            return value
        try:
            return dt.datetime.strptime(value, "%Y-%m-%d").date()  # noqa: DTZ007 - a day has no time zone
        except ValueError:
            self.fail(f"{value!r} is no day; write YYYY-MM-DD.", param, ctx)


DAY = Day()
