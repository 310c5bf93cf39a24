"""The live progress of `labeling run` and `labeling demo`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

if TYPE_CHECKING:
    from labeling_assets.runs import DayResult


class RunProgress:
    """Shows the day and stage at work; on a terminal a bar, elsewhere one line a day."""

    def __init__(self, console: Console, progress: Progress, days: Sequence[str]) -> None:
        self._console, self._progress = console, progress
        self._task = progress.add_task("starting", total=len(days))

    def stage(self, day: str, stage: str) -> None:
        """A stage of a day begins."""
        self._progress.update(self._task, description=f"{day} {stage}")

    def day(self, result: DayResult) -> None:
        """A day has ended."""
        self._progress.advance(self._task)
        if not self._console.is_terminal:
            state = "done" if result.is_success else "FAILED"
            self._console.print(f"{result.day} {state} in {result.seconds:.1f} s", highlight=False)


@contextlib.contextmanager
def show_progress(console: Console, days: Sequence[str]) -> Iterator[RunProgress]:
    """Show progress until the block ends."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield RunProgress(console, progress, days)
