"""The models that the chat can choose from, get and remove: what it needs to know of them, and no more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Final, Protocol

import msgspec

from localai import policy
from localai.engine.settings import Sampling
from localai.errors import UsageError
from models import blobs, catalog, templates, usage
from models.catalog import Wanted
from models.figures import Figures
from models.header import Header
from models.known import Known
from models.machine import NO_GPUS, Gpus, this_machine
from models.manifest import Damaged, digests_of, is_of, repair_hint
from models.names import name_of
from models.origins import Builtin, Checkpoint
from models.store import Manifest, Resolved, Store
from tui.fitting import Fit, fit_of, fit_of_unseen
from tui.model_entry import ModelEntry, in_order, of_manifest, of_unfinished, of_wanted, wanted_of

__all__ = ["Freed", "ModelEntry", "ModelShelf", "ResolvedModel", "StoreShelf"]


NOT_LISTED: Final = "It is not on the list of models that your organization lets run."


class ResolvedModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model's file and how to use it."""

    entry: ModelEntry
    path: Path
    sha256: str = ""
    """Of the file, where it is known."""
    sampling: Sampling = Sampling()
    """What the model's manifest recommends; None in a field leaves it to the engine."""
    allow_architectures: tuple[str, ...] = ()
    """What the user allowed when it was added, beside the architectures of R1's models."""


class Freed(msgspec.Struct, frozen=True):
    """What `prune` frees."""

    removed: int
    """Bytes of models that were removed."""
    unfinished: int
    """Bytes of fetches that did not come to their end, and that no process is at."""


class ModelShelf(Protocol):
    """Where models come from. What reads the disk is not for the screen's own thread."""

    def entries(self) -> Sequence[ModelEntry]:
        """The installed models, in the order to show them."""

    def all(self) -> Sequence[ModelEntry]:
        """All that there is: installed models, those that can be had by name, and removed ones."""

    def types(self, name: str) -> Sequence[ModelEntry]:
        """The model of the catalogue called `name` in each type that it can be had in, the largest first."""

    def resolve(self, name: str) -> ResolvedModel:
        """The model of that name or path; ModelError if there is none."""

    def fit(self, entry: ModelEntry, given_back: int) -> Fit:
        """Whether this machine can run it, now. Reads its header.

        `given_back`: bytes of memory that become free when another model is loaded. LocalAIError if the
        file cannot be read.
        """

    def source(self, name: str) -> str:
        """What to quantize to get the model `name` in another type: a name, or a path."""

    def measured_types(self, name: str) -> Mapping[str, Figures]:
        """What was measured of what was made of the same as the model `name`, by its type. Reads files."""

    def used(self, sha256: str) -> None:
        """The model with that digest is used now, for a conversation that is kept."""

    def unread_template(self, name: str) -> str:
        """The chat template that the model of that name or path brings, if somebody has to read it first.

        "": nobody has to. Errors as in `resolve`. Reads its header.
        """

    def accept_template(self, template: str) -> None:
        """Let that template be run from now on. StoreError."""

    def remove(self, name: str) -> None:
        """Remove an installed model, until `restore` or `prune`. Errors as in `Store.remove`."""

    def last_removed(self) -> str:
        """The name of the model that was removed last; "" if none can be brought back."""

    def restore(self, name: str) -> None:
        """Bring back what was removed under that name. Errors as in `Store.restore`."""

    def prunable(self) -> Freed:
        """What `prune` would free."""

    def prune(self) -> int:
        """Make removals final, and throw away fetches that were interrupted; the bytes that became free."""


