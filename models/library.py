"""What is in the store of models, and in those of others that are shared: names, files, and what is wrong.

Nothing here changes anything: a store that can only be read is as good as any. `models.store` adds to it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Collection, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

import msgspec

from localai import paths, policy
from localai.errors import IntegrityError, ModelError, ModelNotFound, UsageError
from models import blobs, catalog, files, incoming, manifest, removed
from models.header import Header, printable
from models.incoming import Unfinished
from models.local_path import is_path, model_file
from models.manifest import Damaged, Manifest
from models.names import canonical, is_name, manifest_path, nearest
from models.origins import Builtin
from models.parts import read_whole
from models.pins import Pins
from models.progress import Progress, silent
from models.removed import Removed
from models.supported import check_may_allow


class Resolved(msgspec.Struct, frozen=True):
    """What the user's words for a model led to."""

    path: Path
    """Of the model's file, or of the first of its parts."""
    name: str
    """For people: the name in the store, or the name of the file."""
    manifest: Manifest | None
    """None: a file outside the store."""

    def header(self, allow: Collection[str] = ()) -> Header:
        """The header of all its files, checked to be of a model that runs here.

        `allow`: architectures beside those of R1's family; the one that the store allowed it counts too.
        """
        if self.manifest is not None and self.manifest.allowed_architecture:
            allow = (*allow, self.manifest.allowed_architecture)
        check_may_allow(allow)
        try:
            known = self.path.stat()
        except OSError:
            return read_whole(self.path, allow)  # says what is wrong
        return _header(self.path, tuple(allow), known.st_ino, known.st_size, known.st_mtime_ns)


