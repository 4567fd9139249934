"""The first run as an application of its own: the chat's needs an open history."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ClassVar

from textual import work
from textual.app import App
from textual.binding import Binding, BindingType
from textual.screen import Screen

from tui import jobs
from tui.driver import DRIVER
from tui.ending import run_orderly
from tui.screens.first_run import Begun, FirstRunScreen, Protect, Questions
from tui.theme import DARK


class FirstRunApp(App[Begun]):
    """Gives what the user chose; None if the program is to end."""

    TITLE = "localai"
    CSS_PATH = "app.tcss"
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [Binding("ctrl+q", "quit", "Quit", priority=True)]

    def __init__(
        self, questions: Questions, protect: Protect, pull: Callable[[str], jobs.Job] = jobs.pull
    ) -> None:
        """`protect` makes the key, in a thread of its own; `pull` brings a model of the catalogue."""
        super().__init__(driver_class=DRIVER)
        self._first = FirstRunScreen(questions, pull, protect, self.end)
        self.register_theme(DARK)
        self.theme = DARK.name

    def get_default_screen(self) -> Screen[Begun]:
        return self._first

    async def action_quit(self) -> None:
        """End the program; what was on its way is cleaned up."""
        self.end(None)

    def end(self, begun: Begun | None, return_code: int = 0) -> None:
        """End with what was chosen, or with an exit code."""
        self._end(begun, return_code)

    @work(group="end", exclusive=True)
    async def _end(self, begun: Begun | None, return_code: int) -> None:
        await self.stop()
        self.exit(begun, return_code)

    async def stop(self) -> None:
        """End a model that is on its way."""
        await self._first.stop()


def run_first(app: FirstRunApp) -> Begun | int:
    """Ask on this terminal: what was chosen, or the exit code if the program is to end."""

    def end(return_code: int) -> None:
        app.end(None, return_code)

    return asyncio.run(run_orderly(app.run_async(), end, app.stop)) or app.return_code or 0
