"""A screen above the chat that closes once, however often it is told to.

Keys are queued: whoever presses Enter or Esc twice while the program is busy sends the second to a screen
that the first has closed. `Screen.dismiss` would then take away the screen below, in the end the chat itself.
"""

from __future__ import annotations

from typing import TypeVar

from textual.await_complete import AwaitComplete
from textual.screen import ModalScreen

Result = TypeVar("Result")


class Modal(ModalScreen[Result]):
    """A modal screen that can be dismissed again and again."""

    _waits: tuple[Result | None] | None = None
    """What it was dismissed with while it lay below another screen."""

    def dismiss(self, result: Result | None = None) -> AwaitComplete:
        """Close with `result`, once it is on top; nothing happens if the screen is closed."""
        if self.is_active:
            return super().dismiss(result)
        if self in self.app.screen_stack:
            self._waits = (result,)
        return AwaitComplete()

    def on_screen_resume(self) -> None:
        if self._waits is not None:
            (result,), self._waits = self._waits, None
            self.dismiss(result)
