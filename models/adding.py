"""How the files of a model get into the store: hashed, and copied, moved, or shared with their owner."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Final

import msgspec

from localai.errors import IntegrityError, ModelError, ModelFileError, StoreError
from models import files, linking, manifest
from models.gguf import read_header
from models.header import Header
from models.manifest import Manifest, Part, Place, Sharing
from models.origins import About, Origin
from models.parts import files_of, name_of_part, number_of, read_whole
from models.progress import Progress
from models.supported import ARCHITECTURES

STEM: Final = "model"


class Bytes(msgspec.Struct, frozen=True):
    """The digests of a model's files, in their order, known because this program has just written them."""

    sha256: tuple[str, ...]


class Received(msgspec.Struct, frozen=True):
    """The files of a model, hashed and ready to be given their places."""

    files: tuple[Path, ...]
    """In a folder of the store; none where the store only refers to them."""
    parts: tuple[Part, ...]
    sharing: Sharing = ""
    places: tuple[Place, ...] = ()


def receive(
    path: Path,
    folder: Path,
    known: Bytes | None,
    move: bool,
    require_space: Callable[[int], None],
    on_progress: Progress,
) -> Received:
    """Bring the model at `path` into `folder`: with `move` by a rename where the disk is the same."""
    sources = _files(path)
    progress = _Parts(sources, on_progress)
    disk = folder.stat().st_dev
    if move and not any(file.is_symlink() or file.stat().st_dev != disk for file in sources):
        digests = known.sha256 if known else [progress.sha256_of(file) for file in sources]
        return Received(tuple(sources), _parts(sources, digests))
    staged = [folder / name for name in _names(sources)]
    if all(linking.bring(*pair, ways=("reflink",)) for pair in zip(sources, staged, strict=True)):
        return Received(
            tuple(staged), _parts(staged, [progress.sha256_of(file) for file in staged]), "reflink"
        )
    for file in staged:
        file.unlink(missing_ok=True)
    require_space(progress.total)
    digests = [progress.copied(*pair) for pair in zip(sources, staged, strict=True)]
    return Received(tuple(staged), _parts(staged, digests))


def share(sources: Sequence[Path], folder: Path, on_progress: Progress) -> Received:
    """The model in the files `sources` without a copy of its bytes; by reference where no link can be made.

    StoreError if a file changes meanwhile, or if parts can neither be linked nor be opened where they are.
    """
    real = [file.resolve() for file in sources]
    staged = [folder / name for name in _names(real)]
    ways = [linking.bring(*pair) for pair in zip(real, staged, strict=True)]
    before = [_place(file) for file in real]
    progress = _Parts(real, on_progress)
    digests = [progress.sha256_of(file) for file in real]
    if before != [_place(file) for file in real]:
        raise StoreError(f"{real[0]} changed while it was read", "Try again when it is complete.")
    if all(ways):
        linked: Sharing = "hard link" if "hard link" in ways else "reflink"
        return Received(tuple(staged), _parts(staged, digests), linked)
    if real != files_of(real[0]):
        raise StoreError(
            f"The parts of {sources[0]} are on another disk, with names there that cannot be opened",
            f"Copy them instead: localai models import {sources[0]}",
        )
    return Received((), _parts(real, digests), "reference", tuple(before))


def described(
    received: Received,
    name: str,
    source: Origin,
    about: About,
    expect_sha256: str | None,
    allow: Collection[str],
    path: Path,
) -> Manifest:
    """The manifest of what was received from `path`. IntegrityError if it has not the digest that it should.

    The header is read from the files that stay: they are what was hashed.
    """
    header = _header(received, path, allow)
    model = manifest.describe(
        name,
        received.parts,
        header,
        about,
        source,
        pinned=expect_sha256 is not None,
        sharing=received.sharing,
        places=received.places,
        allowed_architecture="" if header.architecture in ARCHITECTURES else header.architecture,
    )
    if expect_sha256 not in (None, model.sha256):
        raise IntegrityError(
            f"{path} has the sha256 {model.sha256} and not {expect_sha256}", "Fetch the file again."
        )
    return model


def _header(received: Received, path: Path, allow: Collection[str]) -> Header:
    """Errors name the file that the user knows."""
    file = received.files[0] if received.files else Path(received.places[0].path)
    try:
        return read_whole(file, allow)
    except ModelError as error:
        raise type(error)(error.message.replace(str(file), str(path)), error.hint) from error


class _Parts:
    """Hashes files one after another, with one progress for all."""

    def __init__(self, paths: Sequence[Path], on_progress: Progress) -> None:
        self.total = sum(path.stat().st_size for path in paths)
        self._done = 0
        self._on_progress = on_progress

    def sha256_of(self, path: Path) -> str:
        """The digest of one file."""
        digest = files.sha256_of(path, self._tell)
        self._done += path.stat().st_size
        return digest

    def copied(self, source: Path, target: Path) -> str:
        """The digest of one file, which is copied to the new file `target`."""
        digest = files.copy_hashed(source, target, self._tell)
        self._done += target.stat().st_size
        return digest

    def _tell(self, step: str, done: int, _total: int) -> None:
        self._on_progress(step, self._done + done, self.total)


def _files(path: Path) -> list[Path]:
    """All files of the model at `path`, whose header is good; one that is alone may be called anything."""
    named = number_of(path.name)
    count = read_header(path).split_count
    if count == 1 and named and named[1] > 1:
        raise ModelFileError(
            f"{path} is named as part {named[0]} of {named[1]}, but says of itself that it is whole",
            "If it is whole, give it another name; else fetch or copy its parts again.",
        )
    return files_of(path) if count > 1 else [path]


def _names(paths: Sequence[Path]) -> list[str]:
    """What the files are called in the store, so that llama.cpp finds the parts by their names."""
    count = len(paths)
    return [f"{STEM}.gguf"] if count == 1 else [name_of_part(STEM, n, count) for n in range(1, count + 1)]


def _parts(paths: Sequence[Path], digests: Sequence[str]) -> tuple[Part, ...]:
    return tuple(Part(digest, path.stat().st_size) for path, digest in zip(paths, digests, strict=True))


def _place(path: Path) -> Place:
    status = path.stat()
    return Place(str(path), status.st_size, status.st_mtime_ns)
