"""What is said: the one message type that prompts are rendered from."""

from __future__ import annotations

from typing import Literal

import msgspec

Role = Literal["system", "user", "assistant"]


class ChatMessage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One message of a conversation as the model gets it. An assistant's thinking is not part of it."""

    role: Role
    content: str
