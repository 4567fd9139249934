"""Folders for transfers, on the disk of the store.

Those of copies and of quantizations never outlive the work: each has a lock file beside it that its owner
holds, and what a killed process left behind is found by its lock being free. Those of fetches stay until the
model is complete: another attempt goes on in the same folder, and two at once take turns.
"""

from __future__ import annotations

import os
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import msgspec

from localai.errors import StoreError
from localai.paths import private_dir
from models import locks
from models.files import write_atomic

POLL_S: Final = 0.2
_KEPT: Final = "fetch-"
_KEY: Final = re.compile(r"[0-9a-f]{64}")
_NOTE: Final = "fetch.json"


class Unfinished(msgspec.Struct, frozen=True):
    """A fetch that did not come to its end."""

    name: str
    """What it was to be called."""
    total: int
    """Bytes in all; 0: not known."""
    arrived: int = 0
    """Bytes that are on the disk."""
    running: bool = False
    """Whether a process is at it."""
    command: str = ""
    """What goes on with it, behind `localai models`: such as "pull r1:7b"."""


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


@contextmanager
def fetch_folder(
    incoming: Path,
    key: str,
    name: str,
    total: int,
    on_wait: Callable[[Unfinished], None],
    command: str = "",
) -> Iterator[Path]:
    """The folder of the fetch with that `key` (64 hex digits), empty or as an earlier attempt left it.

    While another process is at the same fetch, `on_wait` is called several times a second; what it raises
    ends the wait. The block should call `done` when the model is in the store.
    """
    if not _KEY.fullmatch(key):
        raise StoreError(f"{key!r} is not the key of a transfer")
    private_dir(incoming)
    folder = folder_of(incoming, key)
    lock = _lock_of(folder)
    while (descriptor := locks.take(lock, wait=False)) is None and locks.AVAILABLE:
        on_wait(_look(folder, running=True) or Unfinished(name, total, running=True))
        time.sleep(POLL_S)
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        note = Unfinished(name, total, command=command)
        write_atomic(folder / _NOTE, msgspec.json.encode(note), folder)
        yield folder
    finally:
        if not any(path.name != _NOTE for path in _entries(folder)):
            done(folder)  # nothing has come: there is nothing to go on with
        if not folder.exists():
            lock.unlink(missing_ok=True)
        locks.release(descriptor)


def folder_of(incoming: Path, key: str) -> Path:
    """The folder of the fetch with that key, which need not be there."""
    return incoming / f"{_KEPT}{key}"


def done(folder: Path) -> None:
    """The fetch in `folder` is complete, or not wanted any more: nothing of it stays."""
    shutil.rmtree(folder, ignore_errors=True)


def unfinished(incoming: Path) -> list[Unfinished]:
    """The fetches that did not come to their end, or are still at it."""
    found = []
    for folder in sorted(incoming.glob(f"{_KEPT}*")):
        if folder.is_dir():
            one = _look(folder, running=_is_held(_lock_of(folder)))
            found += [one] if one else []
    return found


def discard_unfinished(incoming: Path) -> int:
    """Remove fetches that no process is at, and what killed processes left; the bytes that became free."""
    if not incoming.is_dir():
        return 0
    freed = _sweep(incoming)
    for folder in sorted(incoming.glob(f"{_KEPT}*")):
        if not folder.is_dir():
            continue
        descriptor = locks.take(_lock_of(folder), wait=False)
        if descriptor is None and locks.AVAILABLE:
            continue
        freed += arrived(folder)
        done(folder)
        _lock_of(folder).unlink(missing_ok=True)
        locks.release(descriptor)
    return freed


def _entries(folder: Path) -> list[Path]:
    with suppress(OSError):
        return list(folder.iterdir())
    return []


def _look(folder: Path, *, running: bool) -> Unfinished | None:
    try:
        note = msgspec.json.decode((folder / _NOTE).read_bytes(), type=Unfinished)
    except (OSError, msgspec.MsgspecError):
        return None
    return msgspec.structs.replace(note, arrived=arrived(folder), running=running)


def arrived(folder: Path) -> int:
    """Bytes that the files of a transfer take on the disk: partial files are sparse."""
    size = 0
    for place, _, names in os.walk(folder):
        for name in names:
            if name == _NOTE or name.endswith((".journal", ".lock")):
                continue
            with suppress(OSError):
                status = (Path(place) / name).lstat()
                size += min(getattr(status, "st_blocks", 1 << 60) * 512, status.st_size)
    return size


def _is_held(lock: Path) -> bool:
    """Whether a process holds the lock; not known where it may not be opened."""
    try:
        descriptor = locks.take(lock, wait=False)
    except OSError:
        return False
    locks.release(descriptor)
    return descriptor is None and locks.AVAILABLE


def _sweep(incoming: Path) -> int:
    """Remove what processes that are gone have left, but for fetches, which can go on; the bytes of it."""
    freed = 0
    for path in incoming.iterdir():
        if path.name.startswith(_KEPT):
            continue
        lock = path if path.suffix == ".lock" else _lock_of(path)
        descriptor = locks.take(lock, wait=False)
        if descriptor is None:
            continue
        freed += arrived(lock.with_suffix(""))
        shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
        lock.unlink(missing_ok=True)
        locks.release(descriptor)
    return freed


def _lock_of(folder: Path) -> Path:
    return folder.with_suffix(".lock")
