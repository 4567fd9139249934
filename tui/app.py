"""The terminal chat as an application: themes, commands, and an orderly end."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterable
from typing import ClassVar

from textual import events, work
from textual.app import App, SystemCommand
from textual.binding import Binding, BindingType
from textual.screen import Screen
from textual.widget import Widget
from textual.widgets import Input

from localai.chat.clean import clean, clean_line
from localai.engine.client import Engine
from localai.engine.settings import Limits, LoadOptions, Sampling
from localai.errors import LocalAIError
from localai.history import History, Kept
from tui import clipboard
from tui.commands import chat_commands
from tui.driver import DRIVER
from tui.ending import run_orderly
from tui.jobs import Job, Jobs
from tui.preferences import Preferences
from tui.screens.chat import ChatScreen
from tui.session import Session
from tui.shelf import ModelShelf
from tui.theme import CONTRAST, DARK, LIGHT, PALE
from tui.warmer import States
from tui.widgets.composer import Composer


class ChatApp(App[None]):
    """One session on one screen. The model loads in the background while the user already types."""

    TITLE = "localai"
    CSS_PATH = "app.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [Binding("ctrl+q", "quit", "Quit", priority=True)]

    def __init__(
        self,
        engine: Engine,
        history: History,
        models: ModelShelf,
        *,
        model: str | None,
        load_options: LoadOptions = LoadOptions(),
        system: str = "",
        sampling: Sampling = Sampling(),
        limits: Limits = Limits(),
        states: States | None = None,
        kept: Kept = "encrypted",
        jobs: Jobs | None = None,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`model`: a name or path; None: the only one installed, or the user's choice. More: `Session`."""
        super().__init__(driver_class=DRIVER)
        self.session = Session(
            engine,
            history,
            models,
            load_options=load_options,
            system=system,
            sampling=sampling,
            limits=limits,
            states=states,
            kept=kept,
            clock=clock,
            now=now,
        )
        self.jobs = jobs or Jobs()
        self._model = model
        self._ending = False
        self.preferences = Preferences(history, now)
        self._take_theme()

    def get_default_screen(self) -> Screen[None]:
        screen = ChatScreen(self.session, self.preferences)
        screen.jobs = self.jobs
        return screen

    def _take_theme(self) -> None:
        """The theme of last time, ours included; without one, ours."""
        for theme in (DARK, PALE, CONTRAST):
            self.register_theme(theme)
        wanted = self.preferences.theme
        self.theme = wanted if wanted in self.available_themes else DARK.name

    def on_mount(self) -> None:
        self.jobs.on_end = self._job_ended
        if self._model is not None:
            self.session.choose(self._model)
            return
        try:
            entries = self.session.models.entries()
        except LocalAIError as error:
            self._tell_error(str(error))
            return
        if len(entries) == 1:
            self.session.choose(entries[0].name)
        elif entries:
            self.call_after_refresh(self.run_action, "screen.choose_model")

    def _job_ended(self, job: Job) -> None:
        name = clean_line(job.name)
        if job.state == "failed" and not self.jobs.is_told(job):
            self._tell_error(f"{name}: {job.error}")
        elif job.state == "done" and self.session.loader.state == "none":
            self.notify(f"{name} is here, and loads.", timeout=6, markup=False)
            try:
                self.session.choose(job.name)
            except LocalAIError as error:  # it loads, but the open conversation could not be stored
                self._tell_error(str(error))
        elif job.state == "done":
            self.notify(f"{name} is here. Ctrl+O uses it.", timeout=6, markup=False)

    async def on_event(self, event: events.Event) -> None:
        """Fields of Textual's own show a paste as it comes: it is cleaned before it reaches them.

        The composer looks first whether it names files; of a passphrase no character may be lost.
        """
        if isinstance(event, events.Paste) and not _takes_pastes_as_they_are(self.focused):
            event.text = clean(event.text)
        await super().on_event(event)

    def _tell_error(self, text: str) -> None:
        self.notify(clean_line(text), severity="error", timeout=12, markup=False)

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        """The command palette. (Textual's own also writes screenshots: conversations stay off the disk.)"""
        if isinstance(screen, ChatScreen):
            yield from chat_commands(screen)
        yield SystemCommand("Light or dark", "Change between the two", self.action_toggle_dark)
        yield SystemCommand("Theme", "Choose among all themes", self.action_change_theme)
        yield SystemCommand("Quit", "End the program", self.action_quit)

    def watch_theme(self, theme: str) -> None:
        """However the theme was chosen, it is there again after a restart."""
        if theme == (self.preferences.theme or DARK.name):
            return
        try:
            self.preferences.set_theme(theme)
        except LocalAIError as error:
            self._tell_error(str(error))

    def action_toggle_dark(self) -> None:
        """From the dark theme to the light one, and back."""
        self.theme = LIGHT if self.current_theme.dark else DARK.name

    def copy_to_clipboard(self, text: str) -> None:
        """Copy `text`: through the terminal, and through the system's own tool where there is one."""
        super().copy_to_clipboard(text)
        if command := clipboard.tool(os.environ):
            self.run_worker(lambda: clipboard.hand_over(text, command), thread=True, group="clipboard")

    def action_help_quit(self) -> None:
        """Ctrl+C, with nothing selected to copy: stop the reply as in any terminal, else tell how to quit."""
        if self.session.busy:
            self.run_worker(self.session.stop(), group="stop")
        else:
            self.notify("Ctrl+Q quits.", markup=False)

    async def action_quit(self) -> None:
        """Stop, store, close, end. Asked a second time, end at once."""
        self.end()

    def end(self, return_code: int = 0) -> None:
        """As `action_quit`, with that exit code."""
        if self._ending:
            self.exit(return_code=return_code)
            return
        self._ending = True
        self._end(return_code)

    @work(group="end")
    async def _end(self, return_code: int) -> None:
        if isinstance(screen := self.screen_stack[0], ChatScreen):
            screen.store_draft()
        await self.jobs.stop()
        await self.session.close()
        self.exit(return_code=return_code)


def run_chat(app: ChatApp) -> int:
    """Run the chat on this terminal until the user ends it; the exit code. Closes the engine."""

    async def close() -> None:
        await app.jobs.stop()
        await app.session.close()

    code = asyncio.run(run_orderly(app.run_async(), app.end, close))
    return code or app.return_code or 0


def _takes_pastes_as_they_are(field: Widget | None) -> bool:
    return isinstance(field, Composer) or (isinstance(field, Input) and field.password)
