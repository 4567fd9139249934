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
        speed = task.finished_speed or task.speed
        if not speed or task.fields["unit"] == "bytes":
            return super().render(task) if speed else Text("")
        return Text(f"{speed:.3g}/s" if speed < 100 else f"{speed:,.0f}/s", style="progress.data.speed")


class _Amount(DownloadColumn):
    """How much of how much, in the unit of the step."""

    def render(self, task: Task) -> Text:
        if task.fields["unit"] == "bytes":
            return super().render(task)
        words = f"{task.completed:,.0f}/{task.total or 0:,.0f} {task.fields['unit']}"
        return Text(words, style="progress.download")


class Bar:
    """One line that changes. Each new step begins anew; what was there at a step's begin is no speed."""

    def __init__(self) -> None:
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f}%"),
            _Amount(),
            _Speed(),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[detail]}", markup=False),
        )
        console = Console(file=sys.stderr, highlight=False, emoji=False)
        self._progress = Progress(*columns, console=console, transient=True, refresh_per_second=5)
        self._task = self._progress.add_task("", total=None, detail="", unit="bytes", visible=False)
        self._step = ""

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def show(self, step: str, done: int, total: int, detail: str, unit: str = "bytes") -> None:
        """Draw it within a moment, `done` and `total` in `unit`; a `total` of 0 is not known.

        Texts must be clean.
        """
        if step != self._step:
            self._step = step
            self._progress.reset(
                self._task, description=step, total=total or None, completed=done, visible=True
            )
        self._progress.update(self._task, completed=done, total=total or None, detail=detail, unit=unit)
