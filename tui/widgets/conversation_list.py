"""The sidebar: the stored conversations, by day."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.message import Message
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from localai.chat.clean import clean
from localai.history import Summary
from tui.format import day


class ConversationList(Vertical):
    """Lists conversations; says which one the user wants to open or delete."""

    DEFAULT_CSS = """
    ConversationList {
        width: 32;
        background: $surface;
        padding: 1 0 0 0;
        & > .heading { padding: 0 2; text-style: bold; color: $foreground; height: 2; }
        & > .hint { padding: 0 2; color: $text-muted; height: auto; margin: 1 0 0 0; }
        OptionList {
            height: 1fr;
            padding: 0;
            border: none;
            background: transparent;
            scrollbar-size-vertical: 1;
            text-wrap: nowrap;
            text-overflow: ellipsis;
            & > .option-list--option { padding: 0 2; }
            & > .option-list--option-disabled { color: $text-disabled; }
            &:focus { border: none; background-tint: transparent; }
        }
    }
    """

    BINDINGS: ClassVar[list[BindingType]] = [Binding("delete,d", "delete", "Delete", show=False)]

    class Opened(Message):
        """The user wants to read a conversation."""

        def __init__(self, conversation_id: str) -> None:
            super().__init__()
            self.conversation_id = conversation_id

    class DeleteWanted(Message):
        """The user wants to delete a conversation."""

        def __init__(self, conversation_id: str, title: str) -> None:
            super().__init__()
            self.conversation_id = conversation_id
            self.title = title

    def __init__(self) -> None:
        super().__init__()
        self._list = OptionList(markup=False)
        self._titles: dict[str, str] = {}

    def compose(self) -> ComposeResult:
        yield Static("Conversations", classes="heading", markup=False)
        yield self._list
        yield Static("Enter opens · Del deletes", classes="hint", markup=False)

    def show(self, summaries: Sequence[Summary], current: str, now: float) -> None:
        """List the conversations, the open one highlighted."""
        self._titles = {s.id: clean(s.title) or "Untitled" for s in summaries}
        options: list[Option] = []
        heading = ""
        for summary in summaries:
            if (label := day(summary.updated, now)) != heading:
                # The first heading needs no distance to the title above it.
                options += [Option("", disabled=True)] if heading else []
                options.append(Option(Content.styled(label, "bold"), disabled=True))
                heading = label
            options.append(Option(Content(self._titles[summary.id]), id=summary.id))
        self._list.set_options(options or [Option("None yet", disabled=True)])
        if current in self._titles:
            self._list.highlighted = self._list.get_option_index(current)

    def focus_list(self) -> None:
        """Give the keyboard to the list."""
        if self._list.highlighted is None:
            self._list.action_cursor_down()
        self._list.focus()

    @on(OptionList.OptionSelected)
    def _open(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        if event.option.id is not None:
            self.post_message(self.Opened(event.option.id))

    def action_delete(self) -> None:
        option = self._list.highlighted_option
        if option is not None and option.id is not None:
            self.post_message(self.DeleteWanted(option.id, self._titles[option.id]))
