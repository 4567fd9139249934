"""What this process can still do, found out by trying: nothing here changes anything.

Each attempt is one that fails in any case (a file that is not there, a program without a name), and the way
in which it fails tells whether the system would have let it happen.
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, Literal, NamedTuple, Self

from localai import offline
from localai.confine import calls, privileges
from localai.confine.syscalls import machine, number

Concern = Literal["network", "write", "read", "execute", "processes", "memory", "kernel"]
WORDS: Final[dict[Concern, str]] = {
    "network": "sockets",
    "write": "writing files",
    "read": "reading other files",
    "execute": "starting programs",
    "processes": "signals to other processes",
    "memory": "memory without a limit",
    "kernel": "kernel calls that it does not need",
}
"""What is open, if it is."""

_NOWHERE: Final = "/nonexistent/localai"
_READABLE: Final = ("/etc/passwd", "/etc/hostname", "/etc/hosts", "/etc/os-release", "/bin/sh")
"""Files that nearly every system has, and no worker needs."""
_WRITABLE: Final = ("/tmp", "/var/tmp", "/dev/shm")
_REFUSED: Final = (errno.EPERM, errno.EACCES, errno.ENOSYS)


class Outside(NamedTuple):
    """What this process can do now, and should not once it is confined."""

    readable: str
    """A file; the root folder where there is none of those that nearly every system has."""
    writable: str | None
    """A folder that takes a file without a name, of which nothing stays. None: there is none even now."""

    @classmethod
    def look(cls) -> Self:
        """To be called before the process is confined."""
        readable = next((path for path in _READABLE if os.access(path, os.R_OK)), os.sep)
        return cls(readable, next(filter(_takes_file, _WRITABLE), None))


def still_open(outside: Outside) -> list[Concern]:
    """What is open now."""
    readable, writable = outside
    attempts: dict[Concern, Iterable[Callable[[], object]]] = {
        "network": (
            # The filter knows no families: one of those that reach no network tells of all.
            lambda: socket.socket(socket.AF_UNIX).close(),
            _io_uring,
        ),
        "write": (
            *(() if writable is None else (lambda: _make_file(writable),)),
            lambda: Path(_NOWHERE).chmod(0o600),
            lambda: Path(_NOWHERE).unlink(),
            _write_to_open,
        ),
        "read": (lambda: os.close(os.open(readable, os.O_RDONLY)),),
        "execute": (lambda: os.execve(_NOWHERE, [_NOWHERE], {}), _fork),
        "processes": (lambda: os.kill(os.getppid(), 0), _limits_of_parent),
        "kernel": (_personality,),
    }
    found: list[Concern] = [
        concern for concern, tries in attempts.items() if not all(map(_is_refused, tries))
    ]
    if not _limited():
        found.append("memory")
    return found


def _takes_file(folder: str) -> bool:
    try:
        _make_file(folder)
    except OSError:
        return False
    return True


def _make_file(folder: str) -> None:
    """Make a file that has no name and is gone at once. Linux alone."""
    os.close(os.open(folder, os.O_TMPFILE | os.O_WRONLY, 0o600))


def _is_refused(attempt: Callable[[], object]) -> bool:
    try:
        with offline.lifted():  # what the system refuses is asked for, not what our own code does
            attempt()
    except OSError as error:
        return error.errno in _REFUSED
    return False


def _io_uring() -> None:
    """A ring without entries, which no kernel makes."""
    if machine() is not None:
        calls.system_call(425, 0, None)


def _fork() -> None:
    """A process that shares signal handlers but no memory, which no kernel makes."""
    on = machine()
    call = number("clone", on) if on else None
    if call is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    shared_handlers = 0x800
    calls.system_call(call, shared_handlers | signal.SIGCHLD, *[ctypes.c_void_p(None)] * 4)


def _write_to_open() -> None:
    """What may be written into a file that this process was handed open: all, but for a limit."""
    if resource.getrlimit(resource.RLIMIT_FSIZE)[0] != resource.RLIM_INFINITY:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))


def _limits_of_parent() -> None:
    """Look at a limit of the process that started this one. Linux alone."""
    if sys.platform == "linux":
        resource.prlimit(os.getppid(), resource.RLIMIT_NOFILE)


def _personality() -> None:
    """Ask how this process is run: no worker does, and no rule but the filter of calls refuses it."""
    if sys.platform == "linux" and ctypes.CDLL(None, use_errno=True).personality(0xFFFFFFFF) < 0:
        raise calls.failed()


def _limited() -> bool:
    now = {kind: resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_FSIZE, resource.RLIMIT_DATA)}
    dumped = resource.getrlimit(resource.RLIMIT_CORE)[0] != 0 or (
        sys.platform == "linux" and not privileges.is_memory_kept()
    )
    return not dumped and resource.RLIM_INFINITY not in now.values()
