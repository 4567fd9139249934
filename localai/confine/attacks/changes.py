"""Attempts to write, make, change or remove files."""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from localai.confine import calls
from localai.confine.attacks.kinds import Attack
from localai.confine.attacks.numbers import call
from localai.confine.attacks.targets import MODEL_MODE, Targets

_AT_FDCWD: Final = -100
_EXCHANGE: Final = 2
_PRIVATE: Final = 1 << 18
"""MS_PRIVATE."""
_GET_FLAGS, _SET_FLAGS = 0x80086601, 0x40086602
"""FS_IOC_GETFLAGS and FS_IOC_SETFLAGS."""


def _write(path: str, flags: int) -> None:
    """Open that file and write a byte into it."""
    opened = os.open(path, flags, 0o600)
    try:
        os.write(opened, b"x")
    finally:
        os.close(opened)


def _by_library(targets: Targets) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    opened = libc.open(targets.fresh("library").encode(), os.O_WRONLY | os.O_CREAT, 0o600)
    if opened < 0:
        raise calls.failed()
    os.close(opened)


def _by_reading(targets: Targets) -> None:
    """Opened only to be read, and made for that."""
    os.close(os.open(targets.fresh("reading"), os.O_RDONLY | os.O_CREAT, 0o600))


def _openat2(targets: Targets) -> None:
    how = struct.pack("=QQQ", os.O_WRONLY | os.O_CREAT, 0o600, 0)
    os.close(call("openat2", _AT_FDCWD, targets.fresh("openat2").encode(), how, len(how)))


def _creat(targets: Targets) -> None:
    os.close(call("creat", targets.fresh("creat").encode(), 0o600))


def _append_to_open(targets: Targets) -> None:
    """Write into a file that the app has open, if this process inherited it."""
    if os.fstat(targets.descriptor).st_ino != targets.inode:
        raise OSError(errno.EBADF, "another file")
    os.write(targets.descriptor, b"x")


def _exchange(targets: Targets) -> None:
    one, other = targets.victim("rename-exchange").encode(), targets.victim("exchanged").encode()
    call("renameat2", _AT_FDCWD, one, _AT_FDCWD, other, _EXCHANGE)


def _mount(targets: Targets) -> None:
    """Change how a mount is shared, of a folder that is none: the kernel says so only if it would have."""
    try:
        call("mount", None, targets.victim("mount").encode(), None, _PRIVATE, None)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise


@contextmanager
def _model(targets: Targets) -> Iterator[int]:
    """The model as a worker has it: open for reading."""
    opened = os.open(targets.model, os.O_RDONLY)
    try:
        yield opened
    finally:
        os.close(opened)


def _to_model(change: Callable[[int], object]) -> Callable[[Targets], None]:
    """An attempt to change the open model."""

    def attempt(targets: Targets) -> None:
        with _model(targets) as opened:
            change(opened)

    return attempt


def _own(descriptor: int) -> str:
    """The path by which a process opens anew what it has open."""
    return f"/proc/self/fd/{descriptor}"


def _device(targets: Targets) -> None:
    """A second /dev/null."""
    os.mknod(targets.fresh("device"), stat.S_IFCHR | 0o600, os.makedev(1, 3))


def _block_device(targets: Targets) -> None:
    """A way to a disk in memory, which nobody opens."""
    os.mknod(targets.fresh("block"), stat.S_IFBLK | 0o600, os.makedev(1, 0))


def _chmod_2(targets: Targets) -> None:
    call("fchmodat2", _AT_FDCWD, targets.model.encode(), MODEL_MODE, 0)


def _flags(opened: int) -> None:
    """Set the flags of the file, such as that it cannot be changed, to what they are."""
    import fcntl

    flags = fcntl.ioctl(opened, _GET_FLAGS, bytes(8))
    fcntl.ioctl(opened, _SET_FLAGS, flags)


def _attribute(opened: int) -> None:
    os.setxattr(opened, "user.localai", b"x")
    with suppress(OSError):
        os.removexattr(opened, "user.localai")


_NEW: Final = os.O_WRONLY | os.O_CREAT

ATTACKS: Final = {
    "new file": Attack("write", lambda targets: _write(targets.fresh("open"), _NEW)),
    "new file by the C library": Attack("write", _by_library),
    "new file to be read": Attack("write", _by_reading),
    "new file by openat2": Attack("write", _openat2),
    "new file by creat": Attack("write", _creat, "x86-64"),
    "file without a name": Attack(
        "write", lambda targets: _write(targets.folder, os.O_TMPFILE | os.O_WRONLY), "O_TMPFILE"
    ),
    "change a file": Attack("write", lambda targets: _write(targets.victim("change"), os.O_RDWR)),
    "change the model": Attack("write", lambda targets: _write(targets.model, os.O_RDWR)),
    "change the open model": Attack("write", _to_model(lambda opened: _write(_own(opened), os.O_RDWR))),
    "write into a file of the app": Attack("write", _append_to_open, "an inherited descriptor"),
    "append to a file": Attack(
        "write", lambda targets: _write(targets.victim("append"), os.O_WRONLY | os.O_APPEND)
    ),
    "empty a file": Attack("write", lambda targets: os.truncate(targets.victim("truncate"), 0)),
    "empty a file by opening it": Attack(
        "write", lambda targets: os.close(os.open(targets.victim("truncate"), os.O_RDONLY | os.O_TRUNC))
    ),
    "make a folder": Attack("write", lambda targets: Path(targets.fresh("folder")).mkdir()),
    "remove a folder": Attack("write", lambda targets: Path(targets.victim("rmdir")).rmdir()),
    "rename a file": Attack(
        "write",
        lambda targets: os.rename(targets.victim("rename"), targets.fresh("rename")),  # noqa: PTH104
    ),
    "exchange two files": Attack("write", _exchange, "a file system that can"),
    "remove a file": Attack("write", lambda targets: Path(targets.victim("unlink")).unlink()),
    "link to a file": Attack("write", lambda targets: os.link(targets.victim("link"), targets.fresh("link"))),
    "symbolic link": Attack("write", lambda targets: Path(targets.fresh("symbolic")).symlink_to("/")),
    "named pipe": Attack("write", lambda targets: os.mkfifo(targets.fresh("pipe"))),
    "device node": Attack("write", _device, "root"),
    "block device node": Attack("write", _block_device, "root"),
    "rights of the model": Attack("write", lambda targets: Path(targets.model).chmod(MODEL_MODE)),
    "rights of the open model": Attack("write", _to_model(lambda opened: os.fchmod(opened, MODEL_MODE))),
    "rights of the model by fchmodat2": Attack("write", _chmod_2, "Linux 6.6"),
    "owner of the open model": Attack(
        "write", _to_model(lambda opened: os.fchown(opened, os.geteuid(), os.getegid()))
    ),
    "times of the open model": Attack("write", _to_model(os.utime)),
    "attribute of the open model": Attack("write", _to_model(_attribute), "a file system that can"),
    "flags of the open model": Attack("write", _to_model(_flags), "a file system that can"),
    "mount": Attack("write", _mount, "root"),
}
