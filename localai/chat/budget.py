"""The context as a budget: what can be done when a conversation no longer fits."""

from __future__ import annotations

import msgspec


class DropOldest(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Leave out the oldest turns; the system prompt stays."""

    messages: tuple[int, ...]
    """Indices into the request's messages."""
    tokens: int
    """What that frees."""


class Shorten(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Shorten one long message, such as one with a file in it."""

    message: int
    """Index into the request's messages."""
    tokens: int
    """What it has now."""
    by: int
    """How many tokens too many that is."""


class Enlarge(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Load the model again with more context; memory allows it."""

    context: int


class StartAnew(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Begin a new conversation with a summary of this one."""


Offer = DropOldest | Shorten | Enlarge | StartAnew
