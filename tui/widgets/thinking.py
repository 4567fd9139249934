"""The model's reasoning: its last lines or all of it while it thinks, one line when it has thought."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Final

from textual.app import ComposeResult, RenderResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.geometry import Size
from textual.timer import Timer
from textual.widget import Widget
from textual.widgets import Static

from tui.format import count, duration
from tui.preferences import ThinkingMode
from tui.widgets.thought import Thought

ANSWER_NOW: Final = ("Ctrl+G", "answer now")
TAIL_LINES: Final = 5
TAIL_CHARACTERS: Final = 2000
"""More than `TAIL_LINES` lines hold: the cost of painting does not grow with the thought."""


class ThinkingHeader(Static, can_focus=True):
    """The one line: folds and unfolds by click, Enter or Space."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("enter,space", "unfold", "Fold or unfold", show=False)]

    def on_click(self) -> None:
        self.action_unfold()

    def action_unfold(self) -> None:
        if isinstance(self.parent, ThinkingBlock):
            self.parent.toggle()


class Tail(Widget):
    """The last lines of a text that grows."""

    DEFAULT_CSS = "Tail { height: auto; }"

    text = ""

    def feed(self, text: str) -> None:
        """Add `text` at the end."""
        self.text = (self.text + text)[-TAIL_CHARACTERS:]
        # Once it has its full height, no layout is needed: that would cost time for all of the screen.
        self.refresh(layout=self.size.height < TAIL_LINES)

    def _last_lines(self, width: int) -> list[Content]:
        return Content(self.text.strip("\n")).wrap(max(width, 1))[-TAIL_LINES:]

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        return len(self._last_lines(width))

    def render(self) -> RenderResult:
        return Content("\n").join(self._last_lines(self.content_size.width))


class ThinkingBlock(Vertical):
    """Reasoning of one reply; shows nothing as long as there is none but white space.

    Live (`elapsed` is given) until `settle`: all of it in the mode "open", else its last lines; from then on
    folded, open or hidden, as `mode` says. Text must have gone through `clean`.
    """

    DEFAULT_CSS = """
    ThinkingBlock {
        height: auto;
        display: none;
        margin: 0 0 1 0;
        &.-some { display: block; }
        ThinkingHeader {
            width: auto;
            color: $text-muted;
            pointer: pointer;
            &:hover { color: $foreground; }
            &:focus { color: $primary; text-style: bold; }
        }
        .body {
            display: none;
            height: auto;
            padding: 0 0 0 1;
            margin: 0 0 0 0;
            border-left: outer $border-blurred;
            color: $text-muted;
        }
        &.-live Tail { display: block; }
        &.-open Tail { display: none; }
        &.-open Thought { display: block; }
        &.-folded .body { display: none; }
        &.-hidden { display: none; }
        &.-hidden.-live.-some { display: block; }
        &.-hidden .body { display: none; }
    }
    """

    def __init__(
        self,
        text: str = "",
        *,
        seconds: float = 0.0,
        tokens: int = 0,
        closed: str = "",
        elapsed: Callable[[], float] | None = None,
        mode: ThinkingMode = "folded",
    ) -> None:
        """`closed`: how the thinking was closed if not by the model, such as "closed by you"."""
        super().__init__()
        self._seconds = seconds
        self._tokens = tokens
        self._end = closed
        self._elapsed = elapsed
        self._mode: ThinkingMode = mode
        self._ticker: Timer | None = None
        self._line = ""
        self._header = ThinkingHeader(markup=False)
        self._tail = Tail(classes="body")
        self._whole = Thought(text, classes="body")

    @property
    def live(self) -> bool:
        """Whether the model is still thinking."""
        return self._elapsed is not None

    @property
    def folded(self) -> bool:
        """Whether only the one line is shown."""
        if self.has_class("-hidden"):
            return True
        return self.has_class("-folded") if self.live else not self.has_class("-open")

    def compose(self) -> ComposeResult:
        yield self._header
        yield self._tail
        yield self._whole

    def on_mount(self) -> None:
        self.set_class(bool(self._whole.source.strip()), "-some")
        self.set_class(self.live, "-live")
        self.show_as(self._mode)

    def show_as(self, mode: ThinkingMode) -> None:
        """Open, fold or hide it, as the user has set it for all of them."""
        self._mode = mode
        self.set_class(mode == "hidden", "-hidden")
        self.set_class(mode == "open", "-open")
        self._update_header()

    def feed(self, text: str, tokens: int) -> None:
        """Add what the model has thought since the last call; `tokens` counts all of it."""
        if not self.live:
            return
        self._tokens = tokens
        self._tail.feed(text)
        self._whole.add(text)
        if not self.has_class("-some") and self._tail.text.strip():
            self.add_class("-some")
            # Counts the seconds in which nothing comes; stops with the thinking.
            self._ticker = self.set_interval(1.0, self._update_header)
        self._update_header()

    def settle(self, seconds: float, tokens: int) -> None:
        """The model has thought: fold to one line."""
        if not self.live:
            return
        if self._ticker is not None:
            self._ticker.stop()
        self._seconds, self._tokens, self._elapsed = seconds, tokens, None
        folded_by_hand = self.has_class("-folded")
        self.set_class(bool(self._whole.source.strip()), "-some")
        self.remove_class("-live", "-folded")
        self.show_as(self._mode)
        if folded_by_hand:
            self.remove_class("-open")
            self._update_header()

    def say_closed(self, closed: str) -> None:
        """Say how the thinking was closed; the engine tells only when the reply has ended."""
        self._end = closed
        self._update_header()

    def toggle(self) -> None:
        """Fold or unfold; what is hidden is shown, while the model thinks by its last lines."""
        if self.has_class("-hidden"):
            self.remove_class("-hidden", "-folded")
            self.set_class(not self.live, "-open")
        else:
            self.toggle_class("-folded" if self.live else "-open")
        self._update_header()

    def _update_header(self) -> None:
        sign = "▸" if self.folded else "▾"
        if self._elapsed is not None:
            key, word = ANSWER_NOW
            line = Content(f"{sign} Thinking… {int(self._elapsed())} s · ") + Content.styled(key, "$primary")
            line += Content(f" {word}")
        else:
            parts = [f"{sign} Thought for {duration(self._seconds)}"]
            parts += [f"{count(self._tokens)} tokens"] if self._tokens else []
            line = Content(" · ".join([*parts, self._end] if self._end else parts))
        if line.plain != self._line:
            self._line = line.plain
            self._header.update(line)
