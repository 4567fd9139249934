"""What the screen works on: the open conversation, the reply in the making, the model, the store.

Knows nothing of a screen. One reply at a time; opening or beginning another conversation stops it first.
What the engine can read or be given back beforehand, it gets in the background: no user waits for that.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from localai.chat.budget import DropOldest, Enlarge, begun_anew, without
from localai.chat.conversation import Attachment, Conversation, Message, prompt_of
from localai.chat.messages import ChatMessage
from localai.engine.client import Engine
from localai.engine.settings import Limits, LoadOptions, Sampling
from localai.engine.states import StateCache
from localai.errors import LocalAIError
from localai.history import History, Kept
from tui.anew import summarize
from tui.costs import DraftCost, Shares, draft_cost, shares
from tui.ending import within
from tui.loader import Loader
from tui.outcome import Remedy, remedy_of, unfinished
from tui.sampling import sampling_of
from tui.shelf import ModelShelf, ResolvedModel
from tui.turn import Turn
from tui.warmer import States, Warmer

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
        states: States | None = None,
        kept: Kept = "encrypted",
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`clock` measures durations, `now` dates messages; both in seconds.

        `states` keeps what the engine has read of conversations that are left; by default in memory.
        """
        self.engine, self.history, self.models = engine, history, models
        self.system, self.limits = system, limits
        self.clock, self.now = clock, now
        self.kept = kept
        self.states = StateCache() if states is None else states
        self.loader = Loader(
            engine, models, load_options, sampling, before=self._save_state, after=self._begin_model
        )
        self.turn: Turn | None = None
        self.summarizing = False
        """Whether the conversation is being summarized, to begin a new one."""
        self.on_unstored: Callable[[LocalAIError], None] = lambda error: None
        self.conversation = self._empty()
        self._left_out: frozenset[int] = frozenset()
        """Indices into the conversation's `chat_messages` that the user agreed to leave out of the prompt."""
        self._warmer = Warmer(engine, self.states)

    @property
    def busy(self) -> bool:
        """Whether a reply is in the making, or a summary."""
        return self.summarizing or (self.turn is not None and self.turn.phase != "done")

    # ------------------------------------------------------------------------------------ conversations

    async def new(self) -> None:
        """Begin an empty conversation. It is stored with its first message."""
        await self.stop()
        self._leave()
        self._go_on_with(self._empty())

    async def open(self, conversation_id: str) -> None:
        """Go on with a stored conversation."""
        await self.stop()
        conversation = self.history.load(conversation_id)
        self._leave()
        self._go_on_with(conversation)
        self.draft("")

    async def move(self, history: History, states: States, kept: Kept) -> None:
        """Begin anew, from now on with these conversations and states instead of those so far."""
        await self.stop()
        if self.kept != "memory":
            self._leave()
        self.history, self.states, self.kept = history, states, kept
        self._warmer.states = states
        self._go_on_with(self._empty())

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

    def pin(self, conversation_id: str, pinned: bool) -> None:
        """Have a stored conversation stand above the others, or no longer."""
        self.history.pin(conversation_id, pinned, self.now())
        if conversation_id == self.conversation.id:
            self.conversation.pinned = pinned

    def rename(self, conversation_id: str, title: str) -> None:
        """Give a stored conversation another title."""
        self.history.rename(conversation_id, title)
        if conversation_id == self.conversation.id:
            self.conversation.title = title

    def set_up(self, system: str, settings: dict[str, Any]) -> None:
        """Give the open conversation another system prompt and sampling, from its next reply on."""
        conversation = self.conversation
        if conversation.messages:
            self.history.save_settings(conversation.id, system, settings)
        if system != conversation.system:
            self._left_out = frozenset()  # a system prompt is a message, which moves the others
        conversation.system, conversation.settings = system, settings
        self.draft("")

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

    def ask(self, text: str, attachments: Sequence[Attachment] = ()) -> Turn:
        """Store the user's message, then begin the reply. If it cannot be stored, nothing has happened."""
        return self._say(self.conversation.head, text, attachments)

    def edit(self, message_id: str, text: str, attachments: Sequence[Attachment] = ()) -> Turn:
        """Ask otherwise than in that message of the user; the old message and all below it are kept.

        No reply may be in the making. Errors as in `ask`.
        """
        return self._say(self.conversation.messages[message_id].parent, text, attachments)

    def _say(self, parent: str | None, text: str, attachments: Sequence[Attachment]) -> Turn:
        conversation = self.conversation
        head, title, stored = conversation.head, conversation.title, bool(conversation.messages)
        message = Message(
            parent=parent, role="user", content=text, attachments=tuple(attachments), created=self.now()
        )
        conversation.head = parent
        conversation.append(message)
        try:
            if stored:
                self.history.put(conversation.id, message)
            else:
                self.history.save(conversation)
        except LocalAIError:
            del conversation.messages[message.id]
            conversation.head, conversation.title = head, title
            raise
        if parent != head:
            self._left_out = frozenset()  # they were counted along another branch
        return self._begin()

    def retry(self, message_id: str | None = None, offer: Remedy | None = None) -> Turn | None:
        """Another reply beside that one, by default the last; None if nothing was asked.

        If there was no room for the last one, what the engine offered is done first, `offer` or the first
        that can be: the oldest messages stay in the conversation but are not sent, or the model is loaded
        with more context.
        """
        conversation = self.conversation
        parent = conversation.messages[message_id].parent if message_id is not None else None
        asked = [m.id for m in conversation.branch() if m.role == "user"]
        if not asked:
            return None
        if parent is None or parent == asked[-1]:
            conversation.head = asked[-1]
            self._make_room(offer)
        else:
            conversation.head = parent
            self._left_out = frozenset()  # they were counted along another branch
        return self._begin()

    def go_on(self, message_id: str | None = None) -> Turn | None:
        """A branch beside that reply, by default the last, that goes on with it; None if it had ended."""
        conversation = self.conversation
        wanted = message_id or conversation.head
        if wanted is None or not unfinished(message := conversation.messages[wanted]):
            return None
        if wanted != conversation.head:
            self._left_out = frozenset()  # they were counted along another branch
        conversation.head = message.parent
        return self._begin(message)

    def place_of(self, message: Message) -> tuple[int, int]:
        """Which of its branches a message is, from 1, and how many there are."""
        if message.id not in self.conversation.messages:
            return 1, 1  # the screen still shows the end of a reply in a conversation that was left
        siblings = [m.id for m in self.conversation.siblings(message.id)]
        return siblings.index(message.id) + 1, len(siblings)

    async def walk(self, message_id: str, step: int) -> Message | None:
        """Show the branch `step` further from that message; the message it begins with, None at the ends.

        A reply in the making is stopped first.
        """
        await self.stop()
        conversation = self.conversation
        siblings = conversation.siblings(message_id)
        at = [m.id for m in siblings].index(message_id) + step
        if not 0 <= at < len(siblings):
            return None
        self.show(siblings[at].id)
        return siblings[at]

    def show(self, message_id: str) -> None:
        """Show the branch with that message, also when the conversation is opened again."""
        conversation = self.conversation
        conversation.show(message_id)
        self.turn, self._left_out = None, frozenset()
        if conversation.head is not None:
            self.history.set_head(conversation.id, conversation.head)
        self.draft("")

    def _make_room(self, offer: Remedy | None) -> None:
        if self.turn is None or self.turn.overflow is None:
            return
        match offer or remedy_of(self.turn.overflow):
            case DropOldest(messages=indices):
                sent = [i for i in range(len(self.conversation.chat_messages())) if i not in self._left_out]
                self._left_out |= {sent[i] for i in indices}
            case Enlarge(context=context):
                self.loader.enlarge(context)

    async def begin_anew(self, turn: Turn) -> Turn | None:
        """A new conversation with a summary of the one that `turn` had no room in, and its last question.

        None if it is stopped meanwhile. Raises `ContextOverflow` if there is no room for a summary either.
        """
        self.summarizing = True
        try:
            model = await self._ready()
            summary = await summarize(self.engine, turn.prompt, model.sampling)
        finally:
            self.summarizing = False
        if not summary or turn is not self.turn:
            return None
        question = begun_anew(turn.prompt, summary)[-1].content
        system, settings = self.conversation.system, self.conversation.settings
        await self.new()
        self.conversation.system, self.conversation.settings = system, dict(settings)
        return self.ask(question)

    async def answer_now(self) -> None:
        """Have the model end its thinking and answer; nothing happens unless it thinks."""
        if self.turn is not None:
            with contextlib.suppress(LocalAIError):
                await self.turn.answer_now()

    def _begin(self, before: Message | None = None) -> Turn:
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
            before=before,
            on_unstored=self.on_unstored,
            clock=self.clock,
        )
        self.turn.start(self._ready, self.limits)
        return self.turn

    async def _ready(self) -> ResolvedModel:
        model = await self.loader.ready()
        self._mark_used()
        await self._warmer.settled()
        own = sampling_of(self.conversation.settings)
        return msgspec.structs.replace(model, sampling=own.completed_by(model.sampling))

    def _empty(self) -> Conversation:
        entry = self.loader.entry
        now = self.now()
        return Conversation(system=self.system, model=entry.name if entry else "", created=now, updated=now)

    # -------------------------------------------------------------------------------------------- counts

    async def draft_cost(self, text: str, files: Sequence[Attachment], edited: str = "") -> DraftCost | None:
        """What a draft would cost, in place of `edited` if given; None while no model is there to count."""
        if self.loader.state != "ready":
            return None
        return await draft_cost(self.engine, self.prompt(prompt_of(text, files), edited), files)

    async def shares(self) -> Shares | None:
        """What the context is spent on; None as long as no model is there to count."""
        if self.loader.state != "ready" or self.loader.loaded is None:
            return None
        if not self.conversation.messages:
            return Shares(self.loader.loaded.context, 0, 0, 0, 0)
        thinking = self.turn.message.thinking_tokens if self.turn is not None else 0
        return await shares(self.engine, self.conversation, self._left_out, thinking)

    # --------------------------------------------------------------------------------------- beforehand

    def draft(self, text: str, attachments: Sequence[Attachment] = ()) -> None:
        """Have the engine, if it is idle, read the conversation and what the user may send next."""
        if self.loader.state == "ready" and not self.busy:
            self._warmer.later(self._warm(prompt_of(text, attachments)))

    async def _warm(self, draft: str = "") -> None:
        conversation, loaded = self.conversation, self.loader.loaded
        if loaded is None or not (conversation.messages or draft):
            return

        def free() -> bool:
            return not self.busy and self.conversation is conversation

        await self._warmer.warm(conversation.id, loaded.fingerprint, self.prompt(draft), free)

    def prompt(self, draft: str | None = None, edited: str = "") -> list[ChatMessage]:
        """What the model is shown, as if the user had said `draft`, instead of `edited` if that is given."""
        talk = self.conversation
        if draft is not None:
            head = talk.messages[edited].parent if edited else talk.head
            talk = msgspec.structs.replace(talk, messages=dict(talk.messages), head=head)
            talk.append(Message(parent=head, role="user", content=draft))
        return without(talk.chat_messages(), self._left_out)

    def _mark_used(self) -> None:
        """Take down when the model was last used. A conversation that is not kept leaves no trace."""
        if self.kept != "memory" and self.loader.sha256:
            self.models.used(self.loader.sha256)

    async def _begin_model(self) -> None:
        self._mark_used()
        self._warmer.forget()
        await self._warm()

    async def _save_state(self) -> None:
        if self._worth_saving():
            await self._warmer.save(self.conversation.id, self.prompt())

    def _leave(self) -> None:
        """Keep, in the background, what the engine has read of the open conversation."""
        if self._worth_saving():
            self._warmer.later(self._warmer.save(self.conversation.id, self.prompt()))

    def _worth_saving(self) -> bool:
        replies = [m for m in self.conversation.branch() if m.role == "assistant" and m.content]
        return self.engine.model is not None and any(m.state == "complete" for m in replies)

    # ------------------------------------------------------------------------------------------- the end

    async def stop(self) -> None:
        """Stop the reply, if there is one, and wait until it is stored."""
        if self.summarizing:
            with contextlib.suppress(LocalAIError):
                await self.engine.cancel()
        if self.turn is None or self.turn.phase == "done":
            return
        with contextlib.suppress(LocalAIError):
            if not await within(PATIENCE_S, self.turn.stop()):
                self.turn.abandon()
        if not await within(PATIENCE_S, self.turn.ended()):
            self.turn.abandon()
            await self.turn.ended()

    async def close(self) -> None:
        """Stop everything and end the worker. Never hangs: an engine that does not answer is left behind."""
        await self.stop()
        await self.loader.close()
        if self.kept != "memory":
            await within(PATIENCE_S, self._save_state())
        await self._warmer.close()
        with contextlib.suppress(LocalAIError):
            await within(PATIENCE_S, self.engine.close())
