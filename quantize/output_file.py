"""A file that is written piece by piece, in any order, and hashed and sent to the disk along the way.

What is complete from the beginning on is hashed by a thread of its own while the rest is still being made: a
large file need not be read again when it is complete, and its bytes are on the disk by then.
"""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from localai.errors import QuantizeError
from quantize.gguf_file import Layout

_CHUNK = 4 << 20
"""Bytes that are hashed at a time."""
_SYNC_EVERY = 64 << 20
"""Bytes that are written between two times that the disk is made to keep up."""


class OutputFile:
    """The open file `fd`, which is to become what `layout` describes, and which errors call `path`.

    `begin` first, then write from any thread, then `finish`, all in a `with` block. OSError as the system
    says.
    """

    def __init__(self, fd: int, path: Path, layout: Layout) -> None:
        self.fd, self.path, self.layout = fd, path, layout
        self._order = list(layout.entries)
        self._missing = {entry.name: entry.nbytes for entry in layout.entries}
        self._digest = hashlib.sha256()
        self._hashed = self._complete = self._unsynced = 0
        self._changed = threading.Condition()
        self._over = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._settle, name="settle", daemon=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._over = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join()

    def begin(self) -> None:
        """Set its room aside on the disk, and write the header."""
        with errors_about(self.path):
            allocate(self.fd, self.layout.nbytes)
            write_all(self.fd, self.layout.header(), 0)
        self._thread.start()
        with self._changed:
            self._advance()

    def write(self, name: str, offset: int, data: memoryview) -> None:
        """Write `data` of the tensor `name`, from `offset` within it on. No byte may be written twice."""
        if self._error is not None:
            raise self._error
        with errors_about(self.path):
            write_all(self.fd, data, self.layout.offsets[name] + offset)
        with self._changed:
            self._missing[name] -= data.nbytes
            self._unsynced += data.nbytes
            if self._missing[name] < 0:
                raise QuantizeError(f"the tensor {name!r} of {self.path} came twice")
            if not self._missing[name]:
                self._advance()
            elif self._unsynced >= _SYNC_EVERY:
                self._changed.notify()

    def finish(self, on_bytes: Callable[[int], None]) -> str:
        """The sha256 of the file, all of whose tensors were written; `on_bytes` gets how many are hashed."""
        if self._order:
            raise QuantizeError(f"the tensor {self._order[0].name!r} of {self.path} was not written")
        with self._changed:
            while self._hashed < self.layout.nbytes and self._error is None:
                on_bytes(self._hashed)
                self._changed.wait(0.25)
        if self._error is not None:
            raise self._error
        return self._digest.hexdigest()

    def _advance(self) -> None:
        """Note how far the file is complete from its beginning on."""
        while self._order and not self._missing[self._order[0].name]:
            self._order.pop(0)
        end = self.layout.offsets[self._order[0].name] if self._order else self.layout.nbytes
        self._complete = end
        self._changed.notify()

    def _settle(self) -> None:
        try:
            with errors_about(self.path):
                while self._step():
                    pass
        except BaseException as error:  # noqa: BLE001 - raised again by `finish`
            with self._changed:
                self._error = error
                self._changed.notify_all()

    def _step(self) -> bool:
        """Hash a chunk, or wait for one; whether there may be more."""
        with self._changed:
            while self._hashed == self._complete and not self._over and self._unsynced < _SYNC_EVERY:
                self._changed.wait()
            start, end = self._hashed, min(self._complete, self._hashed + _CHUNK)
            sync = self._unsynced >= _SYNC_EVERY
            if sync:
                self._unsynced = 0
            if self._over or start == self.layout.nbytes:
                return False
        if sync:
            _sync(self.fd)
        if end > start:
            data = os.pread(self.fd, end - start, start)
            if not data:
                raise QuantizeError(f"{self.path} became shorter by itself")
            self._digest.update(data)
            end = start + len(data)
            with self._changed:
                self._hashed = end
                self._changed.notify_all()
        return True


def _sync(fd: int) -> None:
    os.fdatasync(fd) if hasattr(os, "fdatasync") else os.fsync(fd)


def allocate(fd: int, nbytes: int) -> None:
    """Have the disk set the whole file aside: if it is too full, that shows now and not after an hour."""
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(fd, 0, nbytes)
            return
        except OSError as error:
            if error.errno not in {errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS}:  # it cannot do that
                raise
    os.ftruncate(fd, nbytes)


def write_all(fd: int, data: bytes | memoryview, offset: int) -> None:
    """Write `data` at `offset` of the open file `fd`."""
    view = memoryview(data)
    while view:
        count = os.pwrite(fd, view, offset)
        view, offset = view[count:], offset + count


@contextmanager
def errors_about(path: Path) -> Iterator[None]:
    """Errors of the system that name no file, because it was open already, get the name of `path`."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise
