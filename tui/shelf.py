"""The models that the chat can choose from: what it needs to know of them, and no more."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from localai.engine.settings import Sampling
from models.store import Manifest, Resolved, Store


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
    examples: tuple[str, ...] = ()
    """Questions that show what it can do; none: any will do."""


class ResolvedModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model's file and how to use it."""

    entry: ModelEntry
    path: Path
    sha256: str = ""
    """Of the file, where it is known."""
    sampling: Sampling = Sampling()
    """What the model's manifest recommends; None in a field leaves it to the engine."""


class ModelShelf(Protocol):
    """Where models come from."""

    def entries(self) -> Sequence[ModelEntry]:
        """The installed models, in the order to show them."""

    def resolve(self, name: str) -> ResolvedModel:
        """The model of that name or path; ModelError if there is none."""


class StoreShelf:
    """The program's own model store, and files outside of it by their path."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def entries(self) -> Sequence[ModelEntry]:
        """The models in the store, by name."""
        return [_entry(manifest) for manifest in self._store.manifests()]

    def resolve(self, name: str) -> ResolvedModel:
        """The model of that name in the store, or the GGUF file at that path."""
        found = self._store.resolve(name)
        if found.manifest is None:
            return ResolvedModel(entry=_entry_of_file(found), path=found.path)
        wanted = found.manifest.sampling
        sampling = Sampling(temperature=wanted.temperature, top_p=wanted.top_p)
        return ResolvedModel(
            entry=_entry(found.manifest),
            path=found.path,
            sha256=found.manifest.sha256,
            sampling=sampling,
        )


def _entry(manifest: Manifest) -> ModelEntry:
    return ModelEntry(
        name=manifest.name,
        title=manifest.title,
        file_type=manifest.file_type,
        size=manifest.size,
        reasoning=manifest.reasoning,
        note=manifest.note,
        examples=manifest.examples,
    )


def _entry_of_file(found: Resolved) -> ModelEntry:
    header = found.header()
    return ModelEntry(
        name=found.name,
        title=header.name or found.name,
        file_type=header.file_type,
        size=header.file_size,
        reasoning=header.reasons,
    )
