"""What this is: program, engine, model and conversations, to read and to copy into a report."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import ClassVar, Final

from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.content import Content
from textual.widgets import Static

from localai.chat.clean import clean
from localai.errors import LocalAIError
from tui.about import COLUMN, Engine, Part, as_text, parts
from tui.screens.modal import Modal
from tui.session import Session

Tell = Callable[[Session, Engine], list[Part]]
WIDTH: Final = 92
"""Cells: a digest then stands on one line."""


class AboutScreen(Modal[None]):
    """A table; any of Esc, Enter, F6 closes it. What only the engine knows comes a moment later."""

    DEFAULT_CSS = f"""
    AboutScreen {{
        .heading {{ text-style: bold; margin: 1 0 0 0; }}
        .fact {{ height: auto; }}
        .label {{ width: {COLUMN + 2}; padding: 0 0 0 2; color: $primary; }}
        .value {{ width: 1fr; color: $text-muted; }}
    }}
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,enter,f6,q", "dismiss(None)", "Close", show=False),
        Binding("c", "copy", "Copy all", show=False),
    ]

    def __init__(self, session: Session, tell: Tell = parts) -> None:
        """`tell` gives what is shown, from what the engine has said so far."""
        super().__init__(classes="modal")
        self._session = session
        self._tell = tell
        self._told: list[Part] = []
        self._box = VerticalScroll(classes="box")

    def compose(self) -> ComposeResult:
        self._box.styles.width = WIDTH
        self._box.border_title = "About"
        self._box.border_subtitle = "C copies all · Esc closes"
        yield self._box

    async def on_mount(self) -> None:
        await self._show(Engine())
        self._ask_engine()

    @work(group="about", exclusive=True)
    async def _ask_engine(self) -> None:
        engine, info, report = self._session.engine, None, None
        try:
            info = await engine.describe()
        except LocalAIError as error:
            await self._show(Engine(problem=str(error)))
            return
        if self._session.loader.loaded is not None:
            with suppress(LocalAIError):
                report = await engine.status()
        await self._show(Engine(info, report))

    async def _show(self, engine: Engine) -> None:
        self._told = self._tell(self._session, engine)
        async with self.batch():
            await self._box.remove_children()
            await self._box.mount_all(widget for part in self._told for widget in _widgets(part))

    def action_copy(self) -> None:
        """Copy all that is shown."""
        self.app.copy_to_clipboard(clean(as_text(self._told)))
        self.notify("Copied, with ~ for your home folder.", timeout=4, markup=False)


def _widgets(part: Part) -> list[Static | Horizontal]:
    return [
        Static(part.heading, markup=False, classes="heading"),
        *(
            Horizontal(
                Static(label, markup=False, classes="label"),
                Static(Content(value), markup=False, classes="value"),
                classes="fact",
            )
            for label, value in part.rows
        ),
    ]
