"""What the context is spent on."""

from __future__ import annotations

from typing import ClassVar, Final

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Static

from tui.costs import Shares
from tui.format import count
from tui.screens.modal import Modal

CELLS: Final = 60
_COLUMN: Final = 24


class ContextScreen(Modal[None]):
    """A bar and a line for each part; any of Esc, Enter, F5 closes it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,enter,f5,q", "dismiss(None)", "Close", show=False)
    ]

    def __init__(self, shares: Shares, tokens_per_s: float) -> None:
        super().__init__(classes="modal")
        self._shares = shares
        self._tokens_per_s = tokens_per_s

    def compose(self) -> ComposeResult:
        with Vertical(classes="box") as box:
            box.border_title = "Context"
            box.border_subtitle = "Esc closes"
            yield Static(shares_content(self._shares, CELLS), markup=False, classes="hint")
            if self._tokens_per_s:
                speed = f"The last reply came at {self._tokens_per_s:.1f} tokens per second."
                yield Static(Content(speed), markup=False, classes="hint")

    def on_click(self) -> None:
        self.dismiss(None)


def shares_content(shares: Shares, cells: int) -> Content:
    """The bar, and below it the numbers."""
    # Signs of their own: the parts differ without colours too.
    parts = [
        ("█", "Questions", shares.questions, "$primary"),
        ("▓", "Files", shares.files, "$text-warning"),
        ("▒", "Answers", shares.answers, "$text-success"),
        ("░", "Thinking, last reply", shares.thinking, "$text-accent"),
    ]
    bar = Content("")
    left = cells
    for sign, _, tokens, colour in parts:
        width = min(left, round(tokens / max(shares.context, 1) * cells) or (1 if tokens else 0))
        left -= width
        bar += Content.styled(sign * width, colour)
    lines = [bar + Content.styled("·" * left, "dim"), Content("")]
    for sign, name, tokens, colour in [*parts, ("·", "Free", shares.free, "dim")]:
        share = tokens / max(shares.context, 1)
        numbers = f" {name:<{_COLUMN}}{count(tokens):>9} {share:>6.1%}"
        lines.append(Content.styled(sign, colour) + Content(numbers))
    lines.append(Content(f"  {'All':<{_COLUMN}}{count(shares.context):>9}"))
    return Content("\n").join(lines)
