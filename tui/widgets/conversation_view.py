"""The conversation: a column of messages, at the bottom as long as the reader has not scrolled up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Static

from localai.chat.conversation import Message
from tui.preferences import ThinkingMode
from tui.turn import Turn
from tui.widgets.assistant_message import AssistantMessage
from tui.widgets.ground import Column, Ground
from tui.widgets.message import ONLY, MessageWidget, Place
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
        await view.column.mount_all([*above, *map(view.widget_of, shown)], before=self)
        await self.remove()


class ConversationView(VerticalScroll, Ground):
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
            padding: 1 1 0 2;
        }
        Earlier {
            width: 1fr;
            content-align: center middle;
            color: $text-muted;
            pointer: pointer;
            margin: 0 0 1 0;
            &:hover { color: $foreground; }
        }
        &.-empty > .column { align-vertical: middle; }
    }
    """

    def __init__(self, place_of: Callable[[Message], Place] = lambda message: ONLY) -> None:
        """`place_of` says which of its branches a message is, and how many there are."""
        super().__init__()
        self.column = Column(classes="column")
        self._place_of = place_of
        self._thoughts: ThinkingMode = "folded"
        self._to_reveal: MessageWidget | None = None
        """The message to scroll to as soon as it has a place: what was just mounted has none."""

    def compose(self) -> ComposeResult:
        yield self.column

    def on_mount(self) -> None:
        laid_out = self.screen.screen_layout_refresh_signal
        laid_out.subscribe(self, lambda screen: self._scroll_to_revealed(), immediate=True)

    @property
    def messages(self) -> list[MessageWidget]:
        """The messages on the screen, the last one last."""
        return [w for w in self.column.children if isinstance(w, MessageWidget)]

    def widget_of(self, message: Message) -> Widget:
        """The widget that shows a stored message."""
        place = self._place_of(message)
        if message.role == "user":
            return UserMessage(message, place)
        return AssistantMessage(message, place=place, thoughts=self._thoughts)

    async def show(self, messages: list[Message], placeholder: Widget | None = None) -> None:
        """Replace what is shown: the messages, from their end, or the placeholder if there are none."""
        self._to_reveal = None
        hidden, shown = messages[:-AT_ONCE], messages[-AT_ONCE:]
        parts: list[Widget] = [*([Earlier(hidden)] if hidden else []), *map(self.widget_of, shown)]
        if not parts and placeholder is not None:
            parts = [placeholder]
        with self.app.batch_update():
            await self.column.remove_children()
            await self.column.mount_all(parts)
        self.set_class(not messages, "-empty")
        self.anchor(bool(messages))

    async def change(self, messages: list[Message]) -> None:
        """Show another branch: what it has in common with the shown one stays as it is."""
        shown = self.messages
        ids = [message.id for message in messages]
        first = ids.index(shown[0].message.id) if shown and shown[0].message.id in ids else len(ids)
        same = 0
        for widget, wanted in zip(shown, ids[first:], strict=False):
            if widget.message.id != wanted:
                break
            same += 1
        coming = messages[first + same :]
        if not same or len(coming) > AT_ONCE:
            await self.show(messages)
            return
        with self.app.batch_update():
            await self.column.remove_children(shown[same:])
            await self.column.mount_all([self.widget_of(message) for message in coming])

    async def ask(self, message: Message) -> None:
        """Show the user's new message, and the end of the conversation."""
        if self.has_class("-empty"):
            await self.column.remove_children()
            self.remove_class("-empty")
        await self.column.mount(self.widget_of(message))
        self.anchor()
        await self._trim()

    async def reply(self, turn: Turn, on_paint: Callable[[], None]) -> None:
        """Show a reply as it comes, until it has ended."""
        shown = AssistantMessage(turn.message, turn, self._place_of(turn.message), self._thoughts)
        await self.column.mount(shown)
        await shown.follow(turn, on_paint)

    async def _trim(self) -> None:
        """Let go of early messages when a conversation has grown to twice of what is shown at once."""
        shown = self.messages
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

    # ------------------------------------------------------------------------------ the selected message

    @property
    def selected(self) -> MessageWidget | None:
        """The message that has the focus, or a part of it."""
        for widget in self.messages:
            if widget.has_focus or widget.has_focus_within:
                return widget
        return None

    async def select(self, step: int) -> bool:
        """Select the message `step` further, or the last one; False if there is none further down."""
        shown, selected = self.messages, self.selected
        if not shown:
            return False
        if selected is None:
            shown[-1].focus()
            return True
        at = shown.index(selected) + step
        if at < 0 and (earlier := self.column.query_children(Earlier)):
            await earlier.first().on_click()
            shown = self.messages
            at = shown.index(selected) + step
        if at >= len(shown):
            return False
        shown[max(at, 0)].focus()
        return True

    async def reveal(self, message_id: str) -> None:
        """Select a message and scroll to its beginning; nothing if the branch does not have it."""
        while earlier := self.column.query_children(Earlier):
            if all(message.id != message_id for message in earlier.first().messages):
                break
            await earlier.first().on_click()
        for widget in self.messages:
            if widget.message.id == message_id:
                self.anchor(False)
                widget.focus(scroll_visible=False)
                self._to_reveal = widget
                self._scroll_to_revealed()

    def _scroll_to_revealed(self) -> None:
        """Scroll to the message that is to be revealed, once; nothing until it is laid out."""
        if self._to_reveal is None or not self._to_reveal.virtual_region.size:
            return
        widget, self._to_reveal = self._to_reveal, None
        self.scroll_to_widget(widget, animate=False, top=True, immediate=True)

    def show_thoughts(self, mode: ThinkingMode) -> None:
        """Show all thoughts so, those to come too."""
        if mode != self._thoughts:
            self._thoughts = mode
            for block in self.query(ThinkingBlock):
                block.show_as(mode)

    def last_thinking(self) -> ThinkingBlock | None:
        """The thinking block of the selected reply, or else of the latest one that has one to show."""
        selected = self.selected
        where: Widget = selected if isinstance(selected, AssistantMessage) else self
        blocks = [block for block in where.query(ThinkingBlock) if block.has_class("-some")]
        return blocks[-1] if blocks else None
