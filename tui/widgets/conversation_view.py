"""The conversation: a column of messages, at the bottom as long as the reader has not scrolled up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from textual.app import ComposeResult
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Static

from localai.chat.conversation import Message
from tui.turn import Turn
from tui.widgets.assistant_message import AssistantMessage
from tui.widgets.thinking import ThinkingBlock
from tui.widgets.user_message import UserMessage

AT_ONCE: Final = 16
"""Messages that are shown when a conversation is opened; the earlier ones on demand.

To open, and to paint a reply that streams, takes Textual time in proportion to all that is on the screen.
"""


class Earlier(Static):
    """Stands for the messages before the first that is shown; a click shows more of them."""

    def __init__(self, messages: list[Message]) -> None:
        super().__init__(Content(f"▴ Show earlier messages ({len(messages)})"), markup=False)
        self.messages = messages

    async def on_click(self) -> None:
        """Put the latest of the hidden messages in this place, and itself before them."""
        hidden, shown = self.messages[:-AT_ONCE], self.messages[-AT_ONCE:]
        view = self.query_ancestor(ConversationView)
        above: list[Widget] = [Earlier(hidden)] if hidden else []
        await view.column.mount_all([*above, *map(widget_of, shown)], before=self)
        await self.remove()


class ConversationView(VerticalScroll):
    """Shows one branch of a conversation, or whatever stands in its place."""

    DEFAULT_CSS = """
    ConversationView {
        align-horizontal: center;
        scrollbar-size-vertical: 1;
        scrollbar-gutter: stable;
        & > .column {
            width: 100%;
            max-width: 100;
            height: auto;
            /* An anchored view that is not full would otherwise stand at the bottom. */
            min-height: 100%;
            padding: 0 1 1 2;
        }
        Earlier {
            width: 1fr;
            content-align: center middle;
            color: $text-muted;
            pointer: pointer;
            margin: 1 0 0 0;
            &:hover { color: $foreground; }
        }
        &.-empty > .column { align-vertical: middle; }
    }
    """

    def __init__(self) -> None:
        super().__init__()
        self.column = Vertical(classes="column")

    def compose(self) -> ComposeResult:
        yield self.column

    async def show(self, messages: list[Message], placeholder: Widget) -> None:
        """Replace what is shown: the messages, from their end, or the placeholder if there are none."""
        hidden, shown = messages[:-AT_ONCE], messages[-AT_ONCE:]
        parts: list[Widget] = [*([Earlier(hidden)] if hidden else []), *map(widget_of, shown)]
        with self.app.batch_update():
            await self.column.remove_children()
            await self.column.mount_all(parts or [placeholder])
        self.set_class(not parts, "-empty")
        self.anchor(bool(parts))

    async def ask(self, message: Message) -> None:
        """Show the user's new message, and the end of the conversation."""
        if self.has_class("-empty"):
            await self.column.remove_children()
            self.remove_class("-empty")
        await self.column.mount(UserMessage(message))
        self.anchor()
        await self._trim()

    async def reply(self, turn: Turn, on_paint: Callable[[], None]) -> None:
        """Show a reply as it comes, until it has ended."""
        shown = AssistantMessage(turn.message, turn)
        await self.column.mount(shown)
        await shown.follow(turn, on_paint)

    async def drop_last_reply(self) -> None:
        """Take the last reply off the screen: another one takes its place."""
        if self.column.children and isinstance(last := self.column.children[-1], AssistantMessage):
            await last.remove()
        self.anchor()

    async def _trim(self) -> None:
        """Let go of early messages when a conversation has grown to twice of what is shown at once."""
        shown = [w for w in self.column.children if isinstance(w, UserMessage | AssistantMessage)]
        if len(shown) <= 2 * AT_ONCE:
            return
        leaving: list[Widget] = [*shown[:-AT_ONCE]]
        hidden = [w.message for w in shown[:-AT_ONCE]]
        for earlier in self.column.query_children(Earlier):
            hidden = earlier.messages + hidden
            leaving.append(earlier)
        with self.app.batch_update():
            await self.column.remove_children(leaving)
            await self.column.mount(Earlier(hidden), before=0)

    def last_thinking(self) -> ThinkingBlock | None:
        """The thinking block of the latest reply that has one to show."""
        blocks = [block for block in self.query(ThinkingBlock) if block.has_class("-some")]
        return blocks[-1] if blocks else None


def widget_of(message: Message) -> Widget:
    """The widget that shows a stored message."""
    return UserMessage(message) if message.role == "user" else AssistantMessage(message)
