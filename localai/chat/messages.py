"""What is said: the one message type that prompts are rendered from."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

Role = Literal["system", "user", "assistant"]

FILE_END: Final = "\n[file content end]\n"
"""What ends an attached file in a prompt; the question stands behind the last."""


class ChatMessage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One message of a conversation as the model gets it. An assistant's thinking is not part of it."""

    role: Role
    content: str
