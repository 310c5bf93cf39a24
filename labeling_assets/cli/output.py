"""How the commands print: one console and one kind of table."""

from __future__ import annotations

import sys

from rich import box
from rich.console import Console
from rich.table import Table

PIPE_WIDTH = 120


def output(*, is_error: bool = False) -> Console:
    """The console; where the output is no terminal, lines are 120 wide, not 80."""
    stream = sys.stderr if is_error else sys.stdout
    return Console(stderr=is_error, highlight=False, width=None if stream.isatty() else PIPE_WIDTH)


def plain_table(title: str | None = None, *names: str) -> Table:
    """A table without vertical lines, so that it fits in 80 columns; cells may hold no markup but our own."""
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in names:
        table.add_column(name)
    return table
