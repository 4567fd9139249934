"""The chat template that a model brings, shown to whoever is to say whether it may run."""

from __future__ import annotations

from typing import ClassVar, Final

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.widgets import Button, Static

from localai.chat.clean import clean_line
from models.templates import shown
from tui.format import count
from tui.screens.modal import Modal

ABOUT: Final = (
    "{name} brings its own chat template, which nobody here has read: a small program that makes prompts of "
    "what you write. It runs in a sandbox that has no files, no network and no other programs. If you accept "
    "these {lines}, that counts for every model with the same ones."
)


class TemplateScreen(Modal[bool]):
    """Gives whether the user accepts it. The text has the keyboard: Enter alone accepts nothing."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,n", "dismiss(False)", "No", show=False),
        Binding("y", "dismiss(True)", "Yes", show=False),
        Binding("left", "app.focus_previous", "The other", show=False),
        Binding("right", "app.focus_next", "The other", show=False),
    ]

    def __init__(self, name: str, template: str) -> None:
        super().__init__(classes="modal")
        self._model, self._template = name, template
        self._text = VerticalScroll(
            Static(Content(shown(template)), markup=False), classes="template", can_focus=True
        )

    def compose(self) -> ComposeResult:
        lines = self._template.count("\n") + 1
        told = "line" if lines == 1 else f"{count(lines)} lines"
        with Vertical(classes="box") as box:
            box.border_title = "A chat template"
            box.border_subtitle = "Y accepts · N or Esc leaves it · Up, Down read"
            text = ABOUT.format(name=clean_line(self._model), lines=told).replace("these line", "this line")
            yield Static(Content(text), markup=False, classes="hint")
            yield self._text
            with Horizontal(classes="buttons"):
                yield Button("Leave it", id="no", compact=True)
                yield Button("Accept", id="yes", variant="warning", compact=True)

    def on_mount(self) -> None:
        self._text.focus()

    @on(Button.Pressed)
    def _pressed(self, event: Button.Pressed) -> None:
        self.dismiss(event.button.id == "yes")
