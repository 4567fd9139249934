"""A question before something that cannot be undone."""

from __future__ import annotations

from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.widgets import Button, Static

from tui.screens.modal import Modal


class QuestionScreen(Modal[bool]):
    """Gives whether the user said yes. The careful answer has the keyboard: Enter alone does no harm."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,n", "dismiss(False)", "No", show=False),
        Binding("y", "dismiss(True)", "Yes", show=False),
        Binding("left", "app.focus_previous", "The other", show=False),
        Binding("right", "app.focus_next", "The other", show=False),
    ]

    def __init__(self, title: str, text: str, *, yes: str, no: str) -> None:
        """`text` says what is lost; `yes` and `no` are the words on the buttons."""
        super().__init__(classes="modal")
        self._title = title
        self._text = text
        self._yes, self._no = yes, no

    def compose(self) -> ComposeResult:
        with Vertical(classes="box -small") as box:
            box.border_title = self._title
            box.border_subtitle = "Y or N · Esc leaves it"
            yield Static(Content(self._text), markup=False, classes="hint")
            with Horizontal(classes="buttons"):
                yield Button(self._no, id="no", compact=True)
                yield Button(self._yes, id="yes", variant="error", compact=True)

    def on_mount(self) -> None:
        self.query_one("#no", Button).focus()

    @on(Button.Pressed)
    def _pressed(self, event: Button.Pressed) -> None:
        self.dismiss(event.button.id == "yes")
