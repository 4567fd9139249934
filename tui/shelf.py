"""The models that the chat can choose from: what it needs to know of them, and no more."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from localai.engine.protocol import Sampling


class ModelEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One installed model, as the picker and the welcome page show it."""

    name: str
    """What the user types, such as "smollm2:135m"."""
    title: str
    file_type: str = ""
    """Such as "Q4_K_M"."""
    size: int = 0
    """Bytes."""
    reasoning: bool = True
    note: str = ""
    """One sentence that a user should know, such as that this is not a reasoning model."""


class ResolvedModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model's file and how to use it."""

    entry: ModelEntry
    path: Path
    sampling: Sampling = Sampling()
    """What the model's manifest recommends; None in a field leaves it to the engine."""


class ModelShelf(Protocol):
    """Where models come from."""

    def entries(self) -> Sequence[ModelEntry]:
        """The installed models, in the order to show them."""

    def resolve(self, name: str) -> ResolvedModel:
        """The model of that name or path; ModelError if there is none."""
