"""One reply: thinking, answer, and a line for what a reader must know about how it ended."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Static

from localai.chat.clean import clean
from localai.chat.conversation import Message
from tui.format import count
from tui.turn import NO_ROOM, Turn
from tui.widgets.answer import Answer
from tui.widgets.thinking import ThinkingBlock

PAINT_EVERY_S: Final = 0.05
PAINT_EVERY_S_AT_MOST: Final = 0.5
PAINT_SHARE: Final = 0.2
"""Of one core, at most, for painting a reply that streams: the processor belongs to the model."""


def pause_after(processor_s: float) -> float:
    """Seconds to the next paint, given the processor time since the last one.

    A layout costs Textual time in proportion to all widgets of the screen, so long conversations paint less
    often.
    """
    return min(max(processor_s / PAINT_SHARE, PAINT_EVERY_S), PAINT_EVERY_S_AT_MOST)


def note_of(message: Message) -> tuple[str, str]:
    """The line below a reply and its class; both empty where there is nothing to say."""
    match message.state, message.finish_reason:
        case "failed", reason if reason.endswith(NO_ROOM):
            return f"✗ {reason}", "-error"
        case "failed", reason:
            return f"✗ {reason} · press Ctrl+R to try again", "-error"
        case "stopped", _:
            return "■ Stopped", "-quiet"
        case "complete", "context":
            return "▲ The context is full: the reply ends here. Ctrl+N begins a new conversation.", "-warning"
        case "complete", "length":
            return f"▲ Cut at the limit of {count(message.completion_tokens)} tokens.", "-warning"
        case "complete", _ if not message.content.strip():
            return "▲ The model ended without an answer. Ctrl+R tries again.", "-warning"
    return "", ""


class AssistantMessage(Vertical):
    """A reply from the store, or one that `follow` shows as it comes."""

    DEFAULT_CSS = """
    AssistantMessage {
        height: auto;
        padding: 0 0 0 2;
        margin: 1 0 0 0;
        .note {
            display: none;
            width: 1fr;
            &.-quiet { display: block; color: $text-muted; }
            &.-warning { display: block; color: $text-warning; }
            &.-error { display: block; color: $text-error; }
        }
        Answer { display: none; }
        &.-answered Answer { display: block; }
    }
    """

    def __init__(self, message: Message, turn: Turn | None = None) -> None:
        """With `turn`, the reply is in the making and nothing of it is shown before `follow`."""
        super().__init__()
        self.message = message
        self._turn = turn
        self._note = Static(markup=False, classes="note")
        self._noted = ("", "")
        self._answer = Answer("" if turn else clean(message.content))
        self.thinking = ThinkingBlock(
            "" if turn else clean(message.thinking),
            seconds=message.thinking_s,
            tokens=message.thinking_tokens,
            elapsed=(lambda: turn.thinking_s) if turn else None,
        )

    def compose(self) -> ComposeResult:
        yield self.thinking
        yield self._answer
        yield self._note

    def on_mount(self) -> None:
        if self._turn is None:
            self._show_end()

    async def follow(self, turn: Turn, on_paint: Callable[[], None]) -> None:
        """Show the reply as it comes, until it has ended."""
        spent = time.process_time()
        while True:
            await turn.changed.wait()
            turn.changed.clear()
            ended = turn.phase == "done"
            await self._paint(turn)
            on_paint()
            if ended:
                break
            before, spent = spent, time.process_time()
            await asyncio.sleep(pause_after(spent - before))
        if self.has_class("-answered"):
            await self._answer.finish(clean(self.message.content))
        self._show_end()

    async def _paint(self, turn: Turn) -> None:
        self._show_note(*_waiting(turn))
        pieces = turn.take()
        if pieces.thinking:
            self.thinking.feed(clean(pieces.thinking), turn.message.thinking_tokens)
        if turn.phase in ("answering", "done"):
            self.thinking.settle(turn.thinking_s, turn.message.thinking_tokens)
        if pieces.answer:
            text = clean(pieces.answer)
            self.set_class(self.has_class("-answered") or bool(text.strip()), "-answered")
            await self._answer.append(text)

    def _show_end(self) -> None:
        self.set_class(bool(clean(self.message.content).strip()), "-answered")
        if not self.message.content.strip() and self.thinking.folded:
            self.thinking.toggle()  # the thoughts are all there is
        text, kind = note_of(self.message)
        self._show_note(clean(text), kind)

    def _show_note(self, text: str, kind: str) -> None:
        # An update of a Static lays the whole screen out anew, so only if there is something new.
        if (text, kind) != self._noted:
            self._noted = (text, kind)
            self._note.update(Content(text))
            self._note.set_classes(f"note {kind}")


def _waiting(turn: Turn) -> tuple[str, str]:
    """What stands where the reply will be."""
    match turn.phase:
        case "waiting":
            return "Waiting for the model…", "-quiet"
        case "reading":
            return "Reading…", "-quiet"
    return "", ""
