"""A conversation: a tree of messages, of which one branch is shown.

Every message names its parent, so an edit or a second reply is a sibling and nothing is ever overwritten.
What is sent to the model is the branch that ends in `Conversation.head`, without past thinking.
"""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from localai.chat.clean import clean, clean_line
from localai.chat.messages import FILE_END, ChatMessage

MessageState = Literal["streaming", "complete", "stopped", "failed"]

TITLE_LENGTH = 60

_NAME = 255
"""Characters of a file's name that the model gets; more has no file system."""
_GAP = r"[\s\u180b-\u180f\u200c\u200d\ufe0e\ufe0f]"
"""What `clean` leaves between two words, seen or not."""
_MARK = re.compile(rf"\[{_GAP}*(?=file{_GAP}+(?:name|content)\b)", re.IGNORECASE)


def new_id() -> str:
    """A fresh identifier for a conversation or message."""
    return uuid.uuid4().hex


class Attachment(msgspec.Struct, frozen=True, kw_only=True):
    """A text that a user's message carries along, such as a file."""

    name: str
    """What the reader and the model know it as: a file's name without folders, or "pasted text"."""
    text: str


class Message(msgspec.Struct, kw_only=True):
    """One message. `thinking` and the counts belong to assistant messages only."""

    id: str = msgspec.field(default_factory=new_id)
    parent: str | None
    role: Literal["user", "assistant"]
    content: str = ""
    attachments: tuple[Attachment, ...] = ()
    """Of a user's message. The model gets them before it: see `prompt_of`."""
    thinking: str = ""
    state: MessageState = "complete"
    created: float = msgspec.field(default_factory=time.time)
    """Seconds since the epoch."""
    model: str = ""
    """Name of the model that wrote it."""
    finish_reason: str = ""
    """Why it ended: the engine's reason, and behind it words for what else a reader must know.

    Such as "stop answer=none closed=user left_out=2": see tui/outcome.py. When `state` is "failed", the one
    line of the error.
    """
    thinking_s: float = 0.0
    """How long the model thought, in seconds."""
    thinking_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens: int = 0
    tokens_per_s: float = 0.0


class Conversation(msgspec.Struct, kw_only=True):
    """A conversation and all its messages, by id."""

    id: str = msgspec.field(default_factory=new_id)
    title: str = ""
    system: str = ""
    model: str = ""
    created: float = msgspec.field(default_factory=time.time)
    updated: float = msgspec.field(default_factory=time.time)
    pinned: bool = False
    """Whether it stands above the others in a list."""
    settings: dict[str, Any] = msgspec.field(default_factory=dict)
    """What this conversation sets otherwise than usual, by the names of `engine.settings.Sampling`."""
    head: str | None = None
    messages: dict[str, Message] = msgspec.field(default_factory=dict)

    def append(self, message: Message) -> Message:
        """Add `message` at the end of the shown branch and return it."""
        if message.parent != self.head:
            raise ValueError(f"message {message.id} does not follow the head of the conversation")
        self.messages[message.id] = message
        self.head = message.id
        self.updated = message.created
        if not self.title and message.role == "user":
            self.title = title_of(" ".join([message.content, *(file.name for file in message.attachments)]))
        return message

    def siblings(self, message_id: str) -> list[Message]:
        """The message and its alternatives, with the same parent and role, in the order they were made."""
        one = self.messages[message_id]
        return [m for m in self.messages.values() if m.parent == one.parent and m.role == one.role]

    def show(self, message_id: str) -> None:
        """Show the branch with that message: down to the last made of its replies, and theirs."""
        below = {m.parent: m.id for m in self.messages.values()}  # the last made wins
        at: str | None = message_id
        while at is not None:
            self.head = at
            at = below.get(at)

    def branch(self) -> list[Message]:
        """The messages from the first to `head`."""
        found: list[Message] = []
        at = self.head
        while at is not None:
            message = self.messages[at]
            found.append(message)
            at = message.parent
        return found[::-1]

    def chat_messages(self, *, before: str | None = None) -> list[ChatMessage]:
        """The shown branch as the model gets it: no thinking, no replies that never said anything.

        And nothing that a reader does not see, such as instructions in what was imported. With `before`, only
        what stands before that message. Questions that then follow each other are one message: models know
        only turns that alternate.
        """
        system = clean(self.system)
        found = [ChatMessage("system", system)] if system.strip() else []
        for message in self.branch():
            if message.id == before:
                break
            content = prompt_of(message.content, message.attachments)
            if message.role == "user" and found and found[-1].role == "user":
                found[-1] = ChatMessage("user", f"{found[-1].content}\n\n{content}")
            elif message.role == "user" or content:
                found.append(ChatMessage(message.role, content))
        return found


def prompt_of(question: str, attachments: Sequence[Attachment]) -> str:
    """A question and its attachments as the model gets them: nothing in a file can end its frame.

    The frame says what is data; no sentence says it again. This is the form that R1 was trained on, and a
    sentence that it was not would promise what no model keeps: what a file asks for, a model may still do.

    Source: "Official Prompts" in the README of DeepSeek-R1 (github.com/deepseek-ai/DeepSeek-R1).
    """
    return "".join(_framed(file) for file in attachments) + clean(question)


def _framed(file: Attachment) -> str:
    name = _quoted(clean_line(file.name[: 4 * _NAME]))[:_NAME] or "file"
    return f"[file name]: {name}\n[file content begin]\n{_quoted(clean(file.text))}{FILE_END}"


def _quoted(text: str) -> str:
    """`text` in which the marks of a frame, also those that only look like them, cannot be taken for ours."""
    return _MARK.sub("[quoted ", text) if "[" in text else text


def title_of(text: str) -> str:
    """The first words of `text`, at most `TITLE_LENGTH` characters, on one line."""
    line = " ".join(text.split())
    if len(line) <= TITLE_LENGTH:
        return line
    cut, next_character = line[: TITLE_LENGTH - 1], line[TITLE_LENGTH - 1]
    if next_character != " " and " " in cut[TITLE_LENGTH // 2 :]:
        cut = cut.rsplit(" ", 1)[0]
    return cut.rstrip() + "…"
