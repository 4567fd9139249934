"""What happens when the system asks the chat to end."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

GRACE_S: Final = 16.0
"""For an orderly end: longer than `Jobs.stop` and, after it, `Session.close` ever take."""

LOOK_EVERY_S: Final = 1.0
"""How often one looks whether the terminal is still there."""
HANGUP: Final = 129
T = TypeVar("T")


async def run_orderly(
    run: Coroutine[Any, Any, T], end: Callable[[int], None], close: Callable[[], Coroutine[Any, Any, None]]
) -> T | int:
    """What `run` returns; or, if the system asked it to end, the exit code that this stands for.

    `end` asks it to end with an exit code. However it ends, a crash included, `close` is awaited behind it.
    """
    told: list[int] = []

    def tell(return_code: int) -> None:
        told.append(return_code)
        end(return_code)

    async def hang_up() -> None:
        await terminal_gone()
        tell(HANGUP)

    with orderly(tell):
        watch = asyncio.create_task(hang_up())
        try:
            returned = await run
        finally:
            watch.cancel()
            await close()
    # A terminal that is gone may have broken the screen before the signal came: the signal is the reason.
    return told[0] if told else returned


async def terminal_gone() -> None:
    """Wait until there is no terminal any more.

    Usually SIGHUP tells. Who is not the terminal's own session gets none, and reading then gives nothing,
    at once, for ever.
    """
    if not hasattr(select, "poll"):
        await asyncio.Event().wait()
    hung_up = select.poll()
    hung_up.register(sys.stdin.fileno(), 0)  # hang-ups and errors are always told
    while not hung_up.poll(0):  # noqa: ASYNC110 - the loop has no event for a hang-up
        await asyncio.sleep(LOOK_EVERY_S)


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


async def within(seconds: float, work: Coroutine[Any, Any, None]) -> bool:
    """Whether `work` ended in that time; if not, it is cancelled."""
    try:
        await asyncio.wait_for(work, seconds)
    except TimeoutError:
        return False
    return True
