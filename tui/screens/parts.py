"""What all of the chat's screen is made of: its widgets, and what keeps them in step with the session."""

from __future__ import annotations

import asyncio
from typing import Final

from textual.screen import Screen

from localai.chat.clean import clean, clean_line
from localai.errors import LocalAIError
from tui.outcome import loop_keys
from tui.preferences import Preferences
from tui.session import Session
from tui.status import status_of
from tui.turn import Turn
from tui.widgets.composer import Composer, Draft
from tui.widgets.conversation_list import AT_MOST, ConversationList
from tui.widgets.conversation_view import ConversationView
from tui.widgets.edit_notice import EditNotice
from tui.widgets.load_failure import LoadFailure
from tui.widgets.status_line import NEARLY_FULL, StatusLine
from tui.widgets.welcome import Welcome

WIDE: Final = 110
"""Cells from which on the conversations have a place of their own."""
TOLD_S: Final = 12.0
"""How long an error is shown."""
STATUS_EVERY_S: Final = 0.25
"""While a reply comes, its numbers need not be written as often as its words."""


class ChatParts(Screen[None]):
    """The widgets and the session. What the user does stands in the classes that build on it."""

    def __init__(self, session: Session, preferences: Preferences) -> None:
        super().__init__()
        self.session = session
        self.preferences = preferences
        self._view = ConversationView(session.place_of)
        self._failure = LoadFailure()
        self._edit_notice = EditNotice()
        self._composer = Composer()
        self._sidebar = ConversationList()
        self._status = StatusLine()
        self._shown: asyncio.Event | None = None
        """Set when the latest reply is on the screen to its end."""
        self._sidebar_wanted: bool | None = None
        """What the user chose; None: shown where there is room."""
        self._going = False
        """Whether the user is on the way to another conversation: what is typed belongs to that one, and
        what one does with messages is of no use any more."""
        self._set_aside: Draft = ("", ())
        """What was in the composer before an edit began."""
        self._status_was = ("", 0.0)
        """The phase of the reply that the status line was last written for, and when."""
        self._told: dict[str, float] = {}
        """The latest error, and when it was shown."""
        self._noticed: set[str] = set()
        """Notices that were given and need no repetition."""

    @property
    def _is_wide(self) -> bool:
        return self.size.width >= WIDE

    def _place_sidebar(self) -> None:
        wanted = self._is_wide if self._sidebar_wanted is None else self._sidebar_wanted
        self._sidebar.display = wanted

    # ------------------------------------------------------------------------------------------- a reply

    def _follow(self, turn: Turn) -> None:
        before, self._shown = self._shown, asyncio.Event()
        self.run_worker(self._show_reply(turn, before, self._shown), group="reply")

    async def _show_reply(self, turn: Turn, before: asyncio.Event | None, shown: asyncio.Event) -> None:
        """Show a reply as it comes, after the one before it has been shown to its end.

        Events and not Textual's workers say when: waiting for a worker cancels it when the waiter is.
        """
        try:
            if before is not None:
                await before.wait()
            await self._view.reply(turn, lambda: self._painted(turn))
            self._refresh_status()
            self._reply_shown(turn)
            self._composer.tell_draft()  # it may have been written while the reply came
        finally:
            shown.set()

    def _reply_shown(self, turn: Turn) -> None:
        loaded = self.session.loader.loaded
        if loaded and turn.context_used > NEARLY_FULL * loaded.context:
            text = "The context is nearly full. Ctrl+N begins a new conversation."
            self._notice(f"context {self.session.conversation.id}", text)

    def _painted(self, turn: Turn) -> None:
        phase, since = self._status_was
        if turn.phase != phase or self.session.clock() - since >= STATUS_EVERY_S:
            self._status_was = (turn.phase, self.session.clock())
            self._refresh_status()
        if turn.looping is not None:
            text = f"The reply repeats itself. {loop_keys(turn.looping)}"
            self._notice(f"loop {turn.message.id} {turn.looping.part}", text)

    async def _settle(self) -> None:
        """Stop the reply and wait until the screen shows its end."""
        await self.session.stop()
        if self._shown is not None:
            await self._shown.wait()

    # ---------------------------------------------------------------------------------------- refreshing

    async def _show_conversation(self) -> None:
        branch = self.session.conversation.branch()
        self._remember_prompts()
        await self._view.show(branch, Welcome(self.session.loader.entry))

    def _remember_prompts(self) -> None:
        branch = self.session.conversation.branch()
        self._composer.prompts = [clean(m.content) for m in branch if m.role == "user"]

    def _refresh_list(self) -> None:
        history = self.session.history
        try:
            summaries = history.summaries(None if self._sidebar.searching else AT_MOST)
            count = history.count()[0]
        except LocalAIError as error:
            self._tell(error)
            return
        self._sidebar.show(summaries, self.session.conversation.id, self.session.now(), count)

    def _refresh_status(self) -> None:
        self._status.status = status_of(self.session)

    # ---------------------------------------------------------------------------------------- saying so

    def _say(self, text: str) -> None:
        self.notify(text, timeout=4, markup=False)

    def _notice(self, key: str, text: str) -> None:
        if key not in self._noticed:
            self._noticed.add(key)
            self.notify(text, severity="warning", timeout=10, markup=False)

    def _tell(self, error: LocalAIError) -> None:
        """Show an error, but not twice at a time: a full disk says the same of each draft."""
        text, now = clean_line(str(error)), self.session.clock()
        if now - self._told.get(text, -TOLD_S) >= TOLD_S:
            self._told = {text: now}
            self.notify(text, severity="error", timeout=TOLD_S, markup=False)
