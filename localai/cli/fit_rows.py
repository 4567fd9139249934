"""What `localai models fit` judges: installed models, files, and models of the catalogue."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from localai.errors import LocalAIError, ModelNotFound

if TYPE_CHECKING:
    from models.alternatives import Asked
    from models.catalog import Entry
    from models.figures import Figures
    from models.header import Header
    from models.known import Known
    from models.machine import Machine
    from models.need import Need
    from models.store import Resolved, Store
    from models.verdict import Verdict

CONTEXTS = (4_096, 16_384)
"""Tokens of context that memory is told for: a chat, and a long thought or a document."""


class Subject:
    """What is judged: a model of the catalogue in one type, or a file."""

    def __init__(
        self, name: str, file_type: str, *, entry: Entry | None = None, file: Resolved | None = None
    ):
        self.name, self.file_type, self.entry, self.file = name, file_type, entry, file

    def header(self) -> Header | None:
        """Of the file, or the one that it will have; None if the catalogue tells too little."""
        from models.sketch import sketch

        if self.file is not None:
            return self.file.header()
        assert self.entry is not None
        return sketch(self.entry, self.file_type)

    def figures(self, known: Known) -> Figures | None:
        """What was measured of it; of a file outside the store, nothing."""
        if self.file is not None:
            return known.of(self.file.manifest.sha256) if self.file.manifest else None
        assert self.entry is not None
        return known.of_type(self.entry, self.file_type)


class Row:
    """A model with its verdict."""

    def __init__(self, subject: Subject, machine: Machine, asked: Asked, known: Known) -> None:
        from models.alternatives import of_entry, of_header

        self.subject, self.asked, self.error = subject, asked, ""
        self.header: Header | None = None
        self.verdict: Verdict | None = None
        self._shared = machine.shared
        self.figures = subject.figures(known)
        try:
            self.header = subject.header()
            if subject.file is not None and self.header is not None:
                self.verdict = of_header(self.header, machine, asked)
            elif subject.entry is not None:
                self.verdict = of_entry(subject.entry, subject.file_type, machine, asked)
        except LocalAIError as error:
            self.error = str(error)

    @property
    def weights(self) -> int:
        """Bytes of all tensors; 0: not known."""
        return self.header.tensor_bytes if self.header else 0

    def need(self, context: int = 0) -> Need | None:
        """Memory with `context` tokens (0: those of the verdict); None if the model was trained for fewer."""
        from models import need

        if self.header is None or self.verdict is None:
            return None
        moved = 0 if self._shared else self.verdict.gpu_layers
        asked = context or self.verdict.context
        if asked > need.trained(self.header):
            return None
        return need.need(self.header, asked, self.asked.kv_type, gpu_layers=moved)

    def data(self) -> dict[str, Any]:
        """For programs."""
        asked = {self.verdict.context} if self.verdict and self.verdict.context else set()
        sizes = {one: self.need(one) for one in sorted({*CONTEXTS, *asked})}
        parts = self.need()
        return {
            "name": self.subject.name,
            "type": self.subject.file_type,
            "installed": self.subject.file is not None,
            "weights": self.weights,
            "kv_type": self.asked.kv_type,
            "memory": [{"context": one, "bytes": size.total} for one, size in sizes.items() if size],
            "parts": parts,
            "verdict": self.verdict,
            "figures": self.figures,
            "error": self.error,
        }


def subjects(name: str, store: Store) -> list[Subject]:
    """What `name` means: an installed model, a file, or a model of the catalogue, also with its types."""
    from models import catalog
    from models.local_path import is_path

    try:
        return [_installed(store.resolve(name))]
    except ModelNotFound:
        if is_path(name):
            raise
        known = {entry.name for entry in catalog.entries()}
        if not known & {name.lower(), name.lower().rpartition(":")[0]}:
            raise  # it knows also the names of installed models
    wanted = catalog.wanted(name)
    if wanted.name != wanted.entry.name:
        return [Subject(wanted.name, wanted.type, entry=wanted.entry)]
    return [Subject(_called(wanted.entry, one), one, entry=wanted.entry) for one in _types(wanted.entry)]


def _types(entry: Entry) -> list[str]:
    """The entry's own type first, then the others that can be had, the largest first."""
    from models.sketch import weight_bytes

    others = [one for one in entry.all_types if one != entry.type]
    return [entry.type, *sorted(others, key=lambda one: -weight_bytes(entry, one))]


def _called(entry: Entry, file_type: str) -> str:
    from models.alternatives import full_name

    return full_name(entry, file_type)


def _installed(model: Resolved) -> Subject:
    kind = model.manifest.file_type if model.manifest else model.header().file_type
    return Subject(model.name, kind, file=model)


def everything(store: Store) -> list[Subject]:
    """The installed models, then those of the catalogue in their usual type."""
    from models import catalog

    present = [one for one in store.manifests() if store.fault(one) is None]
    names = {one.name for one in present}
    here = [_installed(store.resolve(one.name)) for one in present]
    there = [Subject(one.name, one.type, entry=one) for one in catalog.entries() if one.name not in names]
    return [*here, *there]
