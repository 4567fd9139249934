"""Waiting for one's turn with a file that another process works on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from models import locks

_POLL: Final = 0.3


@contextmanager
def turn(lock: Path, meanwhile: Callable[[], None]) -> Iterator[bool]:
    """Hold the lock at `lock`; gives whether another process had it. `meanwhile` is called now and then.

    Where the system or the disk has no locks, nobody waits.
    """
    if lock.is_symlink():
        lock.unlink(missing_ok=True)
    descriptor = locks.take(lock, wait=False)
    waited = descriptor is None
    if waited:
        waiting = _Waiting(lock)
        waiting.start()
        try:
            while not waiting.over.wait(_POLL):
                meanwhile()
        except BaseException:
            waiting.give_up()
            raise
        descriptor = waiting.descriptor
    try:
        yield waited and descriptor is not None
    finally:
        _give_back(lock, descriptor)


def _give_back(lock: Path, descriptor: int | None) -> None:
    """Also delete the file: whoever waits for it sees that, and makes another."""
    if descriptor is not None:
        with suppress(OSError):
            lock.unlink(missing_ok=True)
    locks.release(descriptor)


class _Waiting(threading.Thread):
    """Waits for the lock: in a thread, for nothing can make that wait end."""

    def __init__(self, lock: Path) -> None:
        super().__init__(name="wait for a lock", daemon=True)
        self._lock, self._guard, self._unwanted = lock, threading.Lock(), False
        self.over = threading.Event()
        self.descriptor: int | None = None

    def run(self) -> None:
        with suppress(OSError):
            descriptor = locks.take(self._lock, wait=True)
            with self._guard:
                if self._unwanted:
                    _give_back(self._lock, descriptor)
                else:
                    self.descriptor = descriptor
        self.over.set()

    def give_up(self) -> None:
        """Nobody waits any more."""
        with self._guard:
            self._unwanted = True
            _give_back(self._lock, self.descriptor)
            self.descriptor = None
