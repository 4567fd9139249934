"""Whether another process has a file open for writing: then it may look whole and not be."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

if sys.platform == "linux":
    import fcntl


def being_written(path: Path) -> bool:
    """Whether some process has the file at `path` open for writing, as far as the system tells.

    Linux tells it of one's own files on local disks: it grants a lease for reading only where there is no
    writer. Elsewhere the answer is no.
    """
    if sys.platform != "linux":
        return False
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError):
        return False
    try:
        return not _lease_granted(descriptor)
    finally:
        os.close(descriptor)


def _lease_granted(descriptor: int) -> bool:
    """Whether nobody writes, or the system does not tell.

    Who wants to write while we have the lease waits until it is given back, at once; of that the system
    tells us by a signal, which is one here that is ignored unless it is wanted.
    """
    if sys.platform != "linux":
        return True
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except BlockingIOError:  # EAGAIN: somebody has it open for writing
        return False
    except OSError:
        return True
    fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return True
