"""The conversation does not fit into the context: what can be done, as choices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from localai.chat.budget import Offer, describe
from localai.chat.clean import clean_line
from localai.chat.messages import ChatMessage
from localai.engine.protocol import Overflow
from tui.format import count
from tui.screens.modal import Modal


class OverflowScreen(Modal[Offer | None]):
    """Gives the offer that the user takes; None: all stays as it is, and nothing is sent."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "dismiss(None)", "Leave it", show=False)]

    def __init__(self, overflow: Overflow, prompt: Sequence[ChatMessage]) -> None:
        super().__init__(classes="modal")
        self._overflow = overflow
        self._prompt = prompt
        self._list = OptionList(markup=False, classes="wrapping")

    def compose(self) -> ComposeResult:
        overflow = self._overflow
        what = (
            f"The conversation has {count(overflow.prompt_tokens)} tokens, the context holds "
            f"{count(overflow.context)}, and a reply needs room: {count(overflow.over)} tokens are too many. "
            "Your message is stored."
        )
        with Vertical(classes="box") as box:
            box.border_title = "No room for a reply"
            box.border_subtitle = "Enter chooses · Esc leaves it as it is"
            yield Static(Content(what), markup=False, classes="hint")
            yield self._list
            yield Static("", markup=False)

    def on_mount(self) -> None:
        words = [clean_line(describe(offer, self._prompt)) for offer in self._overflow.offers]
        options = [Option(f"{text[:1].upper()}{text[1:]}", id=f"{n}") for n, text in enumerate(words)]
        self._list.set_options([*options, Option("Leave it as it is", id="none")])
        self._list.highlighted = 0
        self._list.focus()

    @on(OptionList.OptionSelected)
    def _chosen(self, event: OptionList.OptionSelected) -> None:
        chosen = event.option.id or "none"
        self.dismiss(None if chosen == "none" else self._overflow.offers[int(chosen)])
