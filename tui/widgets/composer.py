"""Where the user types: one line that grows to eight."""

from __future__ import annotations

from typing import ClassVar, Final

from textual import events, on
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.timer import Timer
from textual.widgets import TextArea

from localai.chat.clean import clean

PAUSE_S: Final = 0.7
"""Who types nothing for so long may be about to send."""
DRAFT_LEAST: Final = 40
"""Characters of a draft that are worth reading beforehand."""


class Composer(TextArea):
    """Enter sends, Ctrl+J or Shift+Enter begin a line, Up in an empty composer recalls prompts.

    What is being written is told as `Drafted`, when the user pauses or has pasted.
    """

    DEFAULT_CSS = """
    Composer {
        height: auto;
        min-height: 3;
        max-height: 10;
        width: 100%;
        padding: 0 1;
        border: round $border-blurred;
        background: $background;
        scrollbar-size-vertical: 1;
        &:focus { border: round $border; }
        & .text-area--cursor-line { background: transparent; }
        & .text-area--placeholder { color: $text-disabled; }
    }
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+j,shift+enter", "newline", "New line", show=False),
        Binding("up", "older", "Earlier prompt", show=False),
        Binding("down", "newer", "Later prompt", show=False),
        Binding("pageup", "screen.scroll_view(-1)", "Scroll up", show=False),
        Binding("pagedown", "screen.scroll_view(1)", "Scroll down", show=False),
    ]

    class Submitted(Message):
        """The user wants to send `text`. Whoever takes it answers with `sent` or `refused`."""

        def __init__(self, text: str) -> None:
            super().__init__()
            self.text = text

    class Drafted(Message):
        """The user may send `text` next."""

        def __init__(self, text: str) -> None:
            super().__init__()
            self.text = text

    def __init__(self) -> None:
        super().__init__(
            placeholder="Ask anything. Enter sends, Ctrl+J begins a new line.",
            highlight_cursor_line=False,
        )
        self.cursor_blink = False
        self.prompts: list[str] = []
        """Earlier prompts, the latest last."""
        self._recalled: int | None = None
        self._submitted: str | None = None
        """What Enter took out and nobody has answered for yet."""
        self._pasted = False
        self._pause: Timer | None = None

    def sent(self) -> None:
        """What was submitted has been taken over: remember it as a prompt."""
        if self._submitted is not None:
            self.prompts.append(clean(self._submitted).strip())
        self._recalled = self._submitted = None

    def refused(self) -> None:
        """What was submitted stays here: put it back, before whatever has been typed since."""
        text, self._submitted = self._submitted or "", None
        if self.text:
            self.insert(f"{text}\n", (0, 0))
        else:
            self.insert(text)
            self.move_cursor(self.document.end)

    def put(self, text: str) -> None:
        """Replace the text, with the cursor at its end, ready to type on."""
        self.load_text(text)
        self.move_cursor(self.document.end)
        self.focus()

    # Textual calls the handlers of all classes, this one first: what is not prevented, TextArea does.

    async def _on_key(self, event: events.Key) -> None:
        if event.key == "enter":
            self._submit()
        elif not await self._act(event.key):
            return
        event.stop()
        event.prevent_default()

    def _submit(self) -> None:
        """Enter: the text leaves at once, so that what is typed next is a text of its own.

        Until it is answered for, Enter begins a line: the lines of a paste stay together, in their order.
        """
        if not (text := clean(self.text).strip()):
            return
        if self._submitted is not None:
            self.action_newline()
            return
        self._submitted = self.text
        self.clear()
        self.post_message(self.Submitted(text))

    async def _act(self, key: str) -> bool:
        """Do what the key is bound to here, if anything.

        Left to Textual, a binding waits until the key has gone up to the application: characters that come
        fast overtake it.
        """
        bindings = self._bindings.key_to_bindings.get(key, [])
        return any([await self.app.run_action(binding.action, self) for binding in bindings])

    async def _on_paste(self, event: events.Paste) -> None:
        event.text = clean(event.text)
        self._pasted = True

    @on(TextArea.Changed)
    def _await_pause(self) -> None:
        """Tell the draft when nothing more is typed, a paste at once."""
        if self._pause is not None:
            self._pause.stop()
            self._pause = None
        if self._pasted:
            self._pasted = False
            self.tell_draft(least=1)
        elif len(self.text) >= DRAFT_LEAST:
            self._pause = self.set_timer(PAUSE_S, self.tell_draft)

    def tell_draft(self, least: int = DRAFT_LEAST) -> None:
        """Post what is written so far as a draft, if it has `least` characters."""
        text = clean(self.text).strip()
        if len(text) >= least:
            self.post_message(self.Drafted(text))

    def action_newline(self) -> None:
        self.insert("\n")
        self.scroll_cursor_visible()

    def action_older(self) -> None:
        """Up: the prompt before the shown one; in a text of the user's own, the cursor moves."""
        if self._browsing() and self.prompts:
            last = len(self.prompts) if self._recalled is None else self._recalled
            self._recall(max(0, last - 1))
        else:
            self.action_cursor_up()

    def action_newer(self) -> None:
        """Down: the prompt after the shown one, at last the empty composer."""
        if self._recalled is None or not self._browsing():
            self.action_cursor_down()
        elif self._recalled + 1 < len(self.prompts):
            self._recall(self._recalled + 1)
        else:
            self._recalled = None
            self.clear()

    def _browsing(self) -> bool:
        """Whether the composer is empty or holds a recalled prompt as it was."""
        if not self.text:
            self._recalled = None
            return True
        return self._recalled is not None and self.text == self.prompts[self._recalled]

    def _recall(self, index: int) -> None:
        self._recalled = index
        self.put(self.prompts[index])
