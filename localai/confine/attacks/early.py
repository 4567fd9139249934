"""A thread that is older than the sandbox: not every layer holds for it."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Final

from localai.confine.attacks.kinds import Attack, Outcome, tried
from localai.confine.attacks.targets import Targets

SUFFIX: Final = ", in an older thread"
TRIES: Final = (
    "TCP connect",
    "UDP datagram",
    "new file",
    "rights of the model",
    "file elsewhere",
    "memory of the app",
    "start a program",
    "signal to the app",
    "trace the app",
    "a dump of memory",
)
"""What it tries, by name."""


class EarlyThread:
    """Waits from its making on, which must be before the process is confined, for what it is to try."""

    def __init__(self) -> None:
        self._asked: queue.SimpleQueue[Callable[[], Outcome] | None] = queue.SimpleQueue()
        self._outcomes: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name="older than the sandbox", daemon=True)
        self._thread.start()

    def tried(self, name: str, attack: Attack, targets: Targets) -> Outcome:
        """What comes of `attack` in that thread."""
        self._asked.put(lambda: tried(name + SUFFIX, attack, targets))
        return self._outcomes.get()

    def close(self) -> None:
        """End the thread."""
        self._asked.put(None)
        self._thread.join()

    def _serve(self) -> None:
        while ask := self._asked.get():
            self._outcomes.put(ask())
