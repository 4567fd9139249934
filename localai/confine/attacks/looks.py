"""Attempts to read what a worker has no business with: other files, the app's memory, the kernel's log."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from pathlib import Path
from typing import Final

from localai.confine.attacks.kinds import Attack
from localai.confine.attacks.numbers import call
from localai.confine.attacks.targets import SECRET, Targets

_AT_FDCWD: Final = -100
_HANDLE_BYTES: Final = 128


def _read(path: str | Path) -> str:
    """How much stands in that file; it is read whole, but for what has no end."""
    with Path(path).open("rb", buffering=0) as file:
        return f"{len(file.read(4096))} bytes"


def _secret_by_openat2(targets: Targets) -> None:
    how = struct.pack("=QQQ", os.O_RDONLY, 0, 0)
    os.close(call("openat2", _AT_FDCWD, targets.secret.encode(), how, len(how)))


def _secret_by_handle(targets: Targets) -> None:
    """Without a path: by the number that the file system has for the file."""
    handle = ctypes.create_string_buffer(struct.pack("=Ii", _HANDLE_BYTES, 0), 8 + _HANDLE_BYTES)
    call("name_to_handle_at", _AT_FDCWD, targets.secret.encode(), handle, ctypes.byref(ctypes.c_int()), 0)
    place = os.open(Path(targets.secret).parent, os.O_RDONLY)
    try:
        os.close(call("open_by_handle_at", place, handle, os.O_RDONLY))
    finally:
        os.close(place)


def _list(folder: str | Path) -> str:
    return f"{len(list(Path(folder).iterdir()))} names"


def _of_app(targets: Targets, name: str) -> Path:
    return Path(f"/proc/{targets.app}", name)


def _memory(targets: Targets) -> None:
    with _of_app(targets, "mem").open("rb", buffering=0) as memory:
        memory.seek(targets.address)
        if memory.read(len(SECRET)) != SECRET:
            raise OSError(errno.EIO, "another memory")


def _kernel_log_device(_: Targets) -> None:
    os.close(os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK))


ATTACKS: Final = {
    "file elsewhere": Attack("read", lambda targets: _read(targets.secret)),
    "file elsewhere by openat2": Attack("read", _secret_by_openat2),
    "file elsewhere by its handle": Attack("read", _secret_by_handle, "root"),
    "file of the system": Attack("read", lambda _: _read("/etc/passwd")),
    "folder elsewhere": Attack("read", lambda targets: _list(Path(targets.secret).parent)),
    "list of processes": Attack("read", lambda _: _list("/proc")),
    "environment of the app": Attack("read", lambda targets: _read(_of_app(targets, "environ"))),
    "command line of the app": Attack("read", lambda targets: _read(_of_app(targets, "cmdline"))),
    "memory map of the app": Attack("read", lambda targets: _read(_of_app(targets, "maps"))),
    "memory of the app": Attack("read", _memory, "the right to trace the app"),
    "open file of the app": Attack(
        "read", lambda targets: _read(_of_app(targets, f"fd/{targets.descriptor}"))
    ),
    "program of the app": Attack("read", lambda targets: str(_of_app(targets, "exe").readlink())),
    "folder of the app": Attack("read", lambda targets: _list(_of_app(targets, "cwd"))),
    "kernel log by its device": Attack("read", _kernel_log_device, "root"),
}
