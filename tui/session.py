"""What the screen works on: the open conversation, the reply in the making, the model, the store.

Knows nothing of a screen. One reply at a time; opening or beginning another conversation stops it first.
What the engine can read or be given back beforehand, it gets in the background: no user waits for that.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final

import msgspec

from localai.chat.budget import DropOldest, Enlarge, without
from localai.chat.conversation import Conversation, Message
from localai.chat.messages import ChatMessage
from localai.engine.client import Engine
from localai.engine.settings import Limits, LoadOptions, Sampling
from localai.engine.states import StateCache
from localai.errors import LocalAIError
from localai.history import History
from tui.loader import Loader
from tui.outcome import remedy_of
from tui.shelf import ModelShelf, ResolvedModel
from tui.turn import Turn
from tui.warmer import Warmer

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
        limits: Limits = Limits(),
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`clock` measures durations, `now` dates messages; both in seconds."""
        self.engine = engine
        self.history = history
        self.models = models
        self.system = system
        self.limits = limits
        self.clock = clock
        self.now = now
        self.states = StateCache()
        self.loader = Loader(
            engine, models, load_options, sampling, before=self._save_state, after=self._begin_model
        )
        self.turn: Turn | None = None
        self.on_unstored: Callable[[LocalAIError], None] = lambda error: None
        self.conversation = self._empty()
        self._left_out: frozenset[int] = frozenset()
        """Indices into the conversation's `chat_messages` that the user agreed to leave out of the prompt."""
        self._warmer = Warmer(engine, self.states)

    @property
    def busy(self) -> bool:
        """Whether a reply is in the making."""
        return self.turn is not None and self.turn.phase != "done"

    # ------------------------------------------------------------------------------------ conversations

    async def new(self) -> None:
        """Begin an empty conversation. It is stored with its first message."""
        await self.stop()
        self._go_on_with(self._empty())

    async def open(self, conversation_id: str) -> None:
        """Go on with a stored conversation."""
        await self.stop()
        self._go_on_with(self.history.load(conversation_id))
        self.draft("")

    def _go_on_with(self, conversation: Conversation) -> None:
        self.conversation = conversation
        self.turn = None
        self._left_out = frozenset()

    async def delete(self, conversation_id: str) -> None:
        """Delete a stored conversation; if it is the open one, an empty one takes its place."""
        if conversation_id == self.conversation.id:
            await self.stop()
        self.history.delete(conversation_id)
        self.states.discard(conversation_id)
        if conversation_id == self.conversation.id:
            await self.new()

    def choose(self, name: str) -> None:
        """Load another model; the conversation goes on with it. No reply may be in the making."""
        if self.turn is not None:
            self.turn.overflow = None  # another model counts and holds other tokens
        self._left_out = frozenset()
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
        """Another reply to the last question, beside the one that is there; None if nothing was asked.

        If there was no room for the one that is there, what the engine offered is done first: the oldest
        messages stay in the conversation but are not sent, or the model is loaded with more context.
        """
        asked = [m for m in self.conversation.branch() if m.role == "user"]
        if not asked:
            return None
        self.conversation.head = asked[-1].id
        self._make_room()
        return self._begin()

    def _make_room(self) -> None:
        if self.turn is None or self.turn.overflow is None:
            return
        match remedy_of(self.turn.overflow):
            case DropOldest(messages=indices):
                sent = [i for i in range(len(self.conversation.chat_messages())) if i not in self._left_out]
                self._left_out |= {sent[i] for i in indices}
            case Enlarge(context=context):
                self.loader.enlarge(context)

    async def answer_now(self) -> None:
        """Have the model end its thinking and answer; nothing happens unless it thinks."""
        if self.turn is not None:
            with contextlib.suppress(LocalAIError):
                await self.turn.answer_now()

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
            left_out=self._left_out,
            on_unstored=self.on_unstored,
            clock=self.clock,
        )
        self.turn.start(self._ready, self.limits)
        return self.turn

    async def _ready(self) -> ResolvedModel:
        model = await self.loader.ready()
        await self._warmer.settled()
        return model

    def _empty(self) -> Conversation:
        entry = self.loader.entry
        now = self.now()
        return Conversation(system=self.system, model=entry.name if entry else "", created=now, updated=now)

    # --------------------------------------------------------------------------------------- beforehand

    def draft(self, text: str) -> None:
        """Have the engine, if it is idle, read the conversation and `text`, which the user may send next."""
        if self.loader.state == "ready" and not self.busy:
            self._warmer.later(self._warm(text))

    async def _warm(self, draft: str = "") -> None:
        conversation, loaded = self.conversation, self.loader.loaded
        if loaded is None or not (conversation.messages or draft):
            return

        def free() -> bool:
            return not self.busy and self.conversation is conversation

        await self._warmer.warm(conversation.id, loaded.fingerprint, self._messages(draft), free)

    def _messages(self, draft: str | None = None) -> list[ChatMessage]:
        """What the model is shown of the conversation, as if the user had said `draft`, if there is one."""
        conversation = self.conversation
        if draft is not None:
            conversation = msgspec.structs.replace(conversation, messages=dict(conversation.messages))
            conversation.append(Message(parent=conversation.head, role="user", content=draft))
        return without(conversation.chat_messages(), self._left_out)

    async def _begin_model(self) -> None:
        self._warmer.forget()
        await self._warm()

    async def _save_state(self) -> None:
        replies = [m for m in self.conversation.branch() if m.role == "assistant" and m.content]
        if self.engine.model is not None and any(m.state == "complete" for m in replies):
            await self._warmer.save(self.conversation.id, self._messages())

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
        await self._warmer.close()
        with contextlib.suppress(LocalAIError):
            await _within(PATIENCE_S, self.engine.close())


async def _within(seconds: float, work: Coroutine[Any, Any, None]) -> bool:
    """Whether `work` ended in that time; if not, it is cancelled."""
    try:
        await asyncio.wait_for(work, seconds)
    except TimeoutError:
        return False
    return True
