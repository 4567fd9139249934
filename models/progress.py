"""How what is slow tells how far it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

Progress: TypeAlias = Callable[[str, int, int], None]
"""Called as (step, done, total): the step in words such as "Downloading", and bytes. A total of 0 means
that it is not known. Called from the thread that asked for the work, several times a second; what it raises
stops the work, and everything is cleaned up."""


def silent(step: str, done: int, total: int) -> None:
    """For callers that show nothing."""
