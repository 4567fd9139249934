"""The store of models: blobs by sha256, names as references, a manifest with the provenance of each.

    blobs/        the files, read-only, each content once (`models.blobs`)
    refs/r1.json              the manifest of "r1"
    refs/r1/7b.json           the manifest of "r1:7b"
    removed/      manifests of removed models, until `prune` (`models.removed`)
    incoming/     transfers that are not complete (`models.incoming`)
    figures/      what was measured of files (`models.measured`)
    pins.json     digests as they were at the first fetch (`models.pins`)
    lock          held for the moment in which names change

A file gets its place by a rename after it was hashed and flushed to the disk: whatever is in `blobs` is
whole. Several processes may use a store at once. Stores of others, such as a team's folder on the network,
are looked into after one's own and never written to.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Final, TypeAlias

import msgspec

from localai import paths
from localai.errors import ModelNotFound, StoreError
from models import adding, blobs, files, incoming, library, locks, manifest, removed, usage
from models.adding import Bytes
from models.incoming import Unfinished, transfer_folder
from models.library import Library, Resolved
from models.manifest import Damaged, Manifest
from models.names import canonical, manifest_path
from models.origins import About, Origin, describe
from models.parts import read_whole
from models.progress import Progress, silent
from models.removed import Removed
from models.supported import check_may_allow

__all__ = ["Bytes", "Damaged", "Manifest", "Pruned", "Removed", "Resolved", "Store"]


Replace: TypeAlias = bool | Callable[[Manifest], bool]
"""Whether a name may lead to another model from now on; what it led to can be restored until `prune`."""
_DIGEST: Final = re.compile(rb"\b[0-9a-f]{64}\b")


class Pruned(msgspec.Struct, frozen=True):
    """What `Store.prune` gave back."""

    models: tuple[str, ...]
    """The names of removed models that are gone for good."""
    freed: int
    """Bytes."""
    unfinished: int
    """Bytes of these that were of fetches which did not come to their end."""


class Store(Library):
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
        """`free_space` tells the bytes that are free on the disk of a folder; `shared`: see `Library`."""
        super().__init__(root, shared=shared)
        self._free_space = free_space

    def incoming(self) -> AbstractContextManager[Path]:
        """A new private folder on the disk of the store, removed with its content at the end of the block."""
        return self._incoming()

    def arrived(self, key: str) -> int:
        """Bytes that earlier attempts at the fetch called `key` have brought."""
        return incoming.arrived(incoming.folder_of(self.root / "incoming", key))

    @contextmanager
    def fetching(
        self,
        key: str,
        name: str,
        total: int,
        on_wait: Callable[[Unfinished], None],
        command: str = "",
    ) -> Iterator[Path]:
        """The folder of a fetch, which outlives attempts: see `models.incoming.fetch_folder`."""
        with files.storage_errors(self.root):
            paths.private_dir(self.root)
            with incoming.fetch_folder(self.root / "incoming", key, name, total, on_wait, command) as folder:
                yield folder

    def require_free(self, name: str, *, replace: Replace = False) -> None:
        """UsageError if `name` cannot be a name; StoreError if it is taken and not to be replaced."""
        name = canonical(name)
        taken = [root for root in self._roots if os.path.lexists(manifest_path(root / "refs", name))]
        if not taken or replace is True:
            return
        known = library.read(taken[0] / "refs", manifest_path(taken[0] / "refs", name))
        if callable(replace) and isinstance(known, Manifest) and replace(known):
            return
        where = f" ({describe(known.source)})" if isinstance(known, Manifest) else ""
        free = f"Choose another name, or free this one: localai models rename {name} OTHER"
        raise StoreError(
            f"There is a model called {name} already{where}",
            free if taken[0] == self.root else "Choose another name",
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
        replace: Replace = False,
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
        check_may_allow(allow)
        name = canonical(name)
        self.require_free(name, replace=replace)
        read_whole(path, allow)
        with self.incoming() as folder, files.storage_errors(self.root):
            received = adding.receive(path, folder, known, move, self.require_space, on_progress)
            model = adding.described(received, name, source, about or About(), expect_sha256, allow, path)
            return self._publish(received.files, model, folder, replace)

    def adopt(
        self,
        sources: Sequence[Path],
        name: str,
        *,
        source: Origin,
        about: About | None = None,
        expect_sha256: str | None = None,
        replace: Replace = False,
        allow: Collection[str] = (),
        on_progress: Progress = silent,
    ) -> Manifest:
        """Store the model in the files `sources`, which stay where they are, without copying their bytes.

        They are hashed, then shared with their owner: by reflink or hard link where the disk can, else the
        store refers to them. Errors as of `add`.
        """
        check_may_allow(allow)
        name = canonical(name)
        self.require_free(name, replace=replace)
        with self.incoming() as folder, files.storage_errors(self.root):
            received = adding.share(sources, folder, on_progress)
            model = adding.described(
                received, name, source, about or About(), expect_sha256, allow, sources[0]
            )
            return self._publish(received.files, model, folder, replace)

    def name_again(
        self, model: Manifest, name: str, *, source: Origin, about: About, replace: Replace = True
    ) -> Manifest:
        """Call the files of `model`, which are in the store, `name`, too; nothing is read or copied.

        StoreError if they have gone meanwhile, or if the name is taken and not to be replaced.
        """
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
            return self._publish((), new, folder, replace)

    # ------------------------------------------------------------------------------------------ changing

    def remove(self, name: str) -> Removed | None:
        """Forget `name`; `restore` brings it back until `prune`. None if its manifest cannot be read.

        ModelNotFound without such a model, StoreError if only a shared store has it.
        """
        path, name = self._own_path(name), canonical(name)
        with files.storage_errors(self.root), self._names_locked():
            aside = removed.set_aside(self.root, path, name)
            self._tidy(path)
        return next((item for item in self.removed() if item.path == aside), None)

    def restore(self, name: str) -> Manifest:
        """Bring back the latest model that was removed as `name`.

        ModelNotFound if none was; StoreError if the name is taken; IntegrityError if its manifest is damaged,
        which is then back as it was.
        """
        name = canonical(name)
        target = manifest_path(self._refs, name)
        if not removed.paths(self.root):
            raise self._nothing_removed(name)
        with files.storage_errors(self.root), self._names_locked():
            found = [path for path in removed.paths(self.root) if removed.name_of(path) == name]
            if not found:
                raise self._nothing_removed(name)
            if os.path.lexists(target):
                raise StoreError(
                    f"There is a model called {name} already",
                    f"Free the name: localai models rename {name} OTHER",
                )
            paths.private_dir(target.parent)
            found[-1].replace(target)
            files.sync_folder(target.parent)
        return self.get(name)

    def _nothing_removed(self, name: str) -> ModelNotFound:
        known = sorted({item.manifest.name for item in self.removed()})
        hint = f"Removed models: {', '.join(known)}" if known else "No removed model is left"
        return ModelNotFound(f"No model called {name} was removed since the last prune", hint)

    def prune(self) -> Pruned:
        """Delete removed models for good, what no name leads to, and fetches that no process is at.

        StoreError, and nothing is deleted, if it cannot be known which files the names lead to.
        """
        with files.storage_errors(self.root):
            if not self.root.exists():
                return Pruned((), 0, 0)
            unfinished = incoming.discard_unfinished(self.root / "incoming")
            with self._names_locked():
                used = self._used(self._look_through(self.root)[0])
                gone = removed.paths(self.root)
                names = tuple(dict.fromkeys(filter(None, map(removed.name_of, gone))))
                for path in gone:
                    files.discard(path)
                freed = sum(self._drop(one) for one in blobs.sha256s(self.root) if one not in used)
        return Pruned(names, freed + unfinished, unfinished)

    def discard(self, items: Sequence[Removed]) -> int:
        """Delete these removed models for good, and nothing else; the bytes that became free.

        StoreError as of `prune`.
        """
        with files.storage_errors(self.root), self._names_locked():
            gone = {item.path for item in items}
            kept = [path for path in removed.paths(self.root) if path not in gone]
            used = self._used([*self._look_through(self.root)[0], *kept])
            for path in gone:
                files.discard(path)
            digests = {item.manifest.sha256 for item in items}
            return sum(self._drop(one) for one in digests - used)

    def rename(self, name: str, new: str) -> Manifest:
        """Call the model `name` by another name. ModelNotFound, UsageError, StoreError if that is taken."""
        old_path, new = self._own_path(name), canonical(new)
        target = manifest_path(self._refs, new)
        with self.incoming() as folder, files.storage_errors(self.root), self._names_locked():
            known = manifest.read(self._refs, old_path)
            if target == old_path:
                return known
            if os.path.lexists(target):
                raise StoreError(
                    f"There is a model called {new} already",
                    f"Free the name: localai models rename {new} OTHER",
                )
            model = msgspec.structs.replace(known, name=new)
            paths.private_dir(target.parent)
            files.write_atomic(target, manifest.encode(model), folder)
            files.discard(old_path)
            self._tidy(old_path)
        return model

    # ------------------------------------------------------------------------------------------- inside

    def _publish(self, staged: Sequence[Path], model: Manifest, scratch: Path, replace: Replace) -> Manifest:
        """Blob first, then the manifest: a name never leads to a file that is not there.

        What the name led to before is kept as if it had been removed.
        """
        target = manifest_path(self._refs, model.name)
        with self._names_locked():
            paths.private_dir(target.parent)
            previous = self._previous(target, model.name, replace)
            if not staged and not model.places and (found := self.fault(model)):
                raise StoreError(f"The file of {model.name} {found}", "Try again.")
            if staged and self._has_own(model) and model.sharing == "hard link":
                model = msgspec.structs.replace(model, sharing="")  # ours is as good, and nobody else's
                staged = ()
            written = scratch / "manifest"
            files.write_atomic(written, manifest.encode(model), scratch)
            if staged:
                blobs.place(self.root, model, staged, read_only=model.sharing != "hard link")
            if previous is not None and model.sha256.encode() not in previous:
                removed.keep(self.root, previous, model.name, scratch)
            written.replace(target)
            files.sync_folder(target.parent)
            for item in self.removed():  # it is back: to restore that, too, would be nothing
                if (item.manifest.name, item.manifest.sha256) == (model.name, model.sha256):
                    files.discard(item.path)
        return model

    def _previous(self, target: Path, name: str, replace: Replace) -> bytes | None:
        """The manifest that is about to be replaced. StoreError if it must not be."""
        if not os.path.lexists(target):
            return None
        known = library.read(self._refs, target)
        may = replace(known) if callable(replace) and isinstance(known, Manifest) else bool(replace)
        if not may:
            raise StoreError(
                f"There is a model called {name} already",
                f"Free the name: localai models rename {name} OTHER",
            )
        try:
            return manifest.raw(target)
        except (OSError, ValueError):
            removed.set_aside(self.root, target, name)
            return None

    def _has_own(self, model: Manifest) -> bool:
        """Whether the store has the files of `model`, of the right size, and shares them with nobody."""
        alone = msgspec.structs.replace(model, places=())
        found = blobs.in_store(self.root, alone)
        return blobs.fault([self.root], alone) is None and not any(map(blobs.is_shared, found))

    def _used(self, manifests: Sequence[Path]) -> set[str]:
        """The digests that `manifests` lead to. StoreError if one cannot be read so far."""
        unreadable = self._look_through(self.root)[1]
        found: set[str] = set()
        for path in manifests:
            try:
                data = manifest.raw(path)
            except (OSError, ValueError) as error:
                unreadable.append(Damaged(path, f"{path} cannot be read: {error}"))
                continue
            digests = _DIGEST.findall(data)
            if not digests:
                unreadable.append(Damaged(path, f"{path} is damaged"))
            found |= {digest.decode() for digest in digests}
        if unreadable:
            raise StoreError(
                f"Nothing is freed, because it is not known which files are needed: {unreadable[0].reason}",
                "Mend its rights, or remove the model",
            )
        return found

    def _drop(self, sha256: str) -> int:
        """Delete a blob that no manifest leads to; the bytes that became free."""
        usage.forget(sha256)
        return blobs.discard(self.root, sha256)

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
