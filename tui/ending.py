"""What happens when the system asks the chat to end."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

GRACE_S: Final = 12.0
"""For an orderly end: longer than `Session.close` ever takes."""


@contextmanager
def orderly(end: Callable[[int], None]) -> Iterator[None]:
    """Inside, SIGTERM and SIGHUP call `end` in the running loop, with the exit code that they stand for.

    Handlers of the process and not of the loop: when a terminal takes no output, Textual waits in a blocking
    call and the loop stands still. Then the process ends after `GRACE_S` as it is; the store has the reply
    but for its last second.
    """
    loop = asyncio.get_running_loop()

    def handle(number: int, _frame: object) -> None:
        loop.call_soon_threadsafe(end, 128 + number)
        last = threading.Timer(GRACE_S, os._exit, [128 + number])
        last.daemon = True
        last.start()

    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
