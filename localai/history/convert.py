"""A plain file of conversations becomes an encrypted one, and a crash at any moment loses nothing.

The encrypted copy is made beside it under another name, checked, and takes its place in one step. Until then
the plain file is whole; from then on the encrypted one is. What is left of the plain bytes has a name of its
own until they are overwritten, so the next start finds and overwrites them.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any, BinaryIO, Final

from localai.errors import HistoryError
from localai.history import database

_STEP: Final = 1024 * 1024
"""Bytes overwritten at once."""


def copy_path(path: Path) -> Path:
    """Where the encrypted copy is made."""
    return path.with_name(path.name + ".encrypting")


def plain_path(path: Path) -> Path:
    """The second name of the plain file, until it is overwritten."""
    return path.with_name(path.name + ".plain")


def encrypt(path: Path, key: bytes) -> None:
    """Encrypt the file `path` with `key`, if it is there and plain; finish what a crash interrupted.

    Raises HistoryError when the file is not ours, is damaged or in use, and NoSpace; it is then as it was.
    """
    with database.mapped(path, encrypted=False):
        if database.opens(path, key):
            if plain_path(path).exists():
                _remove(plain_path(path))
        elif database.is_plain(path):
            _encrypt(path, key)


def _encrypt(path: Path, key: bytes) -> None:
    raw = database.connect(path, None)
    try:
        database.check_ours(raw, path)
        _take_alone(raw, path)
        _copy(raw, path, key)
        _replace(path)
    finally:
        copy_path(path).unlink(missing_ok=True)
        # Only now: its lock has kept other programs away from the plain file.
        raw.close()


def _take_alone(raw: Any, path: Path) -> None:
    """Keep other programs away, and bring all that is in the log into the file."""
    with contextlib.ExitStack() as stack:
        log: BinaryIO | None = None
        with contextlib.suppress(FileNotFoundError):
            log = stack.enter_context(path.with_name(path.name + "-wal").open("r+b"))
        raw.execute("PRAGMA wal_checkpoint(FULL)").fetchall()
        raw.execute("PRAGMA locking_mode = EXCLUSIVE").fetchall()
        raw.execute("PRAGMA journal_mode = DELETE").fetchall()
        # The first to write keeps the lock.
        raw.execute("BEGIN EXCLUSIVE")
        raw.execute("COMMIT")
        if database.tuples(raw, "PRAGMA quick_check") != [("ok",)]:
            raise HistoryError(f"{path} is damaged", database.DAMAGED)
        if log is not None:
            _overwrite(log)


def _copy(raw: Any, path: Path, key: bytes) -> None:
    copy = copy_path(path)
    copy.unlink(missing_ok=True)
    database.create_private(copy)
    raw.execute(f"ATTACH DATABASE ? AS copy KEY {database.key_literal(key)}", (str(copy),))
    raw.execute("SELECT sqlcipher_export('copy')").fetchall()
    for pragma in ("user_version", "application_id"):
        value = database.tuples(raw, f"PRAGMA main.{pragma}")[0][0]
        raw.execute(f"PRAGMA copy.{pragma} = {value}")
    raw.execute("DETACH DATABASE copy")
    made = database.connect(copy, key)
    try:
        wrong = database.tuples(made, "PRAGMA cipher_integrity_check")
        wrong = wrong or database.tuples(made, "PRAGMA integrity_check")
    finally:
        made.close()
    if wrong != [("ok",)]:
        raise HistoryError(
            f"{path} could not be encrypted: the copy is not right ({wrong[0][0]})", "Try again"
        )
    database.sync(copy)


def _replace(path: Path) -> None:
    plain, copy = plain_path(path), copy_path(path)
    with path.open("r+b") as file:
        plain.unlink(missing_ok=True)
        # Without a second name (some file systems have none), only a crash within the next lines matters.
        with contextlib.suppress(OSError):
            os.link(path, plain)
        copy.replace(path)
        database.sync(path.parent)
        _overwrite(file)
        plain.unlink(missing_ok=True)


def _remove(path: Path) -> None:
    with path.open("r+b") as file:
        _overwrite(file)
    path.unlink()


def _overwrite(file: BinaryIO) -> None:
    """Zeros over all of an open file. What a disk of its own accord keeps elsewhere is out of reach."""
    left = file.seek(0, os.SEEK_END)
    file.seek(0)
    while left > 0:
        left -= file.write(bytes(min(left, _STEP)))
    file.flush()
    os.fsync(file.fileno())