class StoreShelf:
    """The program's own model store, and files outside of it by their path."""

    def __init__(self, store: Store, allow: Collection[str] = (), gpus: Gpus = NO_GPUS) -> None:
        """`allow`: architectures of files by their path, beside those of R1's models.

        `gpus`: what the engine found beside the processor, where it was asked.
        """
        self._store, self._allow, self._gpus = store, allow, gpus
        self._headers: dict[str, Header] = {}
        """By the digest of the file."""

    def entries(self) -> Sequence[ModelEntry]:
        """The models in the store, by name."""
        return self._installed(self._store.manifests())

    def all(self) -> Sequence[ModelEntry]:
        """Also what is damaged, and what was begun to be fetched; of others, what `can_be_had`."""
        manifests = self._store.manifests()
        known = self._known(manifest.sha256 for manifest in manifests)
        installed = self._installed(manifests)
        told = [msgspec.structs.replace(entry, figures=known.of(entry.sha256)) for entry in installed]
        here = [*told, *map(self._entry_of_damaged, self._store.damaged())]
        removed = self._removed({manifest.sha256 for manifest in manifests})
        names = {entry.name for entry in (*here, *removed)}
        offered = [with_figures(Wanted(one, one.type, one.name), known) for one in catalog.entries()]
        available = {entry.name: entry for entry in offered if entry.name not in names and can_be_had(entry)}
        begun = {one.name: _going_on(of_unfinished(one)) for one in self._store.unfinished()}
        available |= {name: entry for name, entry in begun.items() if name not in names}
        return [*here, *available.values(), *removed]

    def types(self, name: str) -> Sequence[ModelEntry]:
        """Its own type goes by the short name."""
        entry = catalog.find(name)
        names = {
            one: entry.name if one == entry.type else f"{entry.name}:{one.lower()}" for one in entry.all_types
        }
        here = {one.name: one.sha256 for one in self._store.manifests() if is_of(one, entry)}
        known = self._known()
        found = [with_figures(Wanted(entry, one, called), known, here) for one, called in names.items()]
        return sorted(filter(can_be_had, found), key=lambda one: one.size, reverse=True)

    def resolve(self, name: str) -> ResolvedModel:
        """The model of that name in the store, or the GGUF file at that path."""
        found = self._store.resolve(name)
        if found.manifest is None:
            return ResolvedModel(entry=_entry_of_file(found, self._allow), path=found.path)
        allowed, wanted = found.manifest.allowed_architecture, found.manifest.sampling
        sampling = Sampling(temperature=wanted.temperature, top_p=wanted.top_p)
        return ResolvedModel(
            entry=of_manifest(found.manifest),
            path=found.path,
            sha256=found.manifest.sha256,
            sampling=sampling,
            allow_architectures=(allowed,) if allowed else (),
        )

    def fit(self, entry: ModelEntry, given_back: int) -> Fit:
        """From the header of the file; of one that is not here, from what the catalogue tells."""
        machine = this_machine(self._gpus, given_back=given_back)
        if not entry.installed:
            return fit_of_unseen(entry.base, entry.file_type, entry.size, entry.parameters, machine)
        found = self._store.resolve(entry.name)
        digest = found.manifest.sha256 if found.manifest else ""
        header = self._headers.get(digest)
        if header is None:
            header = self._headers[digest] = found.header()
        return fit_of(header, machine)

    def source(self, name: str) -> str:
        """What it was made from, if that is still here: to quantize twice would cost quality twice."""
        made_from = self._store.get(name).source
        if isinstance(made_from, Builtin):
            return str(catalog.builtin_checkpoint(made_from.checkpoint))
        if isinstance(made_from, Checkpoint) and made_from.path and Path(made_from.path).exists():
            return made_from.path
        return name

    def measured_types(self, name: str) -> Mapping[str, Figures]:
        """By what they were compared with."""
        return self._known().types_beside(self._store.get(name).sha256)

    def used(self, sha256: str) -> None:
        """Writes an empty file of the user's own."""
        usage.mark(sha256)

    def unread_template(self, name: str) -> str:
        """With R1's own markers, R1's own format is used whatever the template is."""
        return templates.unread(self._store.resolve(name).header(self._allow), templates.accepted())

    def accept_template(self, template: str) -> None:
        """Writes an empty file of the user's own."""
        templates.accept(template)

    def remove(self, name: str) -> None:
        """Only its manifest is set aside."""
        self._store.remove(name)

    def last_removed(self) -> str:
        """Also if that was in another run of the program."""
        removed = self._store.removed()
        return removed[-1].manifest.name if removed else ""

    def restore(self, name: str) -> None:
        """The latest of that name."""
        self._store.restore(name)

    def prunable(self) -> Freed:
        """What no other model has."""
        unfinished = sum(one.arrived for one in self._store.unfinished() if not one.running)
        return Freed(self._store.prunable(), unfinished)

    def prune(self) -> int:
        """Also what processes that were killed have left."""
        return self._store.prune().freed

    def _installed(self, manifests: Sequence[Manifest]) -> list[ModelEntry]:
        names = Counter(manifest.sha256 for manifest in manifests)
        return in_order(self._entry(manifest, names[manifest.sha256] == 1) for manifest in manifests)

    def _entry(self, manifest: Manifest, alone: bool) -> ModelEntry:
        own, fault = self._store.is_own(manifest.name), self._store.fault(manifest)
        entry = of_manifest(manifest, usage.last_used(manifest.sha256))
        if not isinstance(manifest.source, Builtin) and policy.current().has("forbid.pull"):
            entry = msgspec.structs.replace(entry, fetchable=False)
        if not policy.current().lists(digests_of(manifest)):
            entry = msgspec.structs.replace(entry, note=NOT_LISTED)
        repair = _repair(True) if entry.fetchable or not fault else repair_hint(manifest)
        return msgspec.structs.replace(
            entry,
            fault=f"Its file {fault}. {repair}" if fault else "",
            shared=not own,
            frees=self._held(manifest) if alone and own else 0,
        )

    def _known(self, digests: Iterable[str] | None = None) -> Known:
        return Known(digests, [self._store.root, *self._store.shared_roots])

    def _removed(self, installed: Collection[str]) -> list[ModelEntry]:
        """What can be brought back: of each name the latest. Bytes of digests in `installed` stay anyway."""
        latest = {item.manifest.name: item.manifest for item in self._store.removed()}
        return in_order(
            msgspec.structs.replace(
                of_manifest(one), place="removed", frees=0 if one.sha256 in installed else self._held(one)
            )
            for one in latest.values()
        )

    def _held(self, manifest: Manifest) -> int:
        return 0 if manifest.places else blobs.size_of(self._store.root, manifest.sha256)

    def _entry_of_damaged(self, item: Damaged) -> ModelEntry:
        try:
            name = name_of(self._store.root / "refs", item.path)
        except (UsageError, ValueError):
            name = item.path.stem
        wanted = wanted_of(name)
        fetchable = wanted is not None and can_be_had(of_wanted(wanted))
        fault = f"{item.reason}. {_repair(fetchable)}"
        return ModelEntry(name=name, title=name, fault=fault, fetchable=fetchable, undoable=False)


