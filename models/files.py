"""Writing large and small files so that they are whole or not there, and hashing on the way."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Final

from localai.errors import NoSpace, StoreError
from models.progress import Progress, silent

CHUNK: Final = 1024 * 1024
RESERVE: Final = 64 * 1024 * 1024
"""Bytes that stay free when a model is stored."""

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


def free_bytes(folder: Path) -> int:
    """Bytes that may still be written to the disk that holds `folder`, or will hold it."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free


def require_space(folder: Path, needed: int, free: Callable[[Path], int]) -> None:
    """NoSpace unless `needed` bytes fit on the disk of `folder` and `RESERVE` is left."""
    available = free(folder)
    if available < needed + RESERVE:
        raise NoSpace(
            f"Not enough space for {folder}: {megabytes(needed + RESERVE)} are needed, "
            f"{megabytes(available)} are free",
            "Free some space (localai models prune), or set LOCALAI_MODELS to a folder on a larger disk.",
        )


def megabytes(count: int) -> str:
    """`count` bytes in words."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


@contextmanager
def storage_errors(folder: Path) -> Iterator[None]:
    """Turn errors of the system into NoSpace or StoreError; `folder` is where we write."""
    try:
        yield
    except OSError as error:
        where = error.filename or folder
        if error.errno in _FULL:
            raise NoSpace(
                f"The disk is full: {where} could not be written",
                "Free some space (localai models prune), or set LOCALAI_MODELS to a folder on a larger disk.",
            ) from error
        if error.errno == errno.EFBIG:
            raise NoSpace(
                f"The file is too large for the disk of {where}: on FAT32, 4 GiB are the most",
                "Set LOCALAI_MODELS to a folder on a disk with another file system, such as exFAT.",
            ) from error
        if error.errno == errno.EROFS:
            raise StoreError(
                f"{where} cannot be written: it is on a disk that is only for reading",
                "Set LOCALAI_MODELS to a folder of your own; this one can stay in LOCALAI_SHARED_MODELS.",
            ) from error
        raise StoreError(
            f"{where} cannot be used: {error.strerror or error}", f"Check the rights of {folder}."
        ) from error


def pump(
    source: IO[bytes], target: IO[bytes] | None, total: int, step: str, on_progress: Progress = silent
) -> tuple[str, int]:
    """Read `source` to its end, or one byte past `total` if it is longer; write it to `target` if given.

    Returns the sha256 in hex and the number of bytes; more than `total` means that the source is too long.
    """
    digest, done = hashlib.sha256(), 0
    on_progress(step, 0, total)
    while chunk := source.read(min(CHUNK, total + 1 - done)):
        digest.update(chunk)
        if target is not None:
            target.write(chunk)
        done += len(chunk)
        on_progress(step, min(done, total), total)
        if done > total:
            break
    return digest.hexdigest(), done


def sha256_of(path: Path, on_progress: Progress = silent) -> str:
    """The sha256 of the file at `path`, in hex."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        return pump(file, None, size, "Checking", on_progress)[0]


def copy_hashed(source: Path, target: Path, on_progress: Progress = silent) -> str:
    """Copy to the new file `target`, flush it to the disk, and return the sha256 of what was copied."""
    with source.open("rb") as reader, target.open("xb") as writer:
        size = os.fstat(reader.fileno()).st_size
        digest, done = pump(reader, writer, size, "Copying", on_progress)
        if done != size:
            raise StoreError(f"{source} changed while it was copied", "Try again when it is complete.")
        writer.flush()
        os.fsync(writer.fileno())
    return digest


def place(staged: Path, target: Path, *, read_only: bool = True) -> None:
    """Give `staged`, flushed and made read-only, the name `target` on the same disk, atomically."""
    descriptor = os.open(staged, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    if read_only:
        staged.chmod(0o444)
    staged.replace(target)
    sync_folder(target.parent)


def write_atomic(path: Path, data: bytes, scratch: Path) -> None:
    """Write `data` to `path` by way of a temporary file in the folder `scratch` on the same disk."""
    staged = scratch / "staged"
    with staged.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    staged.replace(path)
    sync_folder(path.parent)


def discard(path: Path) -> None:
    """Delete a file, also a read-only one on a system where that needs the right to write."""
    if os.name != "posix":
        with suppress(OSError):
            path.chmod(0o600)
    path.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Flush the names in `folder` to the disk, where the system can do that."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # Some network and FAT disks cannot; the rename itself stands.
            raise
    finally:
        os.close(descriptor)
