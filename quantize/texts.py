"""What a model is given to read for an importance matrix, and how it reads it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

OnTokens = Callable[[int, int], None]
"""Called with how many tokens were read, or written, and of how many."""


@dataclass(frozen=True)
class Text:
    """A text to read. `special`: markers in it, such as those of a chat, are read as markers."""

    name: str
    content: str
    special: bool = False


@dataclass(frozen=True)
class Reading:
    """How a text is read; None and 0 leave the choice to us."""

    context: int | None = None
    """Tokens of each chunk; None: `CHUNK`, or what the model was trained for if that is less."""
    chunks: int = 0
    """0: all that the text has."""
    threads: int | None = None
    gpu_layers: int | None = None
    allow_architectures: tuple[str, ...] = ()
