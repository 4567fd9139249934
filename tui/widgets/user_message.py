"""What the user said."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.content import Content
from textual.widgets import Static

from localai.chat.clean import clean, clean_line
from localai.chat.conversation import Attachment, Message
from tui.format import count
from tui.widgets.message import ONLY, MessageWidget, Place


class UserMessage(MessageWidget):
    """A message of the user, as it was typed, and the names of what it carries along."""

    DEFAULT_CSS = """
    UserMessage {
        & > .said {
            width: 1fr;
            padding: 0 1;
            border-left: outer $primary;
            background: $surface;
            color: $foreground;
        }
        & > ActionRow { padding: 0 0 0 2; }
        &:focus > .said { border-left: outer $accent; background: $panel; }
    }
    """

    def __init__(self, message: Message, place: Place = ONLY) -> None:
        super().__init__(message, place)
        self._said = Static(_said(message), markup=False, classes="said")

    @property
    def text(self) -> str:
        """What is shown of the message."""
        return str(self._said.visual)

    def compose(self) -> ComposeResult:
        yield self._said
        yield self.row


def _said(message: Message) -> Content:
    lines = [Content.styled(f"+ {_named(file)}", "$text-muted") for file in message.attachments]
    text = clean(message.content)
    return Content("\n").join([*lines, Content(text)] if text or not lines else lines)


def _named(file: Attachment) -> str:
    lines = len(file.text.removesuffix("\n").split("\n"))
    return f"{clean_line(file.name)} · {count(lines)} line{'s' if lines != 1 else ''}"
