"""One message on the screen: it can be selected, and then offers what can be done with it."""

from __future__ import annotations

from typing import ClassVar

from textual import events
from textual.app import RenderResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.style import Style
from textual.widget import Widget

from localai.chat.conversation import Message
from tui.outcome import unfinished
from tui.widgets.ground import Column

Place = tuple[int, int]
"""Which of its branches a message is, from 1, and how many there are."""
ONLY: Place = (1, 1)


class ActionRow(Widget):
    """The line below a message: its branches; and, when it is selected, what can be done with it.

    It takes its room always, as the distance to the next message: selecting one moves nothing.
    """

    DEFAULT_CSS = """
    ActionRow {
        height: 1;
        width: 1fr;
        color: $text-muted;
    }
    """
    ALLOW_SELECT = False
    auto_links = False  # the parts that can be clicked keep their colours

    def __init__(self, message: Message, place: Place) -> None:
        super().__init__()
        self._message = message
        self.place = place
        self._selected = False

    def show(self, selected: bool) -> None:
        """Offer the actions, or no longer."""
        if selected != self._selected:
            self._selected = selected
            self.refresh()

    def render(self) -> RenderResult:
        at, of = self.place
        parts: list[Content] = []
        if of > 1:
            back = _action("‹", "screen.branch(-1)", "$primary" if at > 1 else "dim")
            on = _action("›", "screen.branch(1)", "$primary" if at < of else "dim")
            parts.append(back + Content(f" {at}/{of} ") + on)
        if self._selected:
            parts += [_hint(*hint) for hint in _hints(self._message)]
        return Content("  ").join(parts).truncate(max(self.content_size.width, 0), ellipsis=True)


def _hints(message: Message) -> list[tuple[str, str, str]]:
    hints = [("E", "edit", "screen.edit_message")] if message.role == "user" else []
    hints += [("R", "try again", "screen.try_again")] if message.role == "assistant" else []
    hints += [("G", "go on", "screen.go_on")] if unfinished(message) else []
    hints.append(("C", "copy", "screen.copy_message"))
    hints += [("B", "copy code", "screen.copy_code")] if "```" in message.content else []
    return hints


def _hint(key: str, word: str, action: str) -> Content:
    return _action(key, action, "$primary") + _action(f" {word}", action)


def _action(text: str, action: str, colour: str = "") -> Content:
    """Text that does something when clicked. The action is ours, never a model's."""
    return Content(text).stylize(Style.from_meta({"@click": action})).stylize(colour)


class MessageWidget(Column, can_focus=True):
    """Base of the widgets that show a message. The one with the focus, or a part of it, is selected."""

    DEFAULT_CSS = """
    MessageWidget { height: auto; width: 1fr; }
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k,ctrl+up,alt+up", "screen.select_message(-1)", "Message above", show=False),
        Binding("down,j,ctrl+down,alt+down", "screen.select_message(1)", "Message below", show=False),
        Binding("left,h", "screen.branch(-1)", "Earlier branch", show=False),
        Binding("right,l", "screen.branch(1)", "Later branch", show=False),
        Binding("e", "screen.edit_message", "Edit", show=False),
        Binding("r", "screen.try_again", "Try again", show=False),
        Binding("g", "screen.go_on", "Go on", show=False),
        Binding("c,y", "screen.copy_message", "Copy", show=False),
        Binding("b", "screen.copy_code", "Copy code", show=False),
        Binding("t", "screen.toggle_thinking", "Open or fold the thoughts", show=False),
        Binding("pageup", "screen.scroll_view(-1)", "Scroll up", show=False),
        Binding("pagedown", "screen.scroll_view(1)", "Scroll down", show=False),
    ]

    def __init__(self, message: Message, place: Place = ONLY) -> None:
        super().__init__()
        self.message = message
        self.row = ActionRow(message, place)

    @property
    def place(self) -> Place:
        """Which of its branches this is, and how many there are."""
        return self.row.place

    def on_focus(self) -> None:
        self.row.show(True)

    def on_blur(self) -> None:
        self.row.show(False)

    def on_descendant_focus(self, event: events.DescendantFocus) -> None:
        self.row.show(True)

    def on_descendant_blur(self, event: events.DescendantBlur) -> None:
        self.row.show(self.has_focus)
