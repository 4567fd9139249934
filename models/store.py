"""The store of models: blobs by sha256, names as references, a manifest with the provenance of each.

    blobs/        the files, read-only, each content once (`models.blobs`)
    refs/r1.json              the manifest of "r1"
    refs/r1/7b.json           the manifest of "r1:7b"
    removed/      manifests of removed models, until `prune` (`models.removed`)
    incoming/     transfers that are not complete (`models.incoming`)
    pins.json     digests as they were at the first fetch (`models.pins`)
    lock          held for the moment in which names change

A file gets its place by a rename after it was hashed and flushed to the disk: whatever is in `blobs` is
whole. Several processes may use a store at once. Stores of others, such as a team's folder on the network,
are looked into after one's own and never written to.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import lru_cache
from pathlib import Path

import msgspec

from localai import paths
from localai.errors import IntegrityError, ModelError, ModelNotFound, StoreError, UsageError
from models import adding, blobs, catalog, files, incoming, locks, manifest, removed, usage
from models.adding import Bytes
from models.header import Header, printable
from models.incoming import Unfinished, transfer_folder
from models.local_path import is_path, model_file
from models.manifest import Damaged, Manifest
from models.names import canonical, is_name, manifest_path, nearest
from models.origins import About, Builtin, Origin
from models.parts import read_whole
from models.pins import Pins
from models.progress import Progress, silent
from models.removed import Removed

__all__ = ["Bytes", "Damaged", "Manifest", "Pruned", "Removed", "Resolved", "Store"]


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
        try:
            known = self.path.stat()
        except OSError:
            return read_whole(self.path, allow)  # says what is wrong
        return _header(self.path, tuple(allow), known.st_ino, known.st_size, known.st_mtime_ns)


class Pruned(msgspec.Struct, frozen=True):
    """What `Store.prune` gave back."""

    models: tuple[str, ...]
    """The names of removed models that are gone for good."""
    freed: int
    """Bytes."""
    unfinished: int
    """Bytes of these that were of fetches which did not come to their end."""


class Store:
    """The models below `root` (default: the user's own), and below those of others that are shared.

    Nothing is created before something is added.
    """

    def __init__(
        self,
        root: Path | None = None,
        *,
        shared: Sequence[Path] | None = None,
        free_space: Callable[[Path], int] = files.free_bytes,
    ) -> None:
        """`shared` (default: those of the environment if `root` is the user's own) are only read.

        `free_space` tells the bytes that are free on the disk of a folder.
        """
        self.root = root or paths.models_dir()
        if shared is None:
            shared = paths.shared_models_dirs() if root is None else ()
        self._roots = [self.root, *(folder for folder in shared if folder != self.root)]
        self._refs = self.root / "refs"
        self._free_space = free_space
        self.pins = Pins(self.root)

    # --------------------------------------------------------------------------------------- what is there

    def manifests(self) -> list[Manifest]:
        """All models, by name. Damaged manifests are left out: see `damaged`."""
        found: dict[str, Manifest] = {}
        for root in self._roots:
            for path in self._manifest_paths(root):
                item = _read(root / "refs", path)
                if isinstance(item, Manifest):
                    found.setdefault(item.name, item)
        return [found[name] for name in sorted(found)]

    def damaged(self) -> list[Damaged]:
        """The manifests that cannot be used, and why."""
        found = (_read(root / "refs", path) for root in self._roots for path in self._manifest_paths(root))
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

        A model that is shipped with the program is a toy, and the choice only where it is the only one.
        """
        present = (item for item in self.manifests() if self.fault(item) is None)
        return max(
            present,
            key=lambda item: (not isinstance(item.source, Builtin), item.reasoning, item.added),
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
        return blobs.is_missing(self._roots, model)

    def verify(self, model: Manifest, on_progress: Progress = silent) -> None:
        """Hash the files of a model again. IntegrityError unless they are what was added."""
        sizes = [part.sha256 for part in model.parts] or [model.sha256]
        done = 0
        for path, expected in zip(self.paths(model), sizes, strict=True):
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

    def disk_bytes(self, model: Manifest) -> int:
        """Bytes that the model takes in this store: none of a file that other names on the disk have, too."""
        if model.places or not self.is_own(model.name):
            return 0
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

    # ------------------------------------------------------------------------------------- before adding

    def incoming(self) -> AbstractContextManager[Path]:
        """A new private folder on the disk of the store, removed with its content at the end of the block."""
        return self._incoming()

    @contextmanager
    def fetching(
        self, key: str, name: str, total: int, on_wait: Callable[[Unfinished], None]
    ) -> Iterator[Path]:
        """The folder of a fetch, which outlives attempts: see `models.incoming.fetch_folder`."""
        with files.storage_errors(self.root):
            paths.private_dir(self.root)
            with incoming.fetch_folder(self.root / "incoming", key, name, total, on_wait) as folder:
                yield folder

    def unfinished(self) -> list[Unfinished]:
        """The fetches that did not come to their end yet."""
        return incoming.unfinished(self.root / "incoming")

    def require_free(self, name: str, *, replace: bool = False) -> None:
        """UsageError if `name` cannot be a name; StoreError if it is taken and not to be replaced."""
        name = canonical(name)
        if not replace and any(os.path.lexists(manifest_path(root / "refs", name)) for root in self._roots):
            raise StoreError(
                f"There is a model called {name} already", f"Free the name: localai models remove {name}"
            )

    def require_space(self, needed: int) -> None:
        """NoSpace unless `needed` bytes can be written to the store."""
        with files.storage_errors(self.root):
            files.require_space(self.root, needed, self._free_space)

    # -------------------------------------------------------------------------------------------- adding

    def add(
        self,
        path: Path,
        name: str,
        *,
        source: Origin,
        about: About | None = None,
        expect_sha256: str | None = None,
        known: Bytes | None = None,
        move: bool = False,
        replace: bool = False,
        allow: Collection[str] = (),
        on_progress: Progress = silent,
    ) -> Manifest:
        """Store the GGUF file at `path`, or the model of which it is the first part, as `name`.

        It is hashed while it is copied. `expect_sha256` is the digest that the file, or the model in parts,
        must have. `known` are the digests of files that this program itself has just written and hashed.
        With `move` the files themselves become the blobs where both are on one disk: they must be nobody
        else's. Raises ModelError for a file that does not run here, IntegrityError if the digest is another,
        NoSpace, and StoreError if the name is taken and not to be replaced; the store is then as it was.
        """
        name = canonical(name)
        self.require_free(name, replace=replace)
        read_whole(path, allow)
        with self.incoming() as folder, files.storage_errors(self.root):
            received = adding.receive(path, folder, known, move, self.require_space, on_progress)
            model = adding.described(received, name, source, about or About(), expect_sha256, allow, path)
            self._publish(received.files, model, folder)
        return model

    def adopt(
        self,
        sources: Sequence[Path],
        name: str,
        *,
        source: Origin,
        about: About | None = None,
        expect_sha256: str | None = None,
        replace: bool = False,
        allow: Collection[str] = (),
        on_progress: Progress = silent,
    ) -> Manifest:
        """Store the model in the files `sources`, which stay where they are, without copying their bytes.

        They are hashed, then shared with their owner: by reflink or hard link where the disk can, else the
        store refers to them. Errors as of `add`.
        """
        name = canonical(name)
        self.require_free(name, replace=replace)
        with self.incoming() as folder, files.storage_errors(self.root):
            received = adding.share(sources, folder, on_progress)
            model = adding.described(
                received, name, source, about or About(), expect_sha256, allow, sources[0]
            )
            self._publish(received.files, model, folder)
        return model

    def name_again(self, model: Manifest, name: str, *, source: Origin, about: About) -> Manifest:
        """Call the files of `model`, which are in the store, `name`, too; nothing is read or copied."""
        name = canonical(name)
        new = msgspec.structs.replace(
            model,
            name=name,
            source=source,
            title=about.title or model.title,
            license=about.license or model.license,
            reasoning=model.reasoning if about.reasoning is None else about.reasoning,
            note=about.note,
            sampling=about.sampling,
            examples=about.examples,
            pinned=True,
        )
        with self.incoming() as folder, files.storage_errors(self.root):
            self._publish((), new, folder)
        return new

    # ------------------------------------------------------------------------------------------ changing

    def remove(self, name: str) -> Removed | None:
        """Forget `name`; `restore` brings it back until `prune`. None if its manifest is damaged.

        ModelNotFound without such a model, StoreError if only a shared store has it.
        """
        path = self._own_path(name)
        with files.storage_errors(self.root), self._names_locked():
            model = _read(self._refs, path)
            if not isinstance(model, Manifest):
                files.discard(path)
                self._tidy(path)
                return None
            removed.set_aside(self.root, path)
            self._tidy(path)
        return next((item for item in reversed(self.removed()) if item.manifest == model), None)

    def removed(self) -> list[Removed]:
        """The models that `restore` can bring back, the oldest first."""
        return list(removed.all_of(self.root))

    def restore(self, name: str) -> Manifest:
        """Bring back the latest model that was removed as `name`. ModelNotFound; StoreError if it is taken."""
        name = canonical(name)
        found = [item for item in self.removed() if item.manifest.name == name]
        if not found:
            known = sorted({item.manifest.name for item in self.removed()})
            hint = f"Removed models: {', '.join(known)}" if known else "No removed model is left"
            raise ModelNotFound(f"No model called {name} was removed since the last prune", hint)
        target = manifest_path(self._refs, name)
        with files.storage_errors(self.root), self._names_locked():
            if os.path.lexists(target):
                raise StoreError(
                    f"There is a model called {name} already",
                    f"Free the name: localai models rename {name} OTHER",
                )
            paths.private_dir(target.parent)
            found[-1].path.replace(target)
            files.sync_folder(target.parent)
        return found[-1].manifest

    def prune(self) -> Pruned:
        """Delete removed models for good, what no name leads to, and fetches that no process is at."""
        with files.storage_errors(self.root):
            if not self.root.exists():
                return Pruned((), 0, 0)
            unfinished = incoming.discard_unfinished(self.root / "incoming")
            with self._names_locked():
                gone = self.removed()
                for path in removed.paths(self.root):
                    files.discard(path)
                digests = dict.fromkeys([*blobs.sha256s(self.root), *(item.manifest.sha256 for item in gone)])
                freed = sum(self._drop(digest) for digest in digests)
        names = tuple(dict.fromkeys(item.manifest.name for item in gone))
        return Pruned(names, freed + unfinished, unfinished)

    def prunable(self) -> int:
        """Bytes of the files that only removed models have: what `prune` would free of them."""
        digests = {item.manifest.sha256 for item in self.removed()}
        return sum(blobs.size_of(self.root, one) for one in digests if not self._is_used(one))

    def rename(self, name: str, new: str) -> Manifest:
        """Call the model `name` by another name. ModelNotFound, UsageError, StoreError if that is taken."""
        old_path, new = self._own_path(name), canonical(new)
        target = manifest_path(self._refs, new)
        with self.incoming() as folder, files.storage_errors(self.root), self._names_locked():
            if os.path.lexists(target):
                raise StoreError(
                    f"There is a model called {new} already", f"Free the name: localai models remove {new}"
                )
            model = msgspec.structs.replace(manifest.read(self._refs, old_path), name=new)
            paths.private_dir(target.parent)
            files.write_atomic(target, manifest.encode(model), folder)
            files.discard(old_path)
            self._tidy(old_path)
        return model

    # ------------------------------------------------------------------------------------------- inside

    def _publish(self, staged: Sequence[Path], model: Manifest, scratch: Path) -> None:
        """Blob first, then the manifest: a name never leads to a file that is not there."""
        target = manifest_path(self._refs, model.name)
        with self._names_locked():
            paths.private_dir(target.parent)
            previous = _read(self._refs, target) if os.path.lexists(target) else None
            if staged:
                own = model.sharing != "hard link"
                blobs.place(self.root, model, staged, read_only=own)
            try:
                files.write_atomic(target, manifest.encode(model), scratch)
            except BaseException:
                self._drop(model.sha256)
                raise
            if isinstance(previous, Manifest) and previous.sha256 != model.sha256:
                self._drop(previous.sha256)

    def _drop(self, sha256: str) -> int:
        """Delete a blob that no manifest mentions, not even a damaged one; the bytes that became free."""
        if self._is_used(sha256) or any(_mentions(path, sha256) for path in removed.paths(self.root)):
            return 0
        usage.forget(sha256)
        return blobs.discard(self.root, sha256)

    def _is_used(self, sha256: str) -> bool:
        return any(_mentions(path, sha256) for path in self._manifest_paths(self.root))

    def _own_path(self, name: str) -> Path:
        path = manifest_path(self._refs, name)
        if os.path.lexists(path):
            return path
        for root in self._roots[1:]:
            if os.path.lexists(manifest_path(root / "refs", name)):
                raise StoreError(
                    f"{canonical(name)} is in the shared store {root}, which is only read",
                    "Ask whoever keeps that store.",
                )
        raise self._not_found(canonical(name))

    def _tidy(self, path: Path) -> None:
        """Remove the folders of names that are empty without the manifest at `path`."""
        for folder in path.parents[: len(path.relative_to(self._refs).parts) - 1]:
            with suppress(OSError):
                folder.rmdir()

    def _manifest_paths(self, root: Path) -> list[Path]:
        with files.storage_errors(root):
            if root.exists() and not os.access(root, os.R_OK | os.X_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(root))
            return sorted((root / "refs").rglob("*.json"))

    @contextmanager
    def _incoming(self) -> Iterator[Path]:
        with files.storage_errors(self.root):
            paths.private_dir(self.root)
            with transfer_folder(self.root / "incoming") as folder:
                yield folder

    @contextmanager
    def _names_locked(self) -> Iterator[None]:
        with locks.held(self.root / "lock"):
            yield

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


def _read(refs: Path, path: Path) -> Manifest | Damaged:
    try:
        return manifest.read(refs, path)
    except IntegrityError as error:
        return Damaged(path, error.message)


def _mentions(path: Path, sha256: str) -> bool:
    with suppress(OSError, ValueError):
        return sha256.encode() in manifest.raw(path)
    return False


@lru_cache(4)
def _header(path: Path, allow: tuple[str, ...], *_: int) -> Header:
    """The header of a file that is what it was when these numbers were: to read it takes up to 0.1 s."""
    return read_whole(path, allow)
