"""Watching a file grow, for work whose only sign of life is its output."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

INTERVAL = 0.25
"""Seconds between looks."""


@contextmanager
def watch_growth(path: Path, on_size: Callable[[int], None]) -> Iterator[None]:
    """While the body runs, call `on_size` in a thread of its own with each new size of `path` in bytes."""
    over = threading.Event()
    thread = threading.Thread(target=_watch, args=(path, on_size, over), name="growth", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _watch(path: Path, on_size: Callable[[int], None], over: threading.Event) -> None:
    last = 0
    while not over.wait(INTERVAL):
        try:
            size = path.stat().st_size
        except OSError:
            continue
        if size != last:
            last = size
            on_size(size)
