"""What the user said."""

from __future__ import annotations

from textual.content import Content
from textual.widgets import Static

from localai.chat.clean import clean
from localai.chat.conversation import Message


class UserMessage(Static):
    """A message of the user, as it was typed."""

    DEFAULT_CSS = """
    UserMessage {
        width: 1fr;
        padding: 0 1;
        margin: 1 0 0 0;
        border-left: outer $primary;
        background: $surface;
        color: $foreground;
    }
    """

    def __init__(self, message: Message) -> None:
        super().__init__(Content(clean(message.content)), markup=False)
        self.message = message
