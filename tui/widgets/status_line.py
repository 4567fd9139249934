"""The bottom line: which model, how full its context, how fast, what it does; and keys for newcomers."""

from __future__ import annotations

from typing import Final, Literal

import msgspec
from textual.app import RenderResult
from textual.content import Content
from textual.reactive import reactive
from textual.style import Style
from textual.widget import Widget

from localai.chat.clean import clean_line
from tui.format import count, gauge

NEARLY_FULL: Final = 0.9

Tone = Literal["quiet", "busy", "good", "bad"]

HINTS: Final = (
    ("F1", "help", "screen.help"),
    ("^N", "new", "screen.new_conversation"),
    ("^O", "model", "screen.choose_model"),
    ("^B", "conversations", "screen.toggle_sidebar"),
)
STOP_HINT: Final = ("Esc", "stop", "screen.stop")
ANSWER_HINT: Final = ("^G", "answer now", "screen.answer_now")


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """What the line says."""

    notice: str = ""
    """What is unusual about how the conversations are kept."""
    sandbox: str = ""
    """How far the engine is confined; empty: none has been started."""
    confined: bool = True
    """Whether that is all that was promised."""
    model: str = ""
    file_type: str = ""
    context_used: int | None = 0
    """Tokens; None: not known, because this model has not read the conversation."""
    context: int = 0
    """Size of the context in tokens; 0: not known yet."""
    tokens_per_s: float = 0.0
    state: str = ""
    tone: Tone = "quiet"
    busy: bool = False
    """Whether there is a reply to stop."""
    thinking: bool = False
    """Whether there is thinking to close."""


class StatusLine(Widget):
    """One line; what has no room is left out, the least important first."""

    DEFAULT_CSS = """
    StatusLine {
        height: 1;
        padding: 0 2;
        background: $surface;
        color: $text-muted;
    }
    """

    status: reactive[Status] = reactive(Status())
    auto_links = False  # the parts that can be clicked keep their colours

    def render(self) -> RenderResult:
        return status_content(self.status, self.content_size.width)


def status_content(status: Status, width: int) -> Content:
    """The line for that width in cells."""
    now = [STOP_HINT] * status.busy + [ANSWER_HINT] * status.thinking
    hints = [*now, *HINTS]
    left, first = _fitting(status, width), _hint(*hints[0]).cell_length + 3
    if left.cell_length + first > width:
        bare = _fitting(status, width, with_gauge=False)
        if bare.cell_length + first <= width:  # a hint says more than a gauge beside its numbers
            left = bare
    while hints:
        right = Content("  ").join([_hint(*hint) for hint in hints])
        if left.cell_length + 3 + right.cell_length <= width:
            return left + Content(" " * (width - left.cell_length - right.cell_length)) + right
        hints.pop()
    return left


def _parts(status: Status, *, with_gauge: bool) -> list[tuple[int, Content]]:
    """The parts from left to right, each with its rank (0 stays longest)."""
    tones = {"quiet": "", "busy": "$text-accent", "good": "$text-success", "bad": "$text-error"}
    parts = [(1, _action(clean_line(status.model) or "no model", "screen.choose_model", "$foreground"))]
    if status.notice:
        parts.insert(0, (1, Content.styled(status.notice, "$text-warning")))
    if status.file_type:
        parts.append((4, Content(clean_line(status.file_type))))
    if status.sandbox:
        colour = "" if status.confined else "$text-warning"
        parts.append((5 if status.confined else 1, _action(status.sandbox, "screen.about", colour)))
    used = status.context_used
    if status.context and used is None:
        parts.append((3, Content(f"context {count(status.context)}")))
    elif status.context and used is not None:
        share = used / status.context
        colour = "$text-warning" if share > NEARLY_FULL else ""
        bar = f"{gauge(share)} " if with_gauge else ""
        numbers = f"{count(used)} / {count(status.context)}"
        parts.append((3, _action(bar + numbers, "screen.context", colour)))
    if status.tokens_per_s:
        parts.append((2, Content(f"{status.tokens_per_s:.1f} tok/s")))
    parts.append((0, Content.styled(clean_line(status.state), tones[status.tone])))
    return parts


def _fitting(status: Status, width: int, *, with_gauge: bool = True) -> Content:
    """The parts with dots between, without the least important ones if there is no room."""
    parts = _parts(status, with_gauge=with_gauge)
    if sum(part.cell_length + 3 for _, part in parts) - 3 > width:
        parts = _parts(status, with_gauge=False)
    while True:
        line = Content(" · ").join([part for _, part in parts])
        if line.cell_length <= width or len(parts) == 1:
            return line.truncate(max(width, 0), ellipsis=True)
        parts = [part for part in parts if part[0] != max(rank for rank, _ in parts)]


def _hint(key: str, word: str, action: str) -> Content:
    return _action(key, action, "$primary") + _action(f" {word}", action)


def _action(text: str, action: str, colour: str = "") -> Content:
    """Text that does something when clicked. The action is ours, never a model's."""
    return Content(text).stylize(Style.from_meta({"@click": action})).stylize(colour)
