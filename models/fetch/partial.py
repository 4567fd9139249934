"""A file that is written and read at any place by several threads."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Sequence
from pathlib import Path

from models.fetch.journal import PLAIN, flush


class Partial:
    """A file opened for a transfer, made if needed. What it does raises OSError where the disk fails."""

    def __init__(self, path: Path) -> None:
        """Links and whatever else is no plain file at `path` make room for a new file."""
        if not _is_plain(path):
            path.unlink(missing_ok=True)
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | PLAIN, 0o600)
        self._lock = threading.Lock()

    @property
    def size(self) -> int:
        """Its bytes, those among them that nobody has written."""
        return os.fstat(self._descriptor).st_size

    def resize(self, size: int) -> None:
        """Give it that many bytes: those that are new take no room yet, where the disk can do that."""
        os.ftruncate(self._descriptor, size)

    def write(self, pieces: Sequence[bytes], place: int) -> None:
        """Write one piece after the other from `place` on."""
        for piece in pieces:
            rest = memoryview(piece)
            while rest:
                taken = self._write(rest, place)
                rest, place = rest[taken:], place + taken

    def read(self, count: int, place: int) -> bytes:
        """Up to `count` bytes from `place` on."""
        if hasattr(os, "pread"):
            return os.pread(self._descriptor, count, place)
        with self._lock:
            os.lseek(self._descriptor, place, os.SEEK_SET)
            return os.read(self._descriptor, count)

    def flush(self) -> None:
        """Flush it to the disk."""
        flush(self._descriptor)

    def duplicate(self) -> int:
        """Another descriptor of it, for the caller to close."""
        return os.dup(self._descriptor)

    def close(self) -> None:
        """Must not be called while another thread reads or writes."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1

    def _write(self, data: memoryview, place: int) -> int:
        if hasattr(os, "pwrite"):
            return os.pwrite(self._descriptor, data, place)
        with self._lock:
            os.lseek(self._descriptor, place, os.SEEK_SET)
            return os.write(self._descriptor, data)


def _is_plain(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except FileNotFoundError:
        return True
