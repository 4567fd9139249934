"""What is being written and not sent: it belongs to its conversation, and is there after a restart."""

from __future__ import annotations

from typing import Final

from textual import on
from textual.timer import Timer
from textual.widgets import TextArea

from localai.chat.clean import clean, clean_line
from localai.chat.conversation import Attachment
from localai.errors import LocalAIError
from localai.history import Draft, History
from tui.preferences import Preferences
from tui.screens.parts import ChatParts
from tui.session import Session
from tui.widgets.composer import Composer
from tui.widgets.composer import Draft as Written

DRAFT_PAUSE_S: Final = 1.0
"""After so long a pause, what stands in the composer is stored."""


class DraftActions(ChatParts):
    """The part of the chat's screen that keeps what stands in the composer."""

    def __init__(self, session: Session, preferences: Preferences) -> None:
        super().__init__(session, preferences)
        self._draft_pause: Timer | None = None
        self._unstored: dict[tuple[History, str], Draft] = {}
        """Drafts that could not be stored: here they wait until the user comes back to them."""
        self._destination: str | None = None
        """Where the user is going: the key of the draft there; None: not known before one is there."""

    @on(TextArea.Changed, "Composer")
    @on(Composer.DraftChanged)
    def _draft_changed(self) -> None:
        if self._draft_pause is not None:
            self._draft_pause.stop()
        self._draft_pause = self.set_timer(DRAFT_PAUSE_S, self._draft_rests)

    def _draft_rests(self) -> None:
        if not self._going:
            self.store_draft()

    @property
    def draft_key(self) -> str:
        """The conversation that a draft belongs to; empty as long as that is not stored itself."""
        conversation = self.session.conversation
        return conversation.id if conversation.messages else ""

    def store_draft(self) -> None:
        """Store what is being written, so that it is there again after a restart.

        On the way to another conversation it goes behind what is stored there, and leaves the composer.
        """
        if self._draft_pause is not None:
            self._draft_pause.stop()
            self._draft_pause = None
        if self._going:
            self._send_ahead()
            return
        text, attachments = self._written
        self._put_draft(self.draft_key, clean(text), attachments)

    @property
    def _written(self) -> Written:
        """What is being written, without the message that is being edited."""
        return self._composer.draft if self._edit_notice.message_id is None else self._set_aside

    def _send_ahead(self) -> None:
        """Store what was typed on the way with the draft that waits there."""
        if self._destination is None or self._composer.draft == ("", ()):
            return
        try:
            draft = self._joined(self._destination)
        except LocalAIError as error:
            self._tell(error)
            return
        self._put_draft(self._destination, clean(draft.text), draft.attachments)
        self._composer.restore("")

    def _put_draft(self, key: str, text: str, attachments: tuple[Attachment, ...] = ()) -> None:
        history = self.session.history
        self._unstored.pop((history, key), None)
        try:
            history.put_draft(key, text, attachments)
        except LocalAIError as error:
            self._unstored[history, key] = Draft(text, attachments)
            self._notice("draft", clean_line(str(error)))

    def _set_draft_aside(self, destination: str | None) -> None:
        """Store what is being written: what is typed from now on belongs to where the user goes.

        `destination`: the key of the draft there. What was typed on a way that was given up comes along.
        """
        self._destination = destination
        if self._going:
            return
        self.store_draft()
        self._going = True
        self._edit_notice.show(None)
        self._composer.restore("")

    def restore_draft(self) -> None:
        """Go on with what was being written in this conversation."""
        try:
            draft = self._joined(self.draft_key)
        except LocalAIError as error:
            self._tell(error)
            return
        self._composer.restore(draft.text, draft.attachments)

    def _joined(self, key: str) -> Draft:
        """The stored draft of a conversation, and behind it what was typed on the way there."""
        history = self.session.history
        draft = self._unstored.get((history, key)) or history.draft(key)
        typed, attachments = self._composer.draft
        new = tuple(one for one in attachments if one not in draft.attachments)
        return Draft(draft.text + typed, draft.attachments + new)
