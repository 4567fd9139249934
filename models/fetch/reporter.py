"""Sends events to the app: whole frames, from any thread, and how far it is several times a second.

Progress is sent by a thread of its own, so that an app which is slow to read slows down no transfer, and also
while nothing happens: the app learns in its own time that it may stop.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import BinaryIO, Final

from localai import frames
from models.fetch.protocol import Advance, Event, HeaderReady, pack

_EVERY_SECONDS: Final = 0.1


class Reporter:
    """A context manager: within it, the last `advance` is repeated until the next one, or the next answer."""

    def __init__(self, writer: BinaryIO) -> None:
        self._writer = writer
        self._lock = threading.Lock()
        self._state: Advance | None = None
        self._is_told = True
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._repeat, name="progress", daemon=True)

    def __enter__(self) -> Reporter:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()

    def advance(self, step: str, done: int, total: int) -> None:
        """Note how far it is; that is told soon, and at once where a new step begins."""
        before, self._state = self._state, Advance(step, done, total)
        self._is_told = False
        if before is None or before.step != step:
            with self._lock:
                self._tell()

    def send(self, event: Event) -> None:
        """Send `event` now, after what `advance` was told last. After an answer nothing is repeated."""
        with self._lock:
            if not self._is_told:
                self._tell()
            if not isinstance(event, HeaderReady):
                self._state = None
            frames.write_all(self._writer, pack(event))

    def _tell(self) -> None:
        if (state := self._state) is not None:
            self._is_told = True
            frames.write_all(self._writer, pack(state))

    def _repeat(self) -> None:
        with suppress(OSError):  # The app is gone, which ends this process anyway.
            while not self._ended.wait(_EVERY_SECONDS):
                with self._lock:
                    self._tell()
