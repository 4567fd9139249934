"""A summary of a conversation, to go on from in a new one."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing
from typing import Final

from localai.chat.budget import summary_request
from localai.chat.messages import ChatMessage
from localai.engine.client import Engine
from localai.engine.protocol import Answer, Done, Overflow
from localai.engine.settings import Limits, Sampling
from localai.errors import ContextOverflow

LIMITS: Final = Limits(max_tokens=3000, think_budget=1000)
"""Of a summary of at most 300 words, with the thinking before it."""


async def summarize(engine: Engine, prompt: Sequence[ChatMessage], sampling: Sampling) -> str:
    """The model's summary of the conversation; empty if it was stopped. Errors as in `Engine.generate`.

    Raises `ContextOverflow` where the request for it does not fit either.
    """
    said: list[str] = []
    async with aclosing(engine.generate(summary_request(prompt), sampling, LIMITS)) as events:
        async for event in events:
            match event:
                case Answer(text=text):
                    said.append(text)
                case Overflow():
                    raise ContextOverflow(
                        "There is no room for a summary either", "Leave out the oldest messages instead"
                    )
                case Done(reason="cancelled"):
                    return ""
    return "".join(said).strip()
