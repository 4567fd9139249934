"""The models that the chat can choose from, get and remove: what it needs to know of them, and no more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from localai import hardware
from localai.engine.settings import Sampling
from localai.errors import UsageError
from models import catalog
from models.header import Header
from models.manifest import Damaged, is_fetched
from models.names import name_of
from models.origins import Builtin, Checkpoint, download_bytes, size_of
from models.store import Manifest, Resolved, Store
from tui.fitting import Fit, fit_of, fit_of_unseen


class ModelEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One model, as the models screen and the welcome page show it."""

    name: str
    """What the user types, such as "smollm2:135m"."""
    title: str
    file_type: str = ""
    """Such as "Q4_K_M"."""
    size: int = 0
    """Bytes of the file; 0: not known before it is there."""
    reasoning: bool = True
    note: str = ""
    """One sentence that a user should know, such as that this is not a reasoning model."""
    examples: tuple[str, ...] = ()
    """Questions that show what it can do; none: any will do."""
    installed: bool = True
    fault: str = ""
    """What is wrong with an installed model, and what to do."""
    fetchable: bool = False
    """Whether it is in the catalogue: it can be had, or had again, by its name."""
    download: int = 0
    """Bytes that come over the network if it is fetched; 0: none, it is made here."""
    frees: int = 0
    """Bytes that are free once it is removed: none if another name has the same file."""
    parameters: int = 0
    """Of one that is not here; 0: not known."""


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

    def available(self) -> Sequence[ModelEntry]:
        """The models that can be fetched by name and are not installed."""

    def damaged(self) -> Sequence[ModelEntry]:
        """The installed models of which nothing is known but a name, because what says more is damaged."""

    def resolve(self, name: str) -> ResolvedModel:
        """The model of that name or path; ModelError if there is none."""

    def fit(self, entry: ModelEntry, given_back: int) -> Fit:
        """Whether this machine can run it, now. Reads its header: not for the screen's own thread.

        `given_back`: bytes of memory that become free when another model is loaded. LocalAIError if the
        file cannot be read.
        """

    def source(self, name: str) -> str:
        """What to quantize to get the model `name` in another type: a name, or a path."""

    def remove(self, name: str) -> None:
        """Remove an installed model, until `restore` or `prune`. Errors as in `Store.remove`."""


class StoreShelf:
    """The program's own model store, and files outside of it by their path."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._headers: dict[str, Header] = {}
        """By the digest of the file."""

    def entries(self) -> Sequence[ModelEntry]:
        """The models in the store, by name."""
        manifests = self._store.manifests()
        files = Counter(manifest.sha256 for manifest in manifests)
        return [
            msgspec.structs.replace(
                _entry(manifest),
                fault=self._fault(manifest),
                frees=manifest.size if files[manifest.sha256] == 1 else 0,
            )
            for manifest in manifests
        ]

    def available(self) -> Sequence[ModelEntry]:
        """The models of the catalogue that are not in the store, in its order."""
        known = {entry.name for entry in (*self.entries(), *self.damaged())}
        return [_entry_of_catalog(entry) for entry in catalog.entries() if entry.name not in known]

    def damaged(self) -> Sequence[ModelEntry]:
        """The models whose manifests cannot be read."""
        return [self._entry_of_damaged(item) for item in self._store.damaged()]

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

    def fit(self, entry: ModelEntry, given_back: int) -> Fit:
        """From the header of the file; of one that is not here, from what the catalogue tells."""
        free, total = hardware.available_memory() + given_back, hardware.total_memory()
        if not entry.installed:
            return fit_of_unseen(entry.size, entry.parameters, free, total)
        found = self._store.resolve(entry.name)
        digest = found.manifest.sha256 if found.manifest else ""
        header = self._headers.get(digest)
        if header is None:
            header = self._headers[digest] = found.header()
        return fit_of(header, free, total)

    def source(self, name: str) -> str:
        """What it was made from, if that is still here: to quantize twice would cost quality twice."""
        made_from = self._store.get(name).source
        if isinstance(made_from, Builtin):
            return str(catalog.builtin_checkpoint(made_from.checkpoint))
        if isinstance(made_from, Checkpoint) and Path(made_from.path).exists():
            return made_from.path
        return name

    def remove(self, name: str) -> None:
        """Remove it from the store; it can be brought back."""
        self._store.remove(name)

    def _fault(self, manifest: Manifest) -> str:
        fault = self._store.fault(manifest)
        return f"Its file {fault}. {_repair(is_fetched(manifest))}" if fault else ""

    def _entry_of_damaged(self, item: Damaged) -> ModelEntry:
        try:
            name = name_of(self._store.root / "refs", item.path)
        except UsageError:
            name = item.path.stem
        fetchable = any(entry.name == name for entry in catalog.entries())
        fault = f"{item.reason}. {_repair(fetchable)}"
        return ModelEntry(name=name, title=name, fault=fault, fetchable=fetchable)


def _entry(manifest: Manifest) -> ModelEntry:
    return ModelEntry(
        name=manifest.name,
        title=manifest.title,
        file_type=manifest.file_type,
        size=manifest.size,
        reasoning=manifest.reasoning,
        note=manifest.note,
        examples=manifest.examples,
        fetchable=is_fetched(manifest),
    )


def _repair(fetchable: bool) -> str:
    return "Fetch it again, or remove it." if fetchable else "Remove it, then add it again."


def _entry_of_catalog(entry: catalog.Entry) -> ModelEntry:
    ready = entry.ready(entry.type)
    return ModelEntry(
        name=entry.name,
        title=entry.title,
        file_type=entry.type,
        size=(size_of(ready[0].source) if ready else 0) or entry.weights.get(entry.type, 0),
        reasoning=entry.reasoning,
        note=entry.note,
        examples=entry.examples,
        installed=False,
        fetchable=True,
        download=download_bytes(ready[0].source) if ready else 0,
        parameters=entry.parameters,
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
