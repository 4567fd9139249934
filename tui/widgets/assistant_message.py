"""One reply: thinking, answer, and a line for what a reader must know about how it ended."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from typing import Final

from textual.app import ComposeResult
from textual.content import Content
from textual.widgets import Static

from localai import hardware
from localai.chat.clean import clean, clean_line
from localai.chat.conversation import Message
from tui.format import count
from tui.outcome import Outcome, loop_words, outcome_of, remedy_words
from tui.preferences import ThinkingMode
from tui.turn import Turn
from tui.widgets.answer import Answer
from tui.widgets.message import ONLY, MessageWidget, Place
from tui.widgets.thinking import ThinkingBlock

PAINT_EVERY_S: Final = 0.05
PAINT_EVERY_S_AT_MOST: Final = 1.0
PAINT_SHARE: Final = 0.2 if (os.cpu_count() or 1) > hardware.physical_cores() + 1 else 0.05
"""Of one core, at most, for painting a reply that streams.

The model computes with all cores, and its threads wait for each other: what painting takes of one is lost on
all, unless there is one more.
"""


def pause_after(processor_s: float, share: float = PAINT_SHARE) -> float:
    """Seconds to the next paint, given the processor time since the last one.

    A layout costs Textual time in proportion to all widgets of the screen, so long conversations paint less
    often.
    """
    return min(max(processor_s / share, PAINT_EVERY_S), PAINT_EVERY_S_AT_MOST)


CLOSED: Final = {"": "", "user": "closed by you", "budget": "closed by the budget"}
"""How the reader is told who closed the thinking."""
ANSWER_ADVICE: Final = "Ctrl+R tries again; Ctrl+G while it thinks, or --think-budget, makes it answer."


def note_of(message: Message, remedy: str = "") -> tuple[str, str]:
    """The line below a reply and its class; both empty where there is nothing to say.

    `remedy` says what the reader can do at once about a reply that failed, if it is not to try again.
    """
    if message.state == "failed":
        return f"✗ {message.finish_reason} · {remedy or 'press Ctrl+R to try again'}", "-error"
    if message.state == "stopped":
        return "■ Stopped", "-quiet"
    outcome = outcome_of(message)
    end = _end_of(message, outcome)
    without = f"{count(outcome.left_out)} of the oldest messages were left out." if outcome.left_out else ""
    if message.state != "complete" or not (end or without):
        return "", ""
    return (f"▲ {end} {without}".rstrip(), "-warning") if end else (f"▲ {without}", "-quiet")


def _end_of(message: Message, outcome: Outcome) -> str:
    """What a reader must know about how a reply ended that is complete."""
    tokens = count(message.completion_tokens)
    match outcome.answer, outcome.reason:
        case "none", "context":
            return (
                "The context is full, and the model was still thinking: there is no answer. "
                "Ctrl+G while it thinks makes it answer; Ctrl+N begins a new conversation."
            )
        case "none", "length":
            return f"Cut at the limit of {tokens} tokens, in the thinking: no answer. {ANSWER_ADVICE}"
        case "none", _:
            return f"The model never ended its thinking and gave no answer. {ANSWER_ADVICE}"
        case _, "context":
            return "The context is full: the reply ends here. Ctrl+N begins a new conversation."
        case _, "length":
            return f"Cut at the limit of {tokens} tokens."
    return "" if message.content.strip() else "The answer is empty. Ctrl+R tries again."


class AssistantMessage(MessageWidget):
    """A reply from the store, or one that `follow` shows as it comes."""

    DEFAULT_CSS = """
    AssistantMessage {
        padding: 0 0 0 2;
        &:focus { padding: 0 0 0 1; border-left: outer $accent; }
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

    def __init__(
        self,
        message: Message,
        turn: Turn | None = None,
        place: Place = ONLY,
        thoughts: ThinkingMode = "folded",
    ) -> None:
        """With `turn`, the reply is in the making and nothing of it is shown before `follow`."""
        super().__init__(message, place)
        self._turn = turn
        self._note = Static(markup=False, classes="note")
        self._noted = ("", "")
        self._answer = Answer("" if turn else clean(message.content))
        self.thinking = ThinkingBlock(
            "" if turn else clean(message.thinking),
            seconds=message.thinking_s,
            tokens=message.thinking_tokens,
            closed=CLOSED[outcome_of(message).closed],
            elapsed=(lambda: turn.thinking_s) if turn else None,
            mode=thoughts,
        )

    def compose(self) -> ComposeResult:
        yield self.thinking
        yield self._answer
        yield self._note
        yield self.row

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
            self._paint(turn)
            on_paint()
            if ended:
                break
            before, spent = spent, time.process_time()
            await asyncio.sleep(pause_after(spent - before))
        if self.has_class("-answered"):
            await self._answer.finish(clean(self.message.content))
        self._show_end()

    def _paint(self, turn: Turn) -> None:
        self._show_note(*_meanwhile(turn))
        pieces = turn.take()
        if pieces.thinking:
            self.thinking.feed(clean(pieces.thinking), turn.message.thinking_tokens)
        if turn.phase in ("answering", "done"):
            self.thinking.settle(turn.thinking_s, turn.message.thinking_tokens)
        if pieces.answer:
            text = clean(pieces.answer)
            self.set_class(self.has_class("-answered") or bool(text.strip()), "-answered")
            self._answer.append(text)

    def _show_end(self) -> None:
        self.set_class(bool(clean(self.message.content).strip()), "-answered")
        if not self.message.content.strip() and self.thinking.folded:
            self.thinking.toggle()  # the thoughts are all there is
        self.thinking.say_closed(CLOSED[outcome_of(self.message).closed])
        overflow = self._turn.overflow if self._turn else None
        text, kind = note_of(self.message, remedy_words(overflow) if overflow else "")
        self._show_note(clean_line(text), kind)

    def _show_note(self, text: str, kind: str) -> None:
        # An update of a Static lays the whole screen out anew, so only if there is something new.
        if (text, kind) != self._noted:
            self._noted = (text, kind)
            self._note.update(Content(text))
            self._note.set_classes(f"note {kind}")


def _meanwhile(turn: Turn) -> tuple[str, str]:
    """What stands below the reply, or where it will be, while it is in the making."""
    if turn.looping is not None:
        return f"▲ {clean_line(loop_words(turn.looping))}", "-warning"
    match turn.phase:
        case "waiting":
            return "Waiting for the model…", "-quiet"
        case "reading":
            return "Reading…", "-quiet"
    return "", ""
