"""The keys, and a word on where things are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Final

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import Static

from tui.preferences import SendKey
from tui.screens.modal import Modal

Keys = tuple[tuple[str, str], ...]

SENDING: Final[dict[SendKey, Keys]] = {
    "enter": (("Enter", "send"), ("Ctrl+J, Shift+Enter", "new line")),
    "ctrl+enter": (("Ctrl+S, Ctrl+Enter", "send"), ("Enter", "new line")),
}
KEYS: Final = (
    (
        "Write",
        (
            ("Up, in an empty composer", "bring an earlier prompt back"),
            ("@, or paste a path", "attach a file"),
            ("F4", "write in your editor"),
            ("Page Up, Page Down", "scroll the conversation"),
        ),
    ),
    (
        "Reply",
        (
            ("Esc", "stop it; what has come is kept"),
            ("Ctrl+G", "while it thinks: answer now"),
            ("Ctrl+R", "try again, with another reply"),
            ("Ctrl+T", "open or fold the last thoughts"),
        ),
    ),
    (
        "Message: Ctrl+Up or a click selects one",
        (
            ("Up, Down", "the one above, below"),
            ("Left, Right", "its other branches"),
            ("E", "edit a question; the old one is kept"),
            ("R", "another reply in its place"),
            ("G", "go on with a reply that was cut"),
            ("C, B", "copy it, its next block of code"),
            ("Mouse, then Ctrl+C", "copy what is selected"),
            ("Esc", "back to the composer"),
        ),
    ),
    (
        "Conversations: Ctrl+B",
        (
            ("Ctrl+F", "search titles and messages"),
            ("P, R, D", "pin, rename, delete"),
            ("X, Shift+X", "export it, or all of them"),
            ("Ctrl+Z", "bring back what was just deleted"),
            ("Ctrl+N", "begin a new one"),
            ("F7", "incognito: nothing is kept; and back"),
            ("F3", "its system prompt, sampling, presets"),
            ("F5", "what its context is spent on"),
        ),
    ),
    (
        "Program",
        (
            ("Ctrl+O", "models: use, fetch, quantize, remove"),
            ("Ctrl+P", "all commands, more themes"),
            ("F2", "settings; how long chats are kept"),
            ("F6", "about: engine, model, sandbox"),
            ("F1", "this help"),
            ("Ctrl+Q", "quit"),
        ),
    ),
)
MODEL_KEYS: Final = (
    (
        "Models",
        (
            ("Type", "filter; or the path of a file or folder"),
            ("Up, Down", "the one above, below"),
            ("Page Up, Page Down", "a page up, down"),
            ("Enter", "use it; else get it, or bring it back"),
            ("F6", "get or make it in another type"),
            ("Del", "remove it; stop what is done for it"),
            ("Ctrl+C", "stop what is done for it"),
            ("Ctrl+Z", "bring back what was removed last"),
            ("F8", "free what removed models take"),
            ("F1", "these keys"),
            ("Esc, Ctrl+O", "close"),
        ),
    ),
)
Groups = Sequence[tuple[str, Keys]]
"""Keys below headings."""
_COLUMN: Final = 26


class KeysScreen(Modal[None]):
    """A table of keys; any of Esc, Enter, F1 closes it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,enter,f1,q,question_mark", "close", "Close", show=False)
    ]

    def __init__(self, groups: Groups) -> None:
        super().__init__(classes="modal")
        self._groups = groups

    def compose(self) -> ComposeResult:
        with VerticalScroll(classes="box") as box:
            box.border_title = "Keys"
            box.border_subtitle = "Esc closes"
            yield Static(_table(self._groups), markup=False, classes="text")

    def on_click(self) -> None:
        self.dismiss()

    def action_close(self) -> None:
        self.dismiss()


class HelpScreen(KeysScreen):
    """The keys of the chat."""

    def __init__(self, send_key: SendKey) -> None:
        """`send_key`: what sends a message, which the user has set."""
        (heading, others), *more = KEYS
        super().__init__([(heading, SENDING[send_key] + others), *more])


def _table(groups: Groups) -> Content:
    lines: list[Content] = []
    for heading, keys in groups:
        lines += [Content("")] if lines else []
        lines.append(Content.styled(heading, "bold $foreground"))
        lines += [Content.styled(f"  {key:<{_COLUMN}}", "$primary") + Content(does) for key, does in keys]
    return Content("\n").join(lines)
