"""What stands at a path, by the mode that the system gives: a regular file, or something to be refused."""

from __future__ import annotations

import stat

_KINDS = {
    stat.S_IFREG: "a file",
    stat.S_IFDIR: "a folder",
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
}


def is_regular(mode: int) -> bool:
    """Whether `mode` (`st_mode`) is that of a regular file."""
    return stat.S_ISREG(mode)


def describe(mode: int) -> str:
    """The kind of what has `mode`, in words, such as "a named pipe"."""
    return _KINDS.get(stat.S_IFMT(mode), "not a file")