def with_figures(wanted: Wanted, known: Known, here: Mapping[str, str] = MappingProxyType({})) -> ModelEntry:
    """A model of the catalogue, with what is known of its file.

    `here`: the digests of those of its types that are installed, by their names.
    """
    digest = here.get(wanted.name, "")
    figures = known.of(digest) if digest else known.of_type(wanted.entry, wanted.type, here.values())
    return msgspec.structs.replace(of_wanted(wanted), figures=figures)


def can_be_had(entry: ModelEntry) -> bool:
    """Whether a model that is not here can be had: not over the network where the organization forbids it."""
    return (entry.fetchable and entry.download == 0) or not policy.current().has("forbid.pull")


def _going_on(entry: ModelEntry) -> ModelEntry:
    """A fetch that was begun; where the organization lets none go on, it can only be thrown away."""
    if not policy.current().has("forbid.pull"):
        return entry
    return msgspec.structs.replace(entry, fetchable=False, words=())


def _repair(fetchable: bool) -> str:
    return "Fetch it again, or remove it." if fetchable else "Remove it, then add it again."


def _entry_of_file(found: Resolved, allow: Collection[str]) -> ModelEntry:
    header = found.header(allow)
    return ModelEntry(
        name=found.name,
        title=header.name or found.name,
        file_type=header.file_type,
        size=header.file_size,
        reasoning=header.reasons,
    )
