"""A text area that brings earlier texts back."""

from __future__ import annotations

from typing import Any, ClassVar

from textual.binding import Binding, BindingType
from textual.widgets import TextArea

from localai.chat.clean import clean


class RecallingTextArea(TextArea):
    """Up in an empty area shows the latest of `prompts`, further Up earlier ones, Down goes back."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "older", "Earlier prompt", show=False),
        Binding("down", "newer", "Later prompt", show=False),
    ]

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.prompts: list[str] = []
        """Earlier prompts, the latest last."""
        self._recalled: int | None = None

    def put(self, text: str) -> None:
        """Replace the text, with the cursor at its end, ready to type on."""
        self.load_text(clean(text))
        self.move_cursor(self.document.end)
        self.focus()

    def forget_recalled(self) -> None:
        """What stands here is the user's own: Up moves the cursor in it."""
        self._recalled = None

    def action_older(self) -> None:
        """Up: the prompt before the shown one; in a text of the user's own, the cursor moves."""
        if self._browsing() and self.prompts:
            last = len(self.prompts) if self._recalled is None else self._recalled
            self._recall(max(0, last - 1))
        else:
            self.action_cursor_up()

    def action_newer(self) -> None:
        """Down: the prompt after the shown one, at last the empty area."""
        if self._recalled is None or not self._browsing():
            self.action_cursor_down()
        elif self._recalled + 1 < len(self.prompts):
            self._recall(self._recalled + 1)
        else:
            self._recalled = None
            self.clear()

    def _browsing(self) -> bool:
        """Whether the area is empty or holds a recalled prompt as it was."""
        if not self.text:
            self._recalled = None
            return True
        if self._recalled is None or self._recalled >= len(self.prompts):  # another conversation's
            return False
        return self.text == self.prompts[self._recalled]

    def _recall(self, index: int) -> None:
        self._recalled = index
        self.put(self.prompts[index])
