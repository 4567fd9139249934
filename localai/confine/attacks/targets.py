"""What attacks aim at: listeners, files and memory prepared for them, so that nothing else is touched.

The app prepares them outside of the sandbox and hands their names to the worker that is to attack them.
"""

from __future__ import annotations

import ctypes
import os
import socket
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

import msgspec

from localai import offline

SECRET: Final = b"localai: nobody may read this"
"""What stands in the secret file, and in the memory of the app."""
VICTIMS: Final = (
    "append",
    "change",
    "exchanged",
    "link",
    "linkat",
    "rename",
    "rename-exchange",
    "renameat",
    "truncate",
    "unlink",
    "unlinkat",
)
"""Files that attacks change. Each has its own, so that none depends on another."""
FOLDERS: Final = ("mount", "rmdir", "rmdirat")
"""Empty folders for the same."""
MODEL_MODE: Final = 0o755
_HIGH: Final = 200
"""A descriptor that no process uses by itself."""
_PR_SET_PTRACER = 0x59616D61


class Targets(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where to aim. Numbers are 0 where this system has no such thing."""

    tcp_port: int
    tcp6_port: int
    udp_port: int
    unix_path: str
    abstract_name: str
    folder: str
    """May be written by this user; the victims are in it."""
    model: str
    """A file that the worker may read, but not change, nor execute, though it has the right for that."""
    secret: str
    """A file outside of what it may read."""
    program: str
    """A file that may be executed, but is none: the kernel says so once it was let read it."""
    app: int
    """The process to be attacked."""
    niceness: int
    """Of that process."""
    address: int
    """Where it has SECRET in memory."""
    descriptor: int
    """It has a file open for reading and writing there."""
    inode: int
    """Of that file."""

    def victim(self, name: str) -> str:
        """The file that the attack `name` may change."""
        return str(Path(self.folder, f"victim-{name}"))

    def fresh(self, name: str) -> str:
        """A path where nothing is yet."""
        return str(Path(self.folder, f"made-{name}"))


@contextmanager
def prepare(folder: Path, *, traceable: bool = False) -> Iterator[Targets]:
    """Targets below `folder`, which must be empty, aimed at this process. They are gone afterwards.

    `traceable`: where the system lets no process trace its parent, allow it, so that what it would close
    by itself is tried as well. OSError if the folder cannot be written.
    """
    folder.mkdir(exist_ok=True)
    buffer = ctypes.create_string_buffer(SECRET)
    with ExitStack() as stack:
        sockets = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="localai-")))
        unix_path, abstract = str(sockets / "socket"), f"\0localai-{os.getpid()}-{sockets.name}"
        _unix(stack, unix_path)
        if sys.platform == "linux":
            _unix(stack, abstract)
        opened = _open_high(stack, folder / "opened")
        if traceable:
            stack.enter_context(_traceable())
        yield Targets(
            tcp_port=_listen(stack, socket.AF_INET, "127.0.0.1", socket.SOCK_STREAM),
            tcp6_port=_listen(stack, socket.AF_INET6, "::1", socket.SOCK_STREAM),
            udp_port=_listen(stack, socket.AF_INET, "127.0.0.1", socket.SOCK_DGRAM),
            unix_path=unix_path,
            abstract_name=abstract,
            folder=_writable(folder / "folder"),
            model=_file(folder / "model.gguf", bytes(8192), MODEL_MODE),
            secret=_file(folder / "elsewhere" / "secret", SECRET),
            program=_file(folder / "program", b"not a program\n", 0o755),
            app=os.getpid(),
            niceness=os.getpriority(os.PRIO_PROCESS, 0),
            address=ctypes.addressof(buffer),
            descriptor=opened,
            inode=os.fstat(opened).st_ino,
        )


def state(folder: Path) -> Mapping[str, tuple[object, ...]]:
    """What is below `folder`: kind, rights, owner, links and content, but not when it was changed."""
    found: dict[str, tuple[object, ...]] = {}
    for path in folder.rglob("*"):
        entry = path.lstat()
        content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        found[str(path.relative_to(folder))] = (entry.st_mode, entry.st_uid, entry.st_nlink, content)
    return found


def changed(
    before: Mapping[str, tuple[object, ...]], after: Mapping[str, tuple[object, ...]]
) -> tuple[str, ...]:
    """The paths that are not the same in two results of `state`."""
    return tuple(sorted(name for name in {*before, *after} if before.get(name) != after.get(name)))


def _listen(stack: ExitStack, family: int, host: str, kind: int) -> int:
    """The port of a listener; 0: there cannot be one. The kernel itself takes what comes."""
    with suppress(OSError), offline.lifted():
        listener = stack.enter_context(socket.socket(family, kind))
        listener.bind((host, 0))
        if kind == socket.SOCK_STREAM:
            listener.listen(64)
        return int(listener.getsockname()[1])
    return 0


def _unix(stack: ExitStack, address: str) -> None:
    listener = stack.enter_context(socket.socket(socket.AF_UNIX))
    listener.bind(address)
    listener.listen(64)


def _open_high(stack: ExitStack, path: Path) -> int:
    """A file open under a high number, which a process inherits unless who starts it takes care."""
    import fcntl

    low = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    os.write(low, SECRET)
    high = fcntl.fcntl(low, fcntl.F_DUPFD, _HIGH)
    os.close(low)
    stack.callback(os.close, high)
    return high


def _writable(folder: Path) -> str:
    folder.mkdir()
    for name in VICTIMS:
        _file(folder / f"victim-{name}", b"victim")
    for name in FOLDERS:
        (folder / f"victim-{name}").mkdir()
    return str(folder)


def _file(path: Path, content: bytes, mode: int = 0o644) -> str:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    path.chmod(mode)
    return str(path)


@contextmanager
def _traceable() -> Iterator[None]:
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_PTRACER, ctypes.c_ulong(2**64 - 1), 0, 0, 0)
    try:
        yield
    finally:
        libc.prctl(_PR_SET_PTRACER, 0, 0, 0, 0)
