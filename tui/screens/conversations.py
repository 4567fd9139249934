"""What a user does with whole conversations: begin, open, find, pin, rename, delete and bring back."""

from __future__ import annotations

from typing import Final

from textual import on, work
from textual.timer import Timer
from textual.widgets import TextArea

from localai.chat.clean import clean
from localai.chat.conversation import Conversation, title_of
from localai.errors import LocalAIError
from tui.preferences import Preferences
from tui.screens.parts import ChatParts
from tui.session import Session
from tui.widgets.conversation_list import ConversationList

UNDO_S: Final = 10.0
"""How long a deleted conversation can be brought back."""
HITS: Final = 50
"""Matches in messages that are listed at most."""
DRAFT_PAUSE_S: Final = 1.0
"""After so long a pause, what stands in the composer is stored."""


class ConversationActions(ChatParts):
    """The part of the chat's screen that works on the conversations in the sidebar."""

    def __init__(self, session: Session, preferences: Preferences) -> None:
        super().__init__(session, preferences)
        self._deleted: Conversation | None = None
        """What can still be brought back."""
        self._deleted_was_open = False
        self._forget: Timer | None = None
        self._draft_pause: Timer | None = None
        self._going = False
        """Whether the user is on the way to another conversation: what is typed belongs to that one."""

    # -------------------------------------------------------------------------------------- go elsewhere

    def action_new_conversation(self) -> None:
        """Begin anew; a reply in the making is stopped."""
        self._set_draft_aside()
        self._go_to_new()

    @work(group="navigate", exclusive=True)
    async def _go_to_new(self) -> None:
        await self._settle()
        await self.session.new()
        await self._conversation_changed()

    @on(ConversationList.Opened)
    def _open(self, event: ConversationList.Opened) -> None:
        self.open_conversation(event.conversation_id, event.message_id)

    def open_conversation(self, conversation_id: str, message_id: str = "") -> None:
        """Show a stored conversation and go on with it; from that message, if one is given."""
        self._set_draft_aside()
        self._go_to(conversation_id, message_id)

    @work(group="navigate", exclusive=True)
    async def _go_to(self, conversation_id: str, message_id: str) -> None:
        if conversation_id != self.session.conversation.id:
            await self._settle()
            try:
                await self.session.open(conversation_id)
            except LocalAIError as error:
                self._tell(error)
        conversation = self.session.conversation
        if message_id in conversation.messages and message_id not in {m.id for m in conversation.branch()}:
            await self._settle()
            self.session.show(message_id)
        await self._conversation_changed()
        if message_id:
            await self._view.reveal(message_id)

    async def _conversation_changed(self) -> None:
        if not self._is_wide:
            self._sidebar_wanted = None
        self._place_sidebar()
        self._edit_notice.show(None)
        await self._show_conversation()
        self._refresh_list()
        self._refresh_status()
        self._going = False
        self.restore_draft()
        self._composer.focus()

    # ----------------------------------------------------------------------------------------- the draft

    @on(TextArea.Changed, "Composer")
    def _draft_changed(self) -> None:
        if self._draft_pause is not None:
            self._draft_pause.stop()
        self._draft_pause = self.set_timer(DRAFT_PAUSE_S, self.store_draft)

    @property
    def draft_key(self) -> str:
        """The conversation that a draft belongs to; empty as long as that is not stored itself."""
        conversation = self.session.conversation
        return conversation.id if conversation.messages else ""

    def store_draft(self) -> None:
        """Store what is being written, so that it is there again after a restart."""
        if self._going:
            return
        if self._draft_pause is not None:
            self._draft_pause.stop()
            self._draft_pause = None
        editing = self._edit_notice.message_id is not None
        text, _ = self._set_aside if editing else self._composer.draft
        self._put_draft(self.draft_key, clean(text))

    def _put_draft(self, key: str, text: str) -> None:
        try:
            self.session.history.put_draft(key, text)
        except LocalAIError as error:
            self._notice("draft", clean(str(error)))

    def _set_draft_aside(self) -> None:
        """Store what is being written: what is typed from now on belongs to where the user goes."""
        self.store_draft()
        self._going = True
        self._edit_notice.show(None)
        self._composer.restore("")

    def restore_draft(self) -> None:
        """Go on with what was being written in this conversation."""
        try:
            text = self.session.history.draft(self.draft_key)
        except LocalAIError as error:
            self._tell(error)
            return
        typed, attachments = self._composer.draft  # on the way here
        self._composer.restore(text + typed, attachments)

    # ------------------------------------------------------------------------------------------- changes

    @on(ConversationList.PinWanted)
    def _pin(self, event: ConversationList.PinWanted) -> None:
        try:
            self.session.pin(event.conversation_id, event.pinned)
        except LocalAIError as error:
            self._tell(error)
        self._refresh_list()

    @on(ConversationList.Renamed)
    def _rename(self, event: ConversationList.Renamed) -> None:
        try:
            self.session.rename(event.conversation_id, title_of(event.title))
        except LocalAIError as error:
            self._tell(error)
        self._refresh_list()

    @on(ConversationList.SearchWanted)
    def _search(self, event: ConversationList.SearchWanted) -> None:
        try:
            hits = self.session.history.search(event.query, HITS)
        except LocalAIError as error:
            self._tell(error)
            return
        self._sidebar.show_hits(event.query, hits)

    # ------------------------------------------------------------------------------------ delete and back

    @on(ConversationList.DeleteWanted)
    def _delete(self, event: ConversationList.DeleteWanted) -> None:
        self.delete_conversation(event.conversation_id, event.title)

    @work(group="navigate", exclusive=True)
    async def delete_conversation(self, conversation_id: str, title: str) -> None:
        """Erase a conversation from the disk; for some seconds it can be brought back from memory."""
        is_open = conversation_id == self.session.conversation.id
        if is_open:
            await self._settle()
        try:
            deleted = self.session.history.load(conversation_id)
            await self.session.delete(conversation_id)
        except LocalAIError as error:
            self._tell(error)
        else:
            self._keep_deleted(deleted, is_open)
            self.notify(f"Deleted “{title}” · Ctrl+Z brings it back", timeout=UNDO_S, markup=False)
        if is_open:
            await self._show_conversation()
        self._refresh_list()
        self._refresh_status()

    def _keep_deleted(self, conversation: Conversation | None, was_open: bool = False) -> None:
        if self._forget is not None:
            self._forget.stop()
        self._deleted, self._deleted_was_open = conversation, was_open
        self._forget = self.set_timer(UNDO_S, lambda: self._keep_deleted(None)) if conversation else None

    def action_undo_delete(self) -> None:
        """Store the conversation that was deleted last again."""
        if (conversation := self._deleted) is None:
            return
        was_open = self._deleted_was_open
        try:
            self.session.history.save(conversation)
        except LocalAIError as error:
            self._tell(error)
            return
        self._keep_deleted(None)
        if was_open and not self.session.conversation.messages:
            self.open_conversation(conversation.id)
        else:
            self._refresh_list()

    # --------------------------------------------------------------------------------------- the sidebar

    def action_toggle_sidebar(self) -> None:
        """Show the conversations and go to them; from there, hide them."""
        if self._sidebar.display and self._sidebar.has_focus_within:
            self._sidebar_wanted = False
            self._composer.focus()
        else:
            self._show_sidebar()
        self._place_sidebar()
        if self._sidebar.display:
            self._sidebar.focus_list()

    def action_search_conversations(self) -> None:
        """Show the conversations and go to their search."""
        self._show_sidebar()
        self._place_sidebar()
        self._sidebar.action_search()

    def _show_sidebar(self) -> None:
        self._sidebar_wanted = True
        self._refresh_list()
