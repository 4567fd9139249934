"""What the context is spent on, in tokens, as the engine counts them."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from localai.chat.budget import without
from localai.chat.conversation import Attachment, Conversation, prompt_of
from localai.chat.messages import ChatMessage
from localai.engine.client import Engine


class DraftCost(msgspec.Struct, frozen=True):
    """What a draft would cost."""

    tokens: int
    room: int
    """What the conversation before it leaves of the context."""
    files: dict[str, int]
    """What each attachment takes of `tokens`, by its name."""


class Shares(msgspec.Struct, frozen=True):
    """How the context is divided. Thinking is that of the last reply: earlier thinking is not sent again."""

    context: int
    questions: int
    """The system prompt included."""
    files: int
    answers: int
    thinking: int

    @property
    def free(self) -> int:
        """What is left."""
        return max(0, self.context - self.questions - self.files - self.answers - self.thinking)


async def draft_cost(
    engine: Engine, prompt: Sequence[ChatMessage], attachments: Sequence[Attachment]
) -> DraftCost:
    """The cost of the last message of `prompt`, which carries `attachments`. Errors as in `Engine.count`."""
    counted = await engine.count(prompt)
    tokens = counted.messages[-1] if counted.messages else 0
    files: dict[str, int] = {}
    for file in attachments:
        alone = await engine.count([ChatMessage("user", prompt_of("", [file]))])
        files[file.name] = files.get(file.name, 0) + alone.total
    return DraftCost(tokens, max(0, counted.context - (counted.total - tokens)), files)


async def shares(
    engine: Engine, conversation: Conversation, left_out: frozenset[int], thinking: int
) -> Shares:
    """How the context is divided now; `thinking`: tokens of the last reply's. Errors as in `Engine.count`."""
    prompt = without(conversation.chat_messages(), left_out)
    counted = await engine.count(prompt)
    bare = msgspec.structs.replace(
        conversation,
        messages={i: msgspec.structs.replace(m, attachments=()) for i, m in conversation.messages.items()},
    )
    without_files = await engine.count(without(bare.chat_messages(), left_out))
    files = max(0, counted.total - without_files.total)
    answers = sum(t for m, t in zip(prompt, counted.messages, strict=True) if m.role == "assistant")
    questions = max(0, counted.total - files - answers)
    return Shares(counted.context, questions, files, answers, thinking)
