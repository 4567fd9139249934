"""Folders for transfers, on the disk of the store, that never outlive the transfer.

Each has a lock file beside it that its owner holds: what a killed process left behind is found by its lock
being free, and removed by the next transfer.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from localai.paths import private_dir
from models import locks


@contextmanager
def transfer_folder(incoming: Path) -> Iterator[Path]:
    """A new empty folder below `incoming`, removed with all that is in it when the block ends."""
    private_dir(incoming)
    _sweep(incoming)
    folder = incoming / uuid.uuid4().hex
    lock = _lock_of(folder)
    descriptor = locks.take(lock, wait=True)
    try:
        folder.mkdir(mode=0o700)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        lock.unlink(missing_ok=True)
        locks.release(descriptor)


def _sweep(incoming: Path) -> None:
    """Remove what processes that are gone have left."""
    for path in incoming.iterdir():
        lock = path if path.suffix == ".lock" else _lock_of(path)
        descriptor = locks.take(lock, wait=False)
        if descriptor is None:
            continue
        shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
        lock.unlink(missing_ok=True)
        locks.release(descriptor)


def _lock_of(folder: Path) -> Path:
    return folder.with_suffix(".lock")
