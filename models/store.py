"""The store of models: blobs by sha256, names as references, a manifest with the provenance of each.

    blobs/sha256-<64 hex>     the files, read-only, each content once
    refs/r1.json              the manifest of "r1"
    refs/r1/7b.json           the manifest of "r1:7b"
    incoming/                 transfers that are not complete
    lock                      held for the moment in which names change

A file gets its place by a rename after it was hashed and flushed to the disk: whatever is in `blobs` is
whole. Several processes may use a store at once.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import lru_cache
from pathlib import Path

import msgspec

from localai import paths
from localai.errors import IntegrityError, ModelError, ModelNotFound, StoreError, UnsupportedModel
from models import catalog, files, locks, manifest
from models.gguf import Header, check_supported, read_header
from models.header import printable
from models.incoming import transfer_folder
from models.local_path import is_path, model_file
from models.manifest import Damaged, Manifest
from models.names import canonical, is_name, manifest_path, nearest
from models.origins import About, Builtin, Origin
from models.progress import Progress, silent

__all__ = ["Damaged", "Manifest", "Resolved", "Store"]


class Resolved(msgspec.Struct, frozen=True):
    """What the user's words for a model led to."""

    path: Path
    name: str
    """For people: the name in the store, or the name of the file."""
    manifest: Manifest | None
    """None: a file outside the store."""

    def header(self) -> Header:
        """The file's header, checked to be of a model that runs here."""
        try:
            known = self.path.stat()
        except OSError:
            header = read_header(self.path)  # says what is wrong
        else:
            header = _header(self.path, known.st_ino, known.st_size, known.st_mtime_ns)
        check_supported(header, self.path)
        return header