class Library:
    """The models below `root` (default: the user's own), and below those of others that are shared."""

    def __init__(self, root: Path | None = None, *, shared: Sequence[Path] | None = None) -> None:
        """`shared` (default: those of the environment if `root` is the user's own) are only read."""
        self.root = root or paths.models_dir()
        if shared is None:
            shared = paths.shared_models_dirs() if root is None else ()
        self._roots = [self.root, *(folder for folder in shared if folder != self.root)]
        self._refs = self.root / "refs"
        self.pins = Pins(self.root)

    @property
    def shared_roots(self) -> list[Path]:
        """The stores of others."""
        return self._roots[1:]

    def manifests(self) -> list[Manifest]:
        """All models, by name. Damaged manifests are left out: see `damaged`."""
        found: dict[str, Manifest] = {}
        for root in self._roots:
            for path in self._look_through(root)[0]:
                item = read(root / "refs", path)
                if isinstance(item, Manifest):
                    found.setdefault(item.name, item)
        return [found[name] for name in sorted(found)]

    def damaged(self) -> list[Damaged]:
        """The manifests that cannot be used, the folders that cannot be looked into, and why."""
        found: list[Manifest | Damaged] = []
        for root in self._roots:
            manifests, unreadable = self._look_through(root)
            found += [read(root / "refs", path) for path in manifests]
            found += unreadable
        return [item for item in found if isinstance(item, Damaged)]

    def get(self, name: str) -> Manifest:
        """The manifest of `name`. ModelNotFound, saying what may be meant; IntegrityError if damaged."""
        for root in self._roots:
            path = manifest_path(root / "refs", name)
            if os.path.lexists(path):
                return manifest.read(root / "refs", path)
        raise self._not_found(canonical(name))

    def is_own(self, name: str) -> bool:
        """Whether the model called `name` is in one's own store, and not only in a shared one."""
        return os.path.lexists(manifest_path(self._refs, name))

    def default(self) -> Manifest | None:
        """The model for a user who names none: the newest that reasons, else the newest.

        A model that is shipped with the program is a toy, and the choice only where it is the only one. One
        that the organization lets nobody run is the choice only where there is no other.
        """
        lists = policy.current().lists
        present = (item for item in self.manifests() if self.fault(item) is None)
        return max(
            present,
            key=lambda item: (
                lists(manifest.digests_of(item)),
                not isinstance(item.source, Builtin),
                item.reasoning,
                item.added,
            ),
            default=None,
        )

    def path(self, model: Manifest) -> Path:
        """The file of a model, or the first of its parts. IntegrityError if one is missing or was changed."""
        return self.paths(model)[0]

    def paths(self, model: Manifest) -> list[Path]:
        """The files of a model, in their order. IntegrityError if one is missing or was changed."""
        if found := blobs.fault(self._roots, model):
            path, fault = found
            raise IntegrityError(f"The file of {model.name}, {path}, {fault}", manifest.repair_hint(model))
        return blobs.paths_of(self._roots, model)

    def fault(self, model: Manifest) -> str | None:
        """What is wrong with a model's file, as far as can be seen without reading it; None if nothing is."""
        found = blobs.fault(self._roots, model)
        return found[1] if found else None

    def is_missing(self, model: Manifest) -> bool:
        """Whether a file of the model is not there, rather than changed or damaged."""
        with files.storage_errors(self.root):
            return blobs.is_missing(self._roots, model)

    def verify(self, model: Manifest, on_progress: Progress = silent) -> None:
        """Hash the files of a model again. IntegrityError unless they are what was added."""
        done = 0
        for path, expected in zip(self.paths(model), manifest.digests_of(model), strict=True):
            with files.storage_errors(self.root):
                before = done

                def on_part(step: str, now: int, _total: int, before: int = before) -> None:
                    on_progress(step, before + now, model.size)

                digest = files.sha256_of(path, on_part)
                done += path.stat().st_size
            if digest != expected:
                raise IntegrityError(
                    f"The file of {model.name}, {path}, was changed or is damaged",
                    manifest.repair_hint(model),
                )

    def is_linked(self, model: Manifest) -> bool:
        """Whether a file of the model has other names on the disk: to remove it here frees nothing."""
        return any(map(blobs.is_shared, blobs.paths_of(self._roots, model)))

    def disk_bytes(self, model: Manifest) -> int:
        """Bytes that the model takes in this store: none of a file that other names on the disk have, too."""
        if model.places or not self.is_own(model.name):
            return 0
        with files.storage_errors(self.root):
            return blobs.size_of(self.root, model.sha256)

    def with_digest(self, sha256: str) -> Manifest | None:
        """A model, removed ones included, whose files have that digest and are there."""
        found = [*self.manifests(), *(item.manifest for item in self.removed())]
        return next((one for one in found if one.sha256 == sha256 and self.fault(one) is None), None)

    def resolve(self, text: str) -> Resolved:
        """What `text`, a name or a path, leads to. A name in the store wins over a file beside the user."""
        if not is_path(text):
            known = is_name(text) and any(
                os.path.lexists(manifest_path(root / "refs", text)) for root in self._roots
            )
            if known or not Path(text).exists():
                model = self.get(text)
                return Resolved(self.path(model), model.name, model)
        path = model_file(text)
        return Resolved(path, path.name, None)

    def removed(self) -> list[Removed]:
        """The models that `restore` can bring back, the oldest first."""
        return list(removed.all_of(self.root))

    def prunable(self) -> int:
        """Bytes of the files that only removed models have: what `prune` would free of them."""
        digests = {item.manifest.sha256 for item in self.removed()}
        used = {model.sha256 for model in self.manifests()}
        with files.storage_errors(self.root):
            return sum(blobs.size_of(self.root, one) for one in digests - used)

    def unfinished(self) -> list[Unfinished]:
        """The fetches that did not come to their end yet."""
        return incoming.unfinished(self.root / "incoming")

    def _look_through(self, root: Path) -> tuple[list[Path], list[Damaged]]:
        """The manifests of the store at `root`, and what cannot be looked into there.

        StoreError if it is one's own: that of others must not keep anybody from what is their own.
        """
        own = root == self.root
        if not own and not root.is_dir():
            return [], [Damaged(root, f"the shared store {root} is not there, or is not a folder")]
        with files.storage_errors(root):
            readable = os.access(root, os.R_OK | os.X_OK)
            if own and root.exists() and not readable:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(root))
        if not own and not readable:
            return [], [Damaged(root, f"the shared store {root} may not be read")]
        return walk(root / "refs")

    def _not_found(self, name: str) -> ModelError:
        known = [entry.name for entry in catalog.entries()]
        with suppress(ModelError, UsageError):
            catalog.wanted(name)
            known.append(name)
        if name in known:
            return ModelNotFound(f"{name} is not installed", f"Install it with: localai models pull {name}")
        installed = [model.name for model in self.manifests()]
        close = nearest(name, [*installed, *known])
        hints = [other if other in installed else f"{other} (localai models pull {other})" for other in close]
        hint = f"Did you mean {' or '.join(hints)}?" if hints else "See what there is: localai models list"
        return ModelNotFound(f"No model called {printable(name)!r} is installed", hint)


def walk(refs: Path) -> tuple[list[Path], list[Damaged]]:
    """All manifests below `refs`, and the folders there that cannot be looked into."""
    unreadable: list[Damaged] = []

    def failed(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            place = Path(error.filename or refs)
            unreadable.append(Damaged(place, f"{place} cannot be looked into: {error.strerror}"))

    found = [
        Path(folder) / name
        for folder, _, names in os.walk(refs, onerror=failed)
        for name in names
        if name.endswith(".json")
    ]
    return sorted(found), unreadable


def read(refs: Path, path: Path) -> Manifest | Damaged:
    """The manifest at `path` below `refs`, or why it cannot be used."""
    try:
        return manifest.read(refs, path)
    except IntegrityError as error:
        return Damaged(path, error.message)


@lru_cache(4)
def _header(path: Path, allow: tuple[str, ...], *_: int) -> Header:
    """The header of a file that is what it was when these numbers were: to read it takes up to 0.1 s."""
    return read_whole(path, allow)
