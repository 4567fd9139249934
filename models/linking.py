"""Giving a file a second name on the disk without a second copy of its bytes.

    reflink     a file of its own that shares the blocks until one of the two is written to, which the other
                never sees. Btrfs, XFS, ZFS and others on Linux (FICLONE), APFS on macOS (clonefile).
    hard link   the same file by another name, on any disk that knows them: its mode, its owner and its
                content are also the other name's, and not ours to change.

Neither is possible from one disk to another, on FAT and exFAT, and where the system does not let us link to a
file of somebody else's (Linux: fs.protected_hardlinks).
"""

from __future__ import annotations

import ctypes
import os
import stat
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, Literal, TypeAlias

from localai.errors import ModelFileError, ModelNotFound, StoreError

if sys.platform != "win32":
    import fcntl

Way: TypeAlias = Literal["reflink", "hard link"]
WAYS: Final[tuple[Way, ...]] = ("reflink", "hard link")

_FICLONE: Final = 0x40049409
"""Where Python does not know it (before 3.12): as on x86, ARM and RISC-V."""
_AT_FDCWD, _CLONE_NOOWNERCOPY = -2, 0x0002
"""Of macOS: a path counts from the folder we are in; the clone is ours, whoever owns the source."""


def bring(source: Path, target: Path, ways: Sequence[Way] = WAYS) -> Way | None:
    """Make the new file `target` have the bytes of `source` by the first of `ways` that works here.

    None if none does: then there is no `target`. Nothing about `source` changes, neither its mode nor its
    owner; if it is a link, the file that it leads to is meant. After "hard link" both are one file, after
    "reflink" they are two. Raises ModelNotFound or ModelFileError unless `source` is a readable regular file,
    StoreError if `target` is there already or `source` became another file meanwhile, and OSError if the
    folder of `target` cannot be written.
    """
    file = _resolved(source)
    descriptor = _opened(file)
    try:
        before = os.fstat(descriptor)
        for way in ways:
            if _MAKERS[way](descriptor, file, target):
                _require_the_same(descriptor, before, file, target, way)
                return way
    finally:
        os.close(descriptor)
    return None


def _resolved(source: Path) -> Path:
    try:
        file = source.resolve(strict=True)
        mode = file.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise ModelNotFound(f"There is no file {source}", "Check the path.") from None
    except (
        OSError,
        RuntimeError,
        ValueError,
    ) as error:  # RuntimeError: links in a circle, before Python 3.13
        raise _unreadable(source, error) from error
    if not stat.S_ISREG(mode):
        raise ModelFileError(f"{source} is not a file", "Give the path of a .gguf file.")
    return file


def _opened(file: Path) -> int:
    """A descriptor for reading. Whatever took the file's place since it was looked at is not waited for."""
    flags = ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY")
    try:
        descriptor = os.open(file, os.O_RDONLY | sum(getattr(os, flag, 0) for flag in flags))
    except OSError as error:
        raise _unreadable(file, error) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ModelFileError(f"{file} is not a file", "Give the path of a .gguf file.")
    return descriptor


def _unreadable(path: Path, error: Exception) -> ModelFileError:
    reason = getattr(error, "strerror", None) or error
    return ModelFileError(f"{path} cannot be read: {reason}", "Check the path and its rights.")


def _reflink(descriptor: int, _file: Path, target: Path) -> bool:
    if sys.platform == "darwin":
        return _clonefile(descriptor, target)
    if not sys.platform.startswith("linux"):
        return False
    new = _created(target)
    try:
        fcntl.ioctl(new, getattr(fcntl, "FICLONE", _FICLONE), descriptor)
    except OSError:
        target.unlink()
        return False
    finally:
        os.close(new)
    return True


def _created(target: Path) -> int:
    try:
        return os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise _taken(target) from None


def _clonefile(descriptor: int, target: Path) -> bool:
    """macOS. The new file has the mode of the source, but is an inode of its own."""
    if os.path.lexists(target):
        raise _taken(target)
    clone = getattr(ctypes.CDLL(None, use_errno=True), "fclonefileat", None)
    if clone is None:
        return False
    return bool(clone(descriptor, _AT_FDCWD, os.fsencode(target), _CLONE_NOOWNERCOPY) == 0)


def _hard_link(_descriptor: int, file: Path, target: Path) -> bool:
    try:
        os.link(file, target)
    except FileExistsError:
        raise _taken(target) from None
    except (OSError, NotImplementedError):
        return False
    return True


_MAKERS: Final[dict[Way, Callable[[int, Path, Path], bool]]] = {"reflink": _reflink, "hard link": _hard_link}


def _require_the_same(descriptor: int, before: os.stat_result, file: Path, target: Path, way: Way) -> None:
    """That `target` is what was opened, that the path still leads there, and that nobody wrote to it."""
    try:
        after, made = os.fstat(descriptor), target.lstat()
        same = os.path.samestat(after, made if way == "hard link" else file.lstat())
        kept = (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns)
        if same and kept and made.st_size == before.st_size:
            return
    except OSError:
        pass
    with suppress(OSError):
        target.unlink()
    raise StoreError(f"{file} changed while it was added", "Try again when it is complete.")


def _taken(target: Path) -> StoreError:
    return StoreError(f"{target} is there already", "Try again.")
