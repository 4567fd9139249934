"""Landlock: which files may be opened, and how. Every ABI from 1 on; what a newer one adds is used.

Whatever the rules do not name is refused: reading, writing, making, removing, renaming and executing files;
TCP from ABI 4 on, device ioctls from 5, signals and abstract sockets to other processes from 6, all threads
at once from 8, sockets with a path from 9.

Source: landlock(7) and linux/landlock.h.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
from collections.abc import Collection
from contextlib import suppress
from typing import Final

from localai.confine import calls
from localai.confine.syscalls import machine, number

NEWEST: Final = 9
"""The newest ABI whose rights this file knows."""
_READ_FILE, _READ_DIR, _WRITE_FILE = 1 << 2, 1 << 3, 1 << 1
_IOCTL_DEVICE = 1 << 15
_READ = _READ_FILE | _READ_DIR
_USE = _READ_FILE | _WRITE_FILE | _IOCTL_DEVICE
_FIRST_RIGHTS = (1 << 13) - 1
_ADDED: Final = {2: 1 << 13, 3: 1 << 14, 5: _IOCTL_DEVICE, 9: 1 << 16}
"""Rights about files by the ABI that brought them: REFER, TRUNCATE, IOCTL_DEV, RESOLVE_UNIX."""
_TCP = 0b11
_SCOPES = 0b11
_GET_VERSION = 1
_ALL_THREADS = 1 << 3
_PATH_BENEATH = 1


def version() -> int:
    """The ABI that the kernel speaks. OSError if it has no Landlock."""
    return calls.system_call(_number("landlock_create_ruleset"), None, 0, _GET_VERSION)


def restrict(
    reads: Collection[str], lists: Collection[str], devices: Collection[str], *, most: int = NEWEST
) -> tuple[int, list[int]]:
    """Let this process open `reads` (files, or whole folders) for reading, and `devices` for everything.

    Of `lists`, folders, it can see what is in them, and no more.

    Paths that are not there are left out. `most`: behave as under a kernel with no newer ABI. Returns the ABI
    and descriptors that must stay open: they keep entries of /proc and /sys in memory, which the kernel would
    otherwise make anew, with another identity than the rules know. OSError if the kernel has no Landlock.
    """
    abi = min(version(), most)
    rights = file_rights(abi)
    fields = [rights, *([_TCP] if abi >= 4 else []), *([_SCOPES] if abi >= 6 else [])]
    attributes = struct.pack(f"={len(fields)}Q", *fields)
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    ruleset = calls.system_call(_number("landlock_create_ruleset"), ctypes.byref(buffer), len(attributes), 0)
    held = []
    try:
        for access, paths in {_READ: reads, _READ_DIR: lists, _USE: devices}.items():
            for path in paths:
                with suppress(FileNotFoundError, NotADirectoryError, PermissionError):
                    held += _allow(ruleset, path, access & rights)
        flags = _ALL_THREADS if abi >= 8 else 0
        calls.system_call(_number("landlock_restrict_self"), ruleset, flags)
    finally:
        os.close(ruleset)
    return abi, held


def file_rights(abi: int) -> int:
    """The rights about files that a kernel with that ABI can refuse."""
    return _FIRST_RIGHTS | sum(right for since, right in _ADDED.items() if abi >= since)


def _allow(ruleset: int, path: str, access: int) -> list[int]:
    opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        if not stat.S_ISDIR(os.fstat(opened).st_mode):
            access &= ~_READ_DIR
        rule = struct.pack("=Qi", access, opened)
        buffer = ctypes.create_string_buffer(rule, len(rule))
        calls.system_call(_number("landlock_add_rule"), ruleset, _PATH_BENEATH, ctypes.byref(buffer), 0)
    except BaseException:
        os.close(opened)
        raise
    if path.startswith(("/proc/", "/sys/")):
        return [opened]
    os.close(opened)
    return []


def _number(name: str) -> int:
    on = machine()
    found = number(name, on) if on else None
    if found is None:
        raise OSError(errno.ENOSYS, "not for this processor")
    return found
