"""Something that weakens a protection, and what to do about it."""

from __future__ import annotations

from typing import Literal

import msgspec

Area = Literal[
    "program", "engine", "advisories", "models", "sandbox", "history", "policy", "environment", "proof"
]


class Finding(msgspec.Struct, frozen=True):
    """One line of the report that wants attention."""

    area: Area
    what: str
    """What is so, one sentence without its full stop."""
    do: str
    """What to do about it, likewise."""
