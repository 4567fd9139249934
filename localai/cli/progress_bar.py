"""A bar for what takes a while, drawn with Rich on standard error: how far, how fast, how much longer."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, Task, TextColumn, TimeRemainingColumn
from rich.progress import TransferSpeedColumn as Speed
from rich.text import Text


class _Speed(Speed):
    """Nothing where nothing moves yet."""

    def render(self, task: Task) -> Text:
        return super().render(task) if task.finished_speed or task.speed else Text("")


class Bar:
    """One line that changes. Each new step begins anew; what was there at a step's begin is no speed."""

    def __init__(self) -> None:
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f}%"),
            DownloadColumn(),
            _Speed(),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[detail]}", markup=False),
        )
        console = Console(file=sys.stderr, highlight=False, emoji=False)
        self._progress = Progress(*columns, console=console, transient=True, refresh_per_second=5)
        self._task = self._progress.add_task("", total=None, detail="", visible=False)
        self._step = ""

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def show(self, step: str, done: int, total: int, detail: str) -> None:
        """Draw it within a moment; a `total` of 0 is not known. Texts must be clean."""
        if step != self._step:
            self._step = step
            self._progress.reset(
                self._task, description=step, total=total or None, completed=done, visible=True
            )
        self._progress.update(self._task, completed=done, total=total or None, detail=detail)
