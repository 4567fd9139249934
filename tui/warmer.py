"""Keeps what the engine has read close to what is asked next: drafts while they are written, saved states.

No error leaves it, for nothing is lost: what is not warm is only read again. What it does, it does in order.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from itertools import takewhile
from typing import Any, Final

from localai.chat.messages import ChatMessage
from localai.engine.client import Engine
from localai.engine.states import StateCache
from localai.errors import LocalAIError
from localai.history import StateStore

WORTH_READING: Final = 20
"""Characters that a draft must have more than what the engine was given before."""


States = StateCache | StateStore
"""What keeps the states: memory, or a file beside the conversations."""


class Warmer:
    """What is known of one engine's cache, and the work on it that nobody waits for."""

    def __init__(self, engine: Engine, states: States) -> None:
        self._engine = engine
        self.states = states
        """What keeps the states from now on."""
        self._lock = asyncio.Lock()
        self._seen: set[str] = set()
        """Conversations that the loaded model has been given; what it was saved with before is older."""
        self._handed: list[ChatMessage] = []
        """The prompt that was handed over last."""
        self._tasks: set[asyncio.Task[None]] = set()

    def forget(self) -> None:
        """Another model is loaded: its cache is empty."""
        self._seen.clear()
        self._handed = []

    def save(self, key: str, messages: list[ChatMessage]) -> Coroutine[Any, Any, None]:
        """Keep the cache's state of the conversation `key`, before its model goes.

        It goes to the `states` of this moment, whenever the work is done.
        """
        return self._save(self.states, key, messages)

    async def _save(self, states: States, key: str, messages: list[ChatMessage]) -> None:
        async with self._lock:
            with suppress(LocalAIError):
                state = await self._engine.save(messages, limit=states.limit)
                if state is not None:
                    await asyncio.to_thread(states.put, key, state)

    def warm(
        self, key: str, fingerprint: str, prompt: list[ChatMessage], free: Callable[[], bool]
    ) -> Coroutine[Any, Any, None]:
        """Give the conversation `key` its saved state back, once; then hand over `prompt` if `free` then.

        The state comes from the `states` of this moment. `prompt` ends with the user's draft. It is not
        handed over again for a few more characters.
        """
        return self._warm(self.states, key, fingerprint, prompt, free)

    async def _warm(
        self,
        states: States,
        key: str,
        fingerprint: str,
        prompt: list[ChatMessage],
        free: Callable[[], bool],
    ) -> None:
        async with self._lock:
            if key not in self._seen:
                self._seen.add(key)
                state = await asyncio.to_thread(states.get, key, fingerprint)
                if state is not None:
                    with suppress(LocalAIError):
                        await self._engine.restore(state)
            if free() and self._is_news(prompt):
                self._handed = prompt
                await self._engine.prefill(prompt)

    def _is_news(self, prompt: list[ChatMessage]) -> bool:
        if not self._handed or prompt[:-1] != self._handed[:-1]:
            return True
        new, old = prompt[-1].content, self._handed[-1].content
        same = takewhile(lambda pair: pair[0] == pair[1], zip(new, old, strict=False))
        return len(new) - sum(1 for _ in same) >= WORTH_READING

    def later(self, work: Coroutine[Any, Any, None]) -> None:
        """Do that work in the background."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def settled(self) -> None:
        """Wait until the work that has begun is done."""
        async with self._lock:
            pass

    async def close(self) -> None:
        """Give up what has begun."""
        if self._tasks:
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(set(self._tasks))
