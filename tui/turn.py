"""One reply, from the engine's first event to the stored end; knows nothing of a screen.

A `Turn` copies the engine's events into its `Message` and into the store: when the reply begins, at most once
a second while it streams, and when it ends, however it ends. An engine's error does not leave it: it becomes
the message's state "failed", and so does a conversation that does not fit into the context. A screen takes
what is new with `take`, as often as it likes to paint.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection
from contextlib import aclosing
from typing import Final, Literal

import msgspec

from localai.chat.budget import without
from localai.chat.conversation import Conversation, Message
from localai.chat.messages import ChatMessage
from localai.engine.client import Engine
from localai.engine.protocol import (
    Answer,
    Done,
    GenerationEvent,
    Looping,
    Overflow,
    PrefillProgress,
    Thinking,
)
from localai.engine.settings import Limits, Sampling
from localai.errors import HistoryError, LocalAIError, StoreError
from localai.history import History
from tui.outcome import ClosedBy, Outcome, begun_of, overflow_words, sound
from tui.shelf import ResolvedModel

STORE_EVERY_S: Final = 1.0

Phase = Literal["waiting", "reading", "thinking", "answering", "done"]


class Pieces(msgspec.Struct, frozen=True):
    """Text that has come since the last look."""

    thinking: str
    answer: str


class Turn:
    """A reply in the making. `message` must already be the head of `conversation`.

    `prompt` is what the model was sent, empty before it was.
    """

    def __init__(
        self,
        conversation: Conversation,
        message: Message,
        engine: Engine,
        history: History,
        *,
        left_out: Collection[int] = (),
        before: Message | None = None,
        on_unstored: Callable[[LocalAIError], None] = lambda error: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`left_out`: indices into the conversation's `chat_messages` that the model is not shown.

        `before`: a reply that was cut or stopped, which this one repeats and goes on with.

        `on_unstored` is told, once, when the reply could not be stored; the reply goes on.
        """
        self.conversation = conversation
        self.message = message
        self.phase: Phase = "waiting"
        self.prefill = (0, 0)
        """Tokens of the prompt that are read, and all of them."""
        self.looping: Looping | None = None
        """That the reply repeats itself, as long as it is in the part that does."""
        self.overflow: Overflow | None = None
        """Why there was no room for a reply, and what can be done about it."""
        self.changed = asyncio.Event()
        """Set whenever there is something new to show."""
        self._engine = engine
        self._history = history
        self._left_out = left_out
        self._on_unstored = on_unstored
        self._clock = clock
        self.prompt: list[ChatMessage] = []
        self._asked_to_answer = False
        self._task: asyncio.Task[None] | None = None
        self._before = before
        self._thinking: list[str] = [before.thinking] if before is not None else []
        self._answer: list[str] = [before.content] if before is not None else []
        if before is not None:
            message.thinking_s = before.thinking_s
            message.thinking_tokens = before.thinking_tokens
            message.completion_tokens = before.completion_tokens
        self._taken = (0, 0)
        self._stored_at = 0.0
        self._thinking_since: float | None = None
        self._first_token_at: float | None = None

    # ------------------------------------------------------------------------------------------- the run

    def start(self, ready: Callable[[], Awaitable[ResolvedModel]], limits: Limits = Limits()) -> None:
        """Begin the reply: wait for the model (`ready` gives it), then stream to the end."""
        self._store()
        self._task = asyncio.create_task(self._run(ready, limits))
        # A callback and no `finally`: a task that is cancelled before its first step never runs its body.
        self._task.add_done_callback(self._settle)

    async def _run(self, ready: Callable[[], Awaitable[ResolvedModel]], limits: Limits) -> None:
        try:
            model = await ready()
            self.message.model = model.entry.name
            await self._stream(model.sampling, limits)
        except LocalAIError as error:
            self._end("failed", str(error))

    def _settle(self, task: asyncio.Task[None]) -> None:
        """End a reply whose task is over before the engine was done."""
        if not task.cancelled() and (error := task.exception()) is not None:
            self._end("failed", f"Internal error: {error!r}")
        elif self.phase != "done":
            self._end("stopped", "cancelled")

    async def stop(self) -> None:
        """Stop the reply: through the engine if it is at work on it, at once if it has not begun."""
        if self.phase == "waiting":
            self.abandon()
        elif self.phase != "done":
            await self._engine.cancel()

    async def answer_now(self) -> None:
        """Have the thinking closed and the answer begun; nothing happens unless the model thinks."""
        if self.phase == "thinking":
            self._asked_to_answer = True
            await self._engine.answer_now()

    def abandon(self) -> None:
        """Stop the reply without the engine's help; what has come is kept."""
        if self._task is not None:
            self._task.cancel()

    async def ended(self) -> None:
        """Wait until the reply is over and stored."""
        if self._task is not None:
            await asyncio.wait({self._task})

    async def _stream(self, sampling: Sampling, limits: Limits) -> None:
        self.phase = "reading"
        self.changed.set()
        self.prompt = without(self.conversation.chat_messages(before=self.message.id), self._left_out)
        begun = begun_of(self._before) if self._before is not None else None
        async with aclosing(self._engine.generate(self.prompt, sampling, limits, begun=begun)) as events:
            async for event in events:
                self._apply(event)
                self.changed.set()
                if self._clock() - self._stored_at >= STORE_EVERY_S:
                    self._store()

    def _apply(self, event: GenerationEvent) -> None:
        match event:
            case PrefillProgress(done=done, total=total):
                self.prefill = (done, total)
            case Thinking(text=text, tokens=tokens):
                self._begin("thinking", tokens)
                self.message.thinking_tokens += tokens
                self._thinking.append(text)
            case Answer(text=text, tokens=tokens):
                self._begin("answering", tokens)
                self._answer.append(text)
            case Looping():
                self.looping = event
            case Overflow():
                self.overflow = sound(event, self.prompt)
                self._end("failed", overflow_words(self.overflow, self.prompt))
            case Done():
                self._finish(event)

    def _begin(self, phase: Phase, tokens: int) -> None:
        now = self._clock()
        if self._first_token_at is None:
            self._first_token_at = now
        if phase == "thinking" and self._thinking_since is None:
            self._thinking_since = now
        if phase != self.phase:
            self.message.thinking_s = self.thinking_s
            self.phase = phase
            self.looping = None
        self.message.completion_tokens += tokens

    def _finish(self, done: Done) -> None:
        message, before, usage = self.message, self._before, done.usage
        repeated, thought = (
            (before.completion_tokens, before.thinking_tokens) if before is not None else (0, 0)
        )
        message.prompt_tokens = max(usage.prompt_tokens - repeated, 0)
        message.completion_tokens = usage.completion_tokens + repeated
        message.thinking_tokens = usage.thinking_tokens + thought
        message.tokens_per_s = done.timings.tokens_per_s
        closed_by: ClosedBy = "user" if self._asked_to_answer else "budget"
        outcome = Outcome(
            done.reason, done.answer, closed_by if done.think_closed else "", len(self._left_out)
        )
        self._end("stopped" if done.reason == "cancelled" else "complete", outcome.words())

    def _end(self, state: Literal["complete", "stopped", "failed"], reason: str) -> None:
        self.message.thinking_s = self.thinking_s
        self.phase = "done"
        self.looping = None
        self.message.state = state
        self.message.finish_reason = reason
        self._store()
        self.changed.set()

    # -------------------------------------------------------------------------------------- what to show

    def take(self) -> Pieces:
        """The text that has come since the last call."""
        thought, said = self._taken
        self._taken = (len(self._thinking), len(self._answer))
        return Pieces("".join(self._thinking[thought:]), "".join(self._answer[said:]))

    @property
    def thinking_s(self) -> float:
        """How long the model has thought so far, in seconds."""
        if self.phase == "thinking" and self._thinking_since is not None:
            earlier = self._before.thinking_s if self._before is not None else 0.0
            return earlier + self._clock() - self._thinking_since
        return self.message.thinking_s

    @property
    def tokens_per_s(self) -> float:
        """Tokens after the first, over the time since the first; the engine's own figure at the end."""
        if self.phase == "done" or self._first_token_at is None:
            return self.message.tokens_per_s
        elapsed = self._clock() - self._first_token_at
        repeated = self._before.completion_tokens if self._before is not None else 0
        return (self.message.completion_tokens - repeated - 1) / elapsed if elapsed > 0 else 0.0

    @property
    def context_used(self) -> int:
        """Tokens of prompt and reply so far."""
        prompt = self.message.prompt_tokens or self.prefill[0]
        return prompt + self.message.completion_tokens

    # ----------------------------------------------------------------------------------------- the store

    def _store(self) -> None:
        """Write the reply as it is. A store that fails must not end the reply."""
        self._stored_at = self._clock()
        self.message.thinking = "".join(self._thinking)
        self.message.content = "".join(self._answer)
        try:
            self._history.put(self.conversation.id, self.message)
        except (HistoryError, StoreError) as error:
            self._on_unstored(error)
            self._on_unstored = lambda error: None
