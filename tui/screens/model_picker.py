"""Choosing among the installed models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Final

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from localai.chat.clean import clean
from tui.format import size
from tui.shelf import ModelEntry

NONE_INSTALLED: Final = "No model is installed. In a shell: localai models pull smollm2:135m"
NAME_CELLS: Final = 30


class ModelPicker(ModalScreen[str | None]):
    """Gives the name of the chosen model, or None. Typing filters; Up and Down move; Enter loads."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss(None)", "Close", show=False),
        Binding("down", "move('cursor_down')", "Down", show=False),
        Binding("up", "move('cursor_up')", "Up", show=False),
        Binding("pagedown", "move('page_down')", "Page down", show=False),
        Binding("pageup", "move('page_up')", "Page up", show=False),
    ]

    def __init__(self, entries: Sequence[ModelEntry], current: str = "") -> None:
        super().__init__(classes="modal")
        self._entries = {entry.name: entry for entry in entries}
        self._current = current
        self._list = OptionList(markup=False)
        self._list.can_focus = False
        self._note = Static(markup=False, classes="hint")

    def compose(self) -> ComposeResult:
        with Vertical(classes="box") as box:
            box.border_title = "Models"
            box.border_subtitle = "Enter loads · Esc closes"
            yield Input(placeholder="Type to filter", compact=True, select_on_focus=False)
            yield self._list
            yield self._note

    def on_mount(self) -> None:
        self.query_one(Input).cursor_blink = False
        self.query_one(Input).focus()
        self._show("")
        if self._current in self._entries:
            self._list.highlighted = self._list.get_option_index(self._current)

    @on(Input.Changed)
    def _filter(self, event: Input.Changed) -> None:
        self._show(event.value)

    @on(Input.Submitted)
    def _enter(self) -> None:
        self._list.action_select()

    @on(OptionList.OptionSelected)
    def _chosen(self, event: OptionList.OptionSelected) -> None:
        if event.option.id is not None:
            self.dismiss(event.option.id)

    @on(OptionList.OptionHighlighted)
    def _highlighted(self, event: OptionList.OptionHighlighted) -> None:
        entry = self._entries.get(event.option.id or "")
        if entry is not None:
            thinks = "Thinks before it answers." if entry.reasoning else "Does not think before it answers."
            self._note.update(Content(clean(entry.note) or thinks))

    def action_move(self, action: str) -> None:
        getattr(self._list, f"action_{action}")()

    def _show(self, wanted: str) -> None:
        words = wanted.lower().split()
        found = [e for e in self._entries.values() if all(w in _searched(e) for w in words)]
        self._list.set_options([Option(_line(e, e.name == self._current), id=e.name) for e in found])
        if found:
            self._list.highlighted = 0
        else:
            self._note.update("Nothing matches." if self._entries else NONE_INSTALLED)


def _searched(entry: ModelEntry) -> str:
    kind = "reasoning" if entry.reasoning else ""
    return " ".join((entry.name, entry.title, entry.file_type, kind)).lower()


def _line(entry: ModelEntry, current: bool) -> Content:
    name = Content(clean(entry.name)).truncate(NAME_CELLS, ellipsis=True, pad=True)
    kind = "reasoning" if entry.reasoning else "plain"
    facts = f"  {clean(entry.file_type):<8} {size(entry.size):>8}  "
    sign = Content.styled("● " if current else "  ", "$success")
    tone = "$text-primary" if entry.reasoning else "dim"
    return sign + name + Content.styled(facts, "dim") + Content.styled(kind, tone)
