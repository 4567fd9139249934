"""What the screen works on: the open conversation, the reply in the making, the model, the store.

Knows nothing of a screen. One reply at a time; opening or beginning another conversation stops it first.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final

from localai.chat.conversation import Conversation, Message
from localai.engine.client import Engine, LoadOptions
from localai.engine.protocol import Sampling
from localai.errors import LocalAIError
from localai.history import History
from tui.loader import Loader
from tui.shelf import ModelShelf
from tui.turn import Turn

PATIENCE_S: Final = 3.0
"""How long the end of the program waits for the engine to stop, and again for it to close."""


class Session:
    """One user at one screen."""

    def __init__(
        self,
        engine: Engine,
        history: History,
        models: ModelShelf,
        *,
        load_options: LoadOptions = LoadOptions(),
        system: str = "",
        sampling: Sampling = Sampling(),
        max_tokens: int | None = None,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`clock` measures durations, `now` dates messages; both in seconds."""
        self.engine = engine
        self.history = history
        self.models = models
        self.system = system
        self.max_tokens = max_tokens
        self.clock = clock
        self.now = now
        self.loader = Loader(engine, models, load_options, sampling)
        self.turn: Turn | None = None
        self.on_unstored: Callable[[LocalAIError], None] = lambda error: None
        self.conversation = self._empty()

    @property
    def busy(self) -> bool:
        """Whether a reply is in the making."""
        return self.turn is not None and self.turn.phase != "done"

    # ------------------------------------------------------------------------------------ conversations

    async def new(self) -> None:
        """Begin an empty conversation. It is stored with its first message."""
        await self.stop()
        self.turn = None
        self.conversation = self._empty()

    async def open(self, conversation_id: str) -> None:
        """Go on with a stored conversation."""
        await self.stop()
        self.conversation = self.history.load(conversation_id)
        self.turn = None

    async def delete(self, conversation_id: str) -> None:
        """Delete a stored conversation; if it is the open one, an empty one takes its place."""
        if conversation_id == self.conversation.id:
            await self.stop()
        self.history.delete(conversation_id)
        if conversation_id == self.conversation.id:
            await self.new()

    def choose(self, name: str) -> None:
        """Load another model; the conversation goes on with it. No reply may be in the making."""
        self.loader.start(name)
        self.conversation.model = name
        if self.conversation.messages:
            self.history.save(self.conversation)

    # ----------------------------------------------------------------------------------------- messages

    def ask(self, text: str) -> Turn:
        """Store the user's message, then begin the reply. If it cannot be stored, nothing has happened."""
        conversation = self.conversation
        head, title = conversation.head, conversation.title
        message = Message(parent=head, role="user", content=text, created=self.now())
        conversation.append(message)
        try:
            if head is None:
                self.history.save(conversation)
            else:
                self.history.put(conversation.id, message)
        except LocalAIError:
            del conversation.messages[message.id]
            conversation.head, conversation.title = head, title
            raise
        return self._begin()

    def retry(self) -> Turn | None:
        """Another reply to the last question, beside the one that is there; None if nothing was asked."""
        asked = [m for m in self.conversation.branch() if m.role == "user"]
        if not asked:
            return None
        self.conversation.head = asked[-1].id
        return self._begin()

    def _begin(self) -> Turn:
        entry = self.loader.entry
        reply = Message(
            parent=self.conversation.head,
            role="assistant",
            state="streaming",
            model=entry.name if entry else "",
            created=self.now(),
        )
        self.conversation.append(reply)
        self.turn = Turn(
            self.conversation,
            reply,
            self.engine,
            self.history,
            on_unstored=self.on_unstored,
            clock=self.clock,
        )
        self.turn.start(self.loader.ready, self.max_tokens)
        return self.turn

    def _empty(self) -> Conversation:
        entry = self.loader.entry
        now = self.now()
        return Conversation(system=self.system, model=entry.name if entry else "", created=now, updated=now)

    # ------------------------------------------------------------------------------------------- the end

    async def stop(self) -> None:
        """Stop the reply, if there is one, and wait until it is stored."""
        if self.turn is None or not self.busy:
            return
        with contextlib.suppress(LocalAIError):
            if not await _within(PATIENCE_S, self.turn.stop()):
                self.turn.abandon()
        if not await _within(PATIENCE_S, self.turn.ended()):
            self.turn.abandon()
            await self.turn.ended()

    async def close(self) -> None:
        """Stop everything and end the worker. Never hangs: an engine that does not answer is left behind."""
        await self.stop()
        await self.loader.close()
        with contextlib.suppress(LocalAIError):
            await _within(PATIENCE_S, self.engine.close())


async def _within(seconds: float, work: Coroutine[Any, Any, None]) -> bool:
    """Whether `work` ended in that time; if not, it is cancelled."""
    try:
        await asyncio.wait_for(work, seconds)
    except TimeoutError:
        return False
    return True
