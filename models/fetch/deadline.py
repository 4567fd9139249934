"""Waits that end. A timeout of a socket begins anew with each byte, so that a server which sends one now and
then, and never what is waited for, would be waited for without end.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType


class Deadline:
    """A context manager: what is in it may take so many seconds, then `end` is called from another thread.

    `end` must be quick, and make it end. TimeoutError if it was called.
    """

    def __init__(self, seconds: float, end: Callable[[], None]) -> None:
        self.due, self.end = time.monotonic() + seconds, end
        self.is_over = False

    def __enter__(self) -> Deadline:
        _clock.add(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _clock.remove(self)
        if self.is_over and (error is None or isinstance(error, Exception)):
            raise TimeoutError("it took too long") from error


class _Clock:
    """Ends what is overdue, in one thread for all."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._running: set[Deadline] = set()
        self._awake_at = float("inf")
        self._thread: threading.Thread | None = None

    def add(self, one: Deadline) -> None:
        with self._changed:
            self._running.add(one)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="deadlines", daemon=True)
                self._thread.start()
            if one.due < self._awake_at:
                self._changed.notify()

    def remove(self, one: Deadline) -> None:
        """After this `one.end` is not called, nor does it run."""
        with self._changed:
            self._running.discard(one)

    def _run(self) -> None:
        with self._changed:
            while True:
                now = time.monotonic()
                for one in [one for one in self._running if one.due <= now]:
                    self._running.discard(one)
                    one.is_over = True
                    one.end()
                self._awake_at = min((one.due for one in self._running), default=float("inf"))
                self._changed.wait(None if self._awake_at == float("inf") else self._awake_at - now)


_clock = _Clock()
