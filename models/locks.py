"""Locks between processes, which end with the process that holds them, however it ends.

Where the system or the disk has none (Windows, some network folders), everything still works: renames are
atomic, and only the tidying up is left out.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

if sys.platform != "win32":
    import fcntl


AVAILABLE: Final = sys.platform != "win32"
"""Whether the system has such locks: without, nobody can tell whether another process holds one."""


def take(path: Path, *, wait: bool) -> int | None:
    """Lock the file at `path`, made if needed: a descriptor for `release`, or None if not to be had."""
    if sys.platform == "win32":
        return None
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            os.close(descriptor)
            return None
        except OSError:  # This disk knows no locks: everybody gets what passes for one.
            return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        # Whoever held it before may have deleted the file: then this is a lock that nobody else sees.
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        os.close(descriptor)


def release(descriptor: int | None) -> None:
    """Give back what `take` returned."""
    if descriptor is not None:
        os.close(descriptor)


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold the lock at `path` for as long as the block runs, after waiting for it."""
    descriptor = take(path, wait=True)
    try:
        yield
    finally:
        release(descriptor)
