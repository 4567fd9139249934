"""What a user does with whole conversations: begin, open, find, pin, rename, export, delete, bring back."""

from __future__ import annotations

import asyncio
import copy
from pathlib import Path
from typing import Final

from textual import on, work
from textual.timer import Timer
from textual.widgets import TextArea

from localai.chat.clean import clean
from localai.chat.conversation import Attachment, Conversation, title_of
from localai.errors import LocalAIError
from localai.history import Draft, History
from tui.format import count
from tui.incognito import Incognito
from tui.preferences import Preferences
from tui.screens.parts import ChatParts
from tui.screens.question import QuestionScreen
from tui.session import Session
from tui.widgets.composer import Composer
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
        self._incognito = Incognito(session)
        self._deleted: Conversation | None = None
        """What can still be brought back."""
        self._deleted_was_open = False
        self._deleted_from = session.history
        self._forget: Timer | None = None
        self._draft_pause: Timer | None = None
        self._unstored: dict[tuple[History, str], Draft] = {}
        """Drafts that could not be stored: here they wait until the user comes back to them."""
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
        self._tell_incognito()
        await self._show_conversation()
        self._refresh_list()
        self._refresh_status()
        self._going = False
        self.restore_draft()
        self._composer.focus()

    # ----------------------------------------------------------------------------------------- incognito

    def action_incognito(self) -> None:
        """F7: talk without leaving a trace; again: back to the kept conversations."""
        if self.session.history.in_memory and not self._incognito.is_on:
            self._say("Nothing is kept in this chat: it is incognito from its start.")
        else:
            self._switch_incognito()

    @work(group="navigate", exclusive=True)
    async def _switch_incognito(self) -> None:
        ends = self._incognito.is_on
        if ends and (written := self._incognito.conversations):
            many = f"{count(written)} conversations are" if written > 1 else "This conversation is"
            text = f"{many} only in memory and will be gone for good. X in the sidebar exports."
            question = QuestionScreen("Leave incognito?", text, yes="Throw away", no="Stay")
            if not await self.app.push_screen_wait(question):
                return
        self._set_draft_aside()
        await self._settle()
        try:
            await (self._incognito.end() if ends else self._incognito.begin())
        except LocalAIError as error:
            self._tell(error)
        await self._conversation_changed()

    def _tell_incognito(self) -> None:
        """Show, if that has changed, whether anything is kept."""
        in_memory = self.session.history.in_memory
        if in_memory == self._composer.memory_only:
            return
        self._composer.memory_only = in_memory
        self._sidebar.begin_with("Incognito" if in_memory else "Conversations")
        if in_memory:
            self._say("Incognito: nothing is kept. F7 goes back to your conversations.")
        else:
            self._keep_deleted(None)
            self._say("Back to your kept conversations.")

    # ----------------------------------------------------------------------------------------- the draft

    @on(TextArea.Changed, "Composer")
    @on(Composer.DraftChanged)
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
        text, attachments = self._set_aside if editing else self._composer.draft
        self._put_draft(self.draft_key, clean(text), attachments)

    def _put_draft(self, key: str, text: str, attachments: tuple[Attachment, ...] = ()) -> None:
        history = self.session.history
        self._unstored.pop((history, key), None)
        try:
            history.put_draft(key, text, attachments)
        except LocalAIError as error:
            self._unstored[history, key] = Draft(text, attachments)
            self._notice("draft", clean(str(error)))

    def _set_draft_aside(self) -> None:
        """Store what is being written: what is typed from now on belongs to where the user goes."""
        self.store_draft()
        self._going = True
        self._edit_notice.show(None)
        self._composer.restore("")

    def restore_draft(self) -> None:
        """Go on with what was being written in this conversation."""
        history, key = self.session.history, self.draft_key
        try:
            draft = self._unstored.get((history, key)) or history.draft(key)
        except LocalAIError as error:
            self._tell(error)
            return
        typed, attachments = self._composer.draft  # on the way here
        new = tuple(one for one in attachments if one not in draft.attachments)
        self._composer.restore(draft.text + typed, draft.attachments + new)

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
        self._refresh_list()  # from now on with all titles
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
        self._deleted_from = self.session.history
        self._forget = self.set_timer(UNDO_S, lambda: self._keep_deleted(None)) if conversation else None

    def action_undo_delete(self) -> None:
        """Store the conversation that was deleted last again."""
        conversation = self._deleted
        if conversation is None or self._deleted_from is not self.session.history:
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

    def delete_old(self) -> None:
        """Delete what is older than the user wants to keep."""
        if self.preferences.old():
            self.call_after_refresh(self._delete_old)

    @work(group="delete old", exclusive=True)
    async def _delete_old(self) -> None:
        history, states = self._incognito.kept
        try:
            for conversation_id in self.preferences.old():
                if conversation_id == self.session.conversation.id:
                    await self.session.delete(conversation_id)
                    await self._conversation_changed()
                else:
                    history.delete(conversation_id)
                    states.discard(conversation_id)
                await asyncio.sleep(0)
        except LocalAIError as error:
            self._tell(error)
        self._refresh_list()

    # -------------------------------------------------------------------------------------------- export

    def action_export(self) -> None:
        """Write the open conversation to a file that others can read."""
        conversation = self.session.conversation
        if conversation.messages:
            self._export(conversation.title, [conversation.id])
        else:
            self._say("There is nothing to export yet.")

    def action_export_all(self) -> None:
        """Write all conversations to one file."""
        self._export_wanted(ConversationList.ExportWanted())

    @on(ConversationList.ExportWanted)
    def _export_wanted(self, event: ConversationList.ExportWanted) -> None:
        try:
            found = self.session.history.summaries()
        except LocalAIError as error:
            self._tell(error)
            return
        some = [s for s in found if event.conversation_id in ("", s.id)]
        if event.conversation_id and some:
            self._export(some[0].title, [some[0].id])
        elif some:
            self._export("localai conversations", [s.id for s in some])
        else:
            self._say("There is nothing to export yet.")

    def _export(self, name: str, ids: list[str]) -> None:
        from tui.screens.export import ExportScreen, exported

        def tell(path: Path | None) -> None:
            if path is not None:
                self.notify(exported(path), timeout=12, markup=False)

        self.app.push_screen(ExportScreen(name, ids, self._loaded), tell)

    def _loaded(self, conversation_id: str) -> Conversation:
        """A conversation as it is stored; the one whose reply is in the making as it is right now."""
        if conversation_id == self.session.conversation.id and self.session.busy:
            return copy.deepcopy(self.session.conversation)
        return self.session.history.load(conversation_id)

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
