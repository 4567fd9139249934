"""Incognito: conversations that are only in memory, while the kept ones wait.

Contract: from `begin` to `end`, nothing that is written, sent or read by the engine touches the disk; at the
end all of it is gone. What the program itself remembers (such as its theme) is stored as ever.
"""

from __future__ import annotations

from contextlib import suppress

from localai.engine.states import StateCache
from localai.errors import LocalAIError
from localai.history import History, Kept
from tui.session import Session
from tui.warmer import States


class Incognito:
    """Takes a session away from its kept conversations, and back."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._kept: tuple[History, States, Kept] | None = None
        self._left = ""
        """The kept conversation that was open; empty if none was."""

    @property
    def is_on(self) -> bool:
        """Whether kept conversations wait."""
        return self._kept is not None

    @property
    def kept(self) -> tuple[History, States]:
        """The kept conversations and their states, whether they wait or not."""
        return self._kept[:2] if self._kept else (self._session.history, self._session.states)

    @property
    def conversations(self) -> int:
        """How many conversations the end would throw away."""
        return self._session.history.count()[0] if self.is_on else 0

    async def begin(self) -> None:
        """Go on in memory only, with an empty conversation and a copy of the presets."""
        session = self._session
        if self.is_on:
            return
        kept = (session.history, session.states, session.kept)
        self._left = session.conversation.id if session.conversation.messages else ""
        history = History(memory=True)
        with suppress(LocalAIError):
            for preset in session.history.presets():
                history.save_preset(preset)
        await session.move(history, StateCache(), "memory")
        self._kept = kept

    async def end(self) -> None:
        """Throw away what is in memory and go back to where `begin` was called.

        Raises HistoryError if that conversation cannot be read any more; a new one is then begun.
        """
        if self._kept is None:
            return
        gone = self._session.history
        await self._session.move(*self._kept)
        self._kept = None
        gone.close()
        if self._left:
            await self._session.open(self._left)