class Store:
    """The models below `root` (default: the user's own). Nothing is created before something is added."""

    def __init__(
        self, root: Path | None = None, *, free_space: Callable[[Path], int] = files.free_bytes
    ) -> None:
        """`free_space` tells the bytes that are free on the disk of a folder."""
        self.root = root or paths.models_dir()
        self._blobs = self.root / "blobs"
        self._refs = self.root / "refs"
        self._free_space = free_space

    def manifests(self) -> list[Manifest]:
        """All models, by name. Damaged manifests are left out: see `damaged`."""
        found = (self._read(path) for path in self._manifest_paths())
        return sorted((item for item in found if isinstance(item, Manifest)), key=lambda item: item.name)

    def damaged(self) -> list[Damaged]:
        """The manifests that cannot be used, and why."""
        found = (self._read(path) for path in self._manifest_paths())
        return [item for item in found if isinstance(item, Damaged)]

    def get(self, name: str) -> Manifest:
        """The manifest of `name`. ModelNotFound, saying what may be meant; IntegrityError if damaged."""
        path = manifest_path(self._refs, name)
        if not os.path.lexists(path):
            raise self._not_found(canonical(name))
        return manifest.read(self._refs, path)

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
        """The file of a model. IntegrityError if it is missing, not a plain file, or of another size."""
        if fault := self.fault(model):
            raise IntegrityError(
                f"The file of {model.name}, {self._blob(model.sha256)}, {fault}", manifest.repair_hint(model)
            )
        return self._blob(model.sha256)

    def verify(self, model: Manifest, on_progress: Progress = silent) -> None:
        """Hash the file of a model again. IntegrityError unless it is what was added."""
        path = self.path(model)
        with files.storage_errors(self.root):
            digest = files.sha256_of(path, on_progress)
        if digest != model.sha256:
            raise IntegrityError(
                f"The file of {model.name}, {path}, was changed or is damaged", manifest.repair_hint(model)
            )

    def resolve(self, text: str) -> Resolved:
        """What `text`, a name or a path, leads to. A name in the store wins over a file beside the user."""
        if not is_path(text):
            known = is_name(text) and os.path.lexists(manifest_path(self._refs, text))
            if known or not Path(text).exists():
                model = self.get(text)
                return Resolved(self.path(model), model.name, model)
        path = model_file(text)
        return Resolved(path, path.name, None)

    def incoming(self) -> AbstractContextManager[Path]:
        """A new private folder on the disk of the store, removed with its content at the end of the block."""
        return self._incoming()

    def require_free(self, name: str, *, replace: bool = False) -> None:
        """UsageError if `name` cannot be a name; StoreError if it is taken and not to be replaced."""
        name = canonical(name)
        if not replace and os.path.lexists(manifest_path(self._refs, name)):
            raise StoreError(
                f"There is a model called {name} already", f"Free the name: localai models remove {name}"
            )

    def require_space(self, needed: int) -> None:
        """NoSpace unless `needed` bytes can be written to the store."""
        with files.storage_errors(self.root):
            files.require_space(self.root, needed, self._free_space)

    def add(
        self,
        path: Path,
        name: str,
        *,
        source: Origin,
        about: About | None = None,
        expect_sha256: str | None = None,
        move: bool = False,
        replace: bool = False,
        on_progress: Progress = silent,
    ) -> Manifest:
        """Store the GGUF file at `path` as `name`, hashed while it is copied.

        With `move` the file itself becomes the blob where both are on one disk: it must be nobody else's.
        Raises ModelError for a file that does not run here, IntegrityError if the digest is not
        `expect_sha256`, NoSpace, and StoreError if the name is taken and not to be replaced; the store is
        then as it was before.
        """
        name = canonical(name)
        self.require_free(name, replace=replace)
        _check(path)
        with self.incoming() as folder, files.storage_errors(self.root):
            move = move and not path.is_symlink() and path.stat().st_dev == folder.stat().st_dev
            staged = path if move else folder / "model.gguf"
            digest = self._receive(path, staged, on_progress)
            if expect_sha256 not in (None, digest):
                raise IntegrityError(
                    f"{path} has the sha256 {digest} and not {expect_sha256}", "Fetch the file again."
                )
            header = _check(staged)
            model = manifest.describe(
                name, digest, header, about or About(), source, pinned=expect_sha256 is not None
            )
            self._publish(staged, model, folder)
        return model

    def remove(self, name: str) -> int:
        """Forget `name`. Returns the bytes that became free: 0 if another name has the same file."""
        path = manifest_path(self._refs, name)
        if not os.path.lexists(path):
            raise self._not_found(canonical(name))
        with files.storage_errors(self.root), self._names_locked():
            model = self._read(path)
            files.discard(path)
            for folder in path.parents[: len(path.relative_to(self._refs).parts) - 1]:
                with suppress(OSError):
                    folder.rmdir()
            return self._drop(model.sha256) if isinstance(model, Manifest) else 0

    # ------------------------------------------------------------------------------------------- inside

    def _receive(self, path: Path, staged: Path, on_progress: Progress) -> str:
        if staged == path:
            return files.sha256_of(path, on_progress)
        self.require_space(path.stat().st_size)
        return files.copy_hashed(path, staged, on_progress)

    def _publish(self, staged: Path, model: Manifest, scratch: Path) -> None:
        """Blob first, then the manifest: a name never leads to a file that is not there."""
        target = manifest_path(self._refs, model.name)
        with self._names_locked():
            paths.private_dir(self._blobs)
            paths.private_dir(target.parent)
            previous = self._read(target) if os.path.lexists(target) else None
            files.place(staged, self._blob(model.sha256))
            try:
                files.write_atomic(target, manifest.encode(model), scratch)
            except BaseException:
                self._drop(model.sha256)
                raise
            if isinstance(previous, Manifest) and previous.sha256 != model.sha256:
                self._drop(previous.sha256)

    def _drop(self, sha256: str) -> int:
        """Delete a blob that no manifest mentions, not even a damaged one; the bytes that became free."""
        blob = self._blob(sha256)
        if any(self._mentions(path, sha256) for path in self._manifest_paths()):
            return 0
        with suppress(FileNotFoundError):
            freed = blob.lstat().st_size
            files.discard(blob)
            return freed
        return 0

    def _mentions(self, path: Path, sha256: str) -> bool:
        with suppress(OSError, ValueError):
            return sha256.encode() in manifest.raw(path)
        return False

    def _blob(self, sha256: str) -> Path:
        return self._blobs / f"sha256-{sha256}"

    def fault(self, model: Manifest) -> str | None:
        """What is wrong with a model's file, as far as can be seen without reading it; None if nothing is."""
        try:
            status = self._blob(model.sha256).lstat()
        except FileNotFoundError:
            return "is missing"
        except OSError as error:
            return f"cannot be read: {error.strerror}"
        if not stat.S_ISREG(status.st_mode):
            return "is a link, which is refused"
        if status.st_size != model.size:
            return f"has {status.st_size} bytes and not {model.size}"
        return None

    def _manifest_paths(self) -> Iterator[Path]:
        with files.storage_errors(self.root):
            if self.root.exists() and not os.access(self.root, os.R_OK | os.X_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self.root))
            return iter(sorted(self._refs.rglob("*.json")))

    def _read(self, path: Path) -> Manifest | Damaged:
        try:
            return manifest.read(self._refs, path)
        except IntegrityError as error:
            return Damaged(path, error.message)

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
        if name in known:
            return ModelNotFound(f"{name} is not installed", f"Install it with: localai models pull {name}")
        installed = [model.name for model in self.manifests()]
        close = nearest(name, [*installed, *known])
        hints = [other if other in installed else f"{other} (localai models pull {other})" for other in close]
        hint = f"Did you mean {' or '.join(hints)}?" if hints else "See what there is: localai models list"
        return ModelNotFound(f"No model called {printable(name)!r} is installed", hint)


@lru_cache(4)
def _header(path: Path, *_: int) -> Header:
    """The header of a file that is what it was when these numbers were: to read it takes up to 0.1 s."""
    return read_header(path)


def _check(path: Path) -> Header:
    header = read_header(path)
    check_supported(header, path)
    if header.split_count > 1:
        raise UnsupportedModel(
            f"{path} is one of {header.split_count} files, and the store keeps models in one file",
            "Open it by its path, or join the parts: llama-gguf-split --merge",
        )
    return header
