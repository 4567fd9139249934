"""Where the bytes of the models are: in the store by their digest, or in a file that it refers to.

    blobs/sha256-<64 hex>                            a model in one file
    blobs/sha256-<64 hex>.parts/model-00001-of-...   one in several, under the digest of their digests

Nothing here reads a file's content.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from localai.paths import private_dir
from models import files
from models.manifest import Manifest, Place
from models.parts import name_of_part

FOLDER: Final = "blobs"
_STEM: Final = "model"


def blob(root: Path, sha256: str) -> Path:
    """Where a model in one file is, in the store at `root`."""
    return root / FOLDER / f"sha256-{sha256}"


def parts_folder(root: Path, sha256: str) -> Path:
    """Where the files of a model in several are."""
    return root / FOLDER / f"sha256-{sha256}.parts"


def in_store(root: Path, model: Manifest) -> list[Path]:
    """The files of `model`, in their order, if the store at `root` has them."""
    if not model.parts:
        return [blob(root, model.sha256)]
    folder, count = parts_folder(root, model.sha256), len(model.parts)
    return [folder / name_of_part(_STEM, number, count) for number in range(1, count + 1)]


def paths_of(roots: Sequence[Path], model: Manifest) -> list[Path]:
    """The files of `model`, in their order: where it refers to, or in the first of the stores that has it."""
    if model.places:
        return [Path(place.path) for place in model.places]
    found = [in_store(root, model) for root in roots]
    return next((paths for paths in found if os.path.lexists(paths[0])), found[0])


def fault(roots: Sequence[Path], model: Manifest) -> tuple[Path, str] | None:
    """A file of `model` and what is wrong with it, as far as can be seen without reading; None if nothing."""
    sizes = [part.size for part in model.parts] or [model.size]
    places: list[Place | None] = [*model.places] or [None] * len(sizes)
    for path, size, place in zip(paths_of(roots, model), sizes, places, strict=True):
        if found := _fault(path, size, place):
            return path, found
    return None


def is_missing(roots: Sequence[Path], model: Manifest) -> bool:
    """Whether a file of `model` is not there at all, rather than changed."""
    return any(not path.is_file() for path in paths_of(roots, model))


def _fault(path: Path, size: int, place: Place | None) -> str:
    try:
        status = path.lstat()
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if not stat.S_ISREG(status.st_mode):
        return "is a link, which is refused"
    if status.st_size != size:
        return f"has {status.st_size} bytes and not {size}"
    if place is not None and status.st_mtime_ns != place.modified_ns:
        return "was changed by another program since it was added"
    return ""


def place(root: Path, model: Manifest, staged: Sequence[Path], *, read_only: bool) -> None:
    """Give the `staged` files, which are flushed to the disk, their places; one that is there is replaced.

    `read_only`: unless the inodes are also another program's, whose rights are not ours to change.
    """
    targets = in_store(root, model)
    private_dir(root / FOLDER)
    if not model.parts:
        files.place(staged[0], targets[0], read_only=read_only)
        return
    folder = targets[0].parent
    private_dir(folder)
    for source, target in zip(staged, targets, strict=True):
        files.place(source, target, read_only=read_only)
    files.sync_folder(folder.parent)


def sha256s(root: Path) -> Iterator[str]:
    """The digests of all models whose files, or some of them, are in the store at `root`."""
    for path in sorted((root / FOLDER).glob("sha256-*")):
        digest = path.name.removeprefix("sha256-").removesuffix(".parts")
        if len(digest) == 64:
            yield digest


def size_of(root: Path, sha256: str) -> int:
    """Bytes of the files with that digest in the store at `root`."""
    return sum(_size(path) for path in _all(root, sha256))


def discard(root: Path, sha256: str) -> int:
    """Delete the files with that digest; the bytes that were theirs."""
    freed = 0
    for path in _all(root, sha256):
        freed += _size(path)
        with suppress(FileNotFoundError):
            files.discard(path)
    shutil.rmtree(parts_folder(root, sha256), ignore_errors=True)
    return freed


def is_shared(path: Path) -> bool:
    """Whether the file is a hard link that has another name elsewhere: to delete ours frees nothing."""
    with suppress(OSError):
        return path.lstat().st_nlink > 1
    return False


def _all(root: Path, sha256: str) -> list[Path]:
    return [blob(root, sha256), *sorted(parts_folder(root, sha256).glob("*"))]


def _size(path: Path) -> int:
    with suppress(OSError):
        status = path.lstat()
        return status.st_size if status.st_nlink <= 1 else 0
    return 0
