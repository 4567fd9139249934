"""Above the composer, while what it holds is an earlier message that is being edited."""

from __future__ import annotations

from textual.content import Content
from textual.widgets import Static


class EditNotice(Static):
    """Shown while a message is being edited."""

    DEFAULT_CSS = """
    EditNotice {
        display: none;
        width: 100%;
        max-width: 97;
        height: auto;
        padding: 0 1;
        color: $text-accent;
    }
    """

    def __init__(self) -> None:
        text = "Editing · sending makes a new branch, the old one is kept · Esc leaves it"
        super().__init__(Content(text), markup=False)
        self.message_id: str | None = None
        """Of the message that is being edited; None: none is."""

    def show(self, message_id: str | None) -> None:
        """Begin or end."""
        self.message_id = message_id
        self.display = message_id is not None
