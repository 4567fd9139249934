"""Prompts as the model was trained on them.

A prompt is a list of segments: markers, which become the model's special tokens, and text, which never does,
whatever the user typed. DeepSeek-R1's format is written down here; for other models the template that comes
with the file is used (`localai.chat.template`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from localai.chat.messages import ChatMessage

BEGIN = "<｜begin▁of▁sentence｜>"
END = "<｜end▁of▁sentence｜>"
USER = "<｜User｜>"
ASSISTANT = "<｜Assistant｜>"
THINK = "<think>"
END_THINK = "</think>"

R1_TEMPERATURE = 0.6
R1_TOP_P = 0.95


class Segment(msgspec.Struct, frozen=True):
    """A part of a prompt. `special`: markup whose markers become special tokens; otherwise plain text."""

    text: str
    special: bool = False
    reply: bool = False
    """Whether the model itself wrote it."""


class PromptFormat(Protocol):
    """How a model wants its conversations."""

    name: str
    reasoning: bool
    """Whether replies may begin with thinking."""
    system_role: bool
    """Whether a system prompt is a message of its own."""

    def render(self, messages: Sequence[ChatMessage]) -> list[Segment]:
        """The prompt that makes the model write the next assistant message."""
        ...

    def opening(self, messages: Sequence[ChatMessage]) -> list[Segment]:
        """The beginning that all prompts have in common whose last user message begins as the last here does.

        With an empty one: what is certain of the next prompt before its user has written anything.
        """
        ...


class R1Format:
    """DeepSeek-R1 and its distilled models.

    As the publisher's template of February 2025: turns without line breaks between them, past turns without
    their thinking, and `<think>` opened for the model, which otherwise sometimes answers unthinkingly. A
    system prompt is put before the first user message: the publisher advises against a system role.
    """

    name = "deepseek-r1"
    reasoning = True
    system_role = False

    def render(self, messages: Sequence[ChatMessage]) -> list[Segment]:
        """The segments of the prompt; joined, they are what the publisher's template makes."""
        tail = [Segment(ASSISTANT, special=True), Segment(THINK, special=True), Segment("\n")]
        return self._turns(messages) + tail

    def opening(self, messages: Sequence[ChatMessage]) -> list[Segment]:
        """The beginning that is certain while the last user message is still being written."""
        return self._turns(messages)

    def _turns(self, messages: Sequence[ChatMessage]) -> list[Segment]:
        segments = [Segment(BEGIN, special=True)]
        for message in fold_system(messages):
            if message.role == "user":
                segments += [Segment(USER, special=True), Segment(message.content)]
            else:
                segments += [
                    Segment(ASSISTANT, special=True),
                    Segment(message.content, reply=True),
                    Segment(END, special=True),
                ]
        return segments


def fold_system(messages: Sequence[ChatMessage]) -> list[ChatMessage]:
    """The messages without system role: its text stands before the first user message."""
    system = "\n\n".join(m.content for m in messages if m.role == "system" and m.content.strip())
    turns = [m for m in messages if m.role != "system"]
    if not system:
        return turns
    for index, message in enumerate(turns):
        if message.role == "user":
            turns[index] = ChatMessage("user", f"{system}\n\n{message.content}")
            return turns
    return [ChatMessage("user", system), *turns]
