"""What a user does with whole conversations: begin, open, find, pin, rename, export, delete, bring back."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, NamedTuple

from textual import on, work
from textual.timer import Timer

from localai import policy
from localai.chat.conversation import Conversation, title_of
from localai.errors import LocalAIError
from localai.history import Draft, History
from tui.format import count
from tui.incognito import Incognito
from tui.preferences import Preferences
from tui.screens.drafts import DraftActions
from tui.screens.question import QuestionScreen
from tui.session import Session
from tui.widgets.conversation_list import ConversationList

UNDO_S: Final = 10.0
"""How long a deleted conversation can be brought back."""
HITS: Final = 50
"""Matches in messages that are listed at most."""


class Deleted(NamedTuple):
    """A conversation that is no longer stored."""

    conversation: Conversation
    draft: Draft
    was_open: bool
    history: History
    """Where it was."""


class ConversationActions(DraftActions):
    """The part of the chat's screen that works on the conversations in the sidebar."""

    def __init__(self, session: Session, preferences: Preferences) -> None:
        super().__init__(session, preferences)
        self._incognito = Incognito(session)
        self._deleted: Deleted | None = None
        """What can still be brought back."""
        self._forget: Timer | None = None
        self._way = asyncio.Lock()
        """Who changes the open conversation holds it until the screen shows that."""
        self._keep_days: int | None = None
        """How long conversations are kept, as far as the old ones have been deleted."""

    # -------------------------------------------------------------------------------------- go elsewhere

    def action_new_conversation(self) -> None:
        """Begin anew; a reply in the making is stopped."""
        self._set_draft_aside("")
        self._go_to_new()

    @work(group="navigate", exclusive=True)
    async def _go_to_new(self) -> None:
        async with self._on_the_way(""):
            await self._settle()
            await self.session.new()

    @on(ConversationList.Opened)
    def _open(self, event: ConversationList.Opened) -> None:
        self.open_conversation(event.conversation_id, event.message_id)

    def open_conversation(self, conversation_id: str, message_id: str = "") -> None:
        """Show a stored conversation and go on with it; from that message, if one is given."""
        self._set_draft_aside(conversation_id)
        self._go_to(conversation_id, message_id)

    @work(group="navigate", exclusive=True)
    async def _go_to(self, conversation_id: str, message_id: str) -> None:
        async with self._on_the_way(conversation_id):
            if conversation_id != self.session.conversation.id:
                await self._settle()
                await self.session.open(conversation_id)
            branch = {message.id for message in self.session.conversation.branch()}
            if message_id in self.session.conversation.messages and message_id not in branch:
                await self._settle()
                self.session.show(message_id)
        if message_id:
            await self._view.reveal(message_id)

    @asynccontextmanager
    async def _on_the_way(self, destination: str | None, *, to_composer: bool = True) -> AsyncIterator[None]:
        """Inside, the open conversation is changed; an error is told. Then the screen shows where one is.

        One way ends before the next begins. One that is cancelled leaves the rest to the next.
        """
        async with self._way:
            self._set_draft_aside(destination)  # the way before may have restored one
            try:
                yield
            except LocalAIError as error:
                self._tell(error)
            if to_composer and not self._is_wide:
                self._sidebar_wanted = None
            self._place_sidebar()
            self._edit_notice.show(None)
            self._tell_incognito()
            await self._show_conversation()
            self._refresh_list()
            self._refresh_status()
            self._going = False
            self.restore_draft()
            if to_composer:
                self._composer.focus()

    # ----------------------------------------------------------------------------------------- incognito

    def action_incognito(self) -> None:
        """F7: talk without leaving a trace; again: back to the kept conversations."""
        if self.session.history.in_memory and not self._incognito.is_on:
            whose = "as your organization wants it" if policy.current().has("require.incognito") else ""
            self._say(f"Nothing is kept in this chat: it is incognito from its start{whose and ', '}{whose}.")
        else:
            self._switch_incognito()

    @work(group="incognito", exclusive=True)
    async def _switch_incognito(self) -> None:
        if written := self._incognito.conversations:
            many = f"{count(written)} conversations are" if written > 1 else "This conversation is"
            text = f"{many} only in memory and will be gone for good. X in the sidebar exports."
            question = QuestionScreen("Leave incognito?", text, yes="Throw away", no="Stay")
            if not await self.app.push_screen_wait(question):
                return
        self._set_draft_aside(None)
        self._cross()

    @work(group="navigate", exclusive=True)
    async def _cross(self) -> None:
        async with self._on_the_way(None):
            await self._settle()
            await (self._incognito.end() if self._incognito.is_on else self._incognito.begin())

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
            self._forget_deleted()
            self._say("Back to your kept conversations.")

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

    def delete_conversation(self, conversation_id: str, title: str) -> None:
        """Erase a conversation from the disk; for some seconds it can be brought back from memory."""
        if conversation_id == self.session.conversation.id and not self._going:
            self.workers.cancel_group(self, "navigate")  # there is no other reply to be had in it
            self._set_draft_aside("")
        self._delete_one(conversation_id, title)

    @work(group="delete")
    async def _delete_one(self, conversation_id: str, title: str) -> None:
        if conversation_id == self.session.conversation.id:
            async with self._on_the_way("", to_composer=False):
                if conversation_id == self.session.conversation.id:
                    await self._settle()
                await self._erase(conversation_id, title)
            return
        try:
            await self._erase(conversation_id, title)
        except LocalAIError as error:
            self._tell(error)
        self._refresh_list()

    async def _erase(self, conversation_id: str, title: str) -> None:
        history = self.session.history
        was_open = conversation_id == self.session.conversation.id
        conversation, draft = history.load(conversation_id), history.draft(conversation_id)
        draft = self._unstored.pop((history, conversation_id), draft)
        await self.session.delete(conversation_id)
        self._forget_deleted()
        self._deleted = Deleted(conversation, draft, was_open, history)
        self._forget = self.set_timer(UNDO_S, self._forget_deleted)
        self.notify(f"Deleted “{title}” · Ctrl+Z brings it back", timeout=UNDO_S, markup=False)

    def _forget_deleted(self) -> None:
        if self._forget is not None:
            self._forget.stop()
        self._deleted = None

    @property
    def _can_undo(self) -> bool:
        """Whether a conversation can be brought back to where it was."""
        return self._deleted is not None and self._deleted.history is self.session.history

    def action_undo_delete(self) -> None:
        """Store the conversation that was deleted last again."""
        if self._deleted is None or not self._can_undo:
            return
        conversation, draft, was_open, history = self._deleted
        try:
            history.save(conversation, kept_from=self.session.now())
        except LocalAIError as error:
            self._tell(error)
            return
        self._put_draft(conversation.id, draft.text, draft.attachments)
        self._forget_deleted()
        if was_open and not self.session.conversation.messages:
            self.open_conversation(conversation.id)
        else:
            self._refresh_list()

    def delete_old(self) -> None:
        """Delete what is older than the user wants to keep: at the start, and when that has changed."""
        before, self._keep_days = self._keep_days, self.preferences.keep_days
        if before != self._keep_days and self.preferences.old():
            self.call_after_refresh(self._delete_old)

    @work(group="delete old", exclusive=True)
    async def _delete_old(self) -> None:
        history, states = self._incognito.kept
        try:
            for conversation_id in self.preferences.old():
                if conversation_id == self.session.conversation.id:
                    written = self._written
                    async with self._on_the_way(""):
                        await self.session.delete(conversation_id)
                        self._composer.restore(*written)  # who writes just now can go on
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
        from localai.history.export import check_allowed
        from tui.screens.export import ExportScreen, exported

        try:
            check_allowed()
        except LocalAIError as error:
            self._tell(error)
            return

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
            self.set_focus(self._composer)  # at once: in the list, letters are commands
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
