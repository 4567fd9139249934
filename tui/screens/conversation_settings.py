"""What one conversation sets for itself: system prompt and sampling; and presets of both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, TypeVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.content import Content
from textual.widgets import Button, Input, Label, Select, Static, TextArea

from localai.chat.clean import clean, clean_line
from localai.errors import LocalAIError
from localai.history import History, Preset
from tui.sampling import FIELDS, parse
from tui.screens.modal import Modal

Setup = tuple[str, dict[str, Any]]
"""System prompt and settings."""
T = TypeVar("T")


class ConversationSettings(Modal[Setup | None]):
    """Gives what the user has set; None: nothing is to change. Presets are stored at once."""

    DEFAULT_CSS = """
    ConversationSettings {
        .row { height: 1; margin: 0; }
        .row Label { width: 16; max-width: 50%; color: $text-muted; }
        .row Input { width: 1fr; margin: 0; }
        .row Select { width: 1fr; }
        TextArea {
            height: 5;
            margin: 0 0 1 0;
            border: none;
            padding: 0 1;
            background: $panel;
            &:focus { border: none; }
            & .text-area--cursor-line { background: transparent; }
        }
        .gap { margin: 1 0 0 0; }
        .problem { color: $text-error; height: auto; }
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,f3", "dismiss(None)", "Close", show=False),
        Binding("ctrl+s", "take", "Use it", show=False, priority=True),
    ]

    def __init__(
        self, history: History, system: str, settings: dict[str, Any], usual: dict[str, Any]
    ) -> None:
        """`usual`: what holds where a field is empty."""
        super().__init__(classes="modal")
        self._history = history
        self._presets: dict[str, Preset] = {}
        self._system = TextArea(
            clean(system), soft_wrap=True, tab_behavior="focus", highlight_cursor_line=False
        )
        self._fields = {
            name: Input(
                _text(settings.get(name)),
                placeholder=f"{_text(usual.get(name)) or 'not set'} (usual)",
                compact=True,
                select_on_focus=False,
            )
            for name in FIELDS
        }
        self._select: Select[str] = Select([], prompt="none", compact=True)
        self._preset_name = Input(placeholder="A name to save these as a preset", compact=True)
        self._problem = Static("", markup=False, classes="problem")

    def compose(self) -> ComposeResult:
        with VerticalScroll(classes="box", can_focus=False) as box:
            box.border_title = "This conversation"
            box.border_subtitle = "Ctrl+S uses it · Esc leaves it"
            with Horizontal(classes="row gap"):
                yield Label("Preset")
                yield self._select
            yield Static("System prompt", markup=False, classes="text gap")
            yield self._system
            for name, field in self._fields.items():
                with Horizontal(classes="row"):
                    yield Label(FIELDS[name][0])
                    yield field
            with Horizontal(classes="row gap"):
                yield Label("Save as")
                yield self._preset_name
            yield self._problem
            with Horizontal(classes="buttons"):
                yield Button("Delete preset", id="delete", compact=True)
                yield Button("Save preset", id="save", compact=True)
                yield Button("Use", id="use", variant="primary", compact=True)

    def on_mount(self) -> None:
        self._load_presets()
        for field in (*self._fields.values(), self._preset_name):
            field.cursor_blink = False
        self._system.cursor_blink = False
        self._system.focus()

    def _load_presets(self, chosen: str = "") -> None:
        found: Sequence[Preset] = ()
        if (presets := self._tried(self._history.presets)) is not None:
            found = presets
        self._presets = {preset.name: preset for preset in found}
        with self.prevent(Select.Changed):
            # Not a str: Textual would take its brackets for markup. Text, for only that is found by typing.
            self._select.set_options([(Text(clean_line(name)), name) for name in self._presets])
            if chosen in self._presets:
                self._select.value = chosen

    @on(Select.Changed)
    def _fill(self, event: Select.Changed) -> None:
        preset = self._presets.get(str(event.value))
        if preset is None:
            return
        self._system.text = clean(preset.system)
        self._preset_name.value = clean_line(preset.name)
        for name, field in self._fields.items():
            field.value = _text(preset.settings.get(name))

    def _typed(self) -> Setup | None:
        """What the fields hold; None, and the user knows why, if that is no sense."""
        self._problem.update("")
        texts = {name: field.value for name, field in self._fields.items()}
        settings = self._tried(lambda: parse(texts))
        return None if settings is None else (clean(self._system.text).strip(), settings)

    def _tried(self, work: Callable[[], T]) -> T | None:
        try:
            return work()
        except LocalAIError as error:
            self._problem.update(Content(clean_line(str(error))))
            return None

    def action_take(self) -> None:
        """Close, with what the fields hold."""
        if (typed := self._typed()) is not None:
            self.dismiss(typed)

    @on(Button.Pressed)
    def _pressed(self, event: Button.Pressed) -> None:
        match event.button.id:
            case "use":
                self.action_take()
            case "save":
                self._save()
            case "delete":
                name = str(self._select.value)
                self._tried(lambda: self._history.delete_preset(name))
                self._load_presets()

    @on(Input.Submitted)
    def _submitted(self, event: Input.Submitted) -> None:
        if event.input is self._preset_name:
            self._save()
        else:
            self.action_take()

    def _save(self) -> None:
        name = clean_line(self._preset_name.value)
        if not name:
            self._problem.update("A preset needs a name.")
        elif (typed := self._typed()) is not None:
            self._tried(lambda: self._history.save_preset(Preset(name, *typed)))
            self._load_presets(name)


def _text(value: object) -> str:
    return "" if value is None else f"{value:g}" if isinstance(value, float) else clean_line(str(value))
