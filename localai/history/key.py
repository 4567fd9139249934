"""The key of the conversations: 32 random bytes in the system's keyring, or wrapped by a passphrase, or both.

Contract: what a function has written when it returns is there after a crash, and a crash at any moment leaves
a key that opens the conversations. The file that says how the key is kept, and holds it where a passphrase
protects it, lies in the folder for settings, never beside the data. While the database gets another key
(`begin_rekey`, `History.rekey`, `finish_rekey`), both are kept; after a crash, `unlock` sees which one it is.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec

from localai import paths
from localai.errors import HistoryError, HistoryLocked
from localai.history import database, keyring, managed, wrap

Way = Literal["keyring", "passphrase"]

_VERSION: Final = 1
_BACKUP: Final = "Restore it from a backup; without it the conversations cannot be opened"


class Protection(msgspec.Struct, frozen=True):
    """How the conversations are protected, as the user chose."""

    ways: tuple[Way, ...]
    """From where the key can be had; empty: the conversations are plain."""


class _Kept(msgspec.Struct, frozen=True, omit_defaults=True):
    """One key and where it is."""

    entry: str = ""
    """Its name in the keyring, if it is there."""
    envelope: wrap.Envelope | None = None

    @property
    def ways(self) -> tuple[Way, ...]:
        found: list[Way] = ["keyring"] if self.entry else []
        return (*found, "passphrase") if self.envelope else (*found,)


class _File(msgspec.Struct, frozen=True, omit_defaults=True):
    key: _Kept
    """Without a way: the conversations are plain."""
    next: _Kept | None = None
    """While the database gets another key."""
    version: Annotated[int, msgspec.Meta(ge=_VERSION, le=_VERSION)] = _VERSION


def key_path() -> Path:
    """The file that says how the key is kept."""
    return paths.config_dir() / "history-key.json"


def protection() -> Protection | None:
    """What the user chose; None: nothing yet. Raises HistoryError for a damaged file."""
    file = _read()
    return None if file is None else Protection(file.key.ways)


def keyring_problem() -> str:
    """Why the system's keyring cannot be used, in a few words; empty if it can."""
    return keyring.problem()


def create(ways: Sequence[Way], passphrase: str | None = None) -> bytes | None:
    """Make a key and keep it; None without `ways`: the conversations are then plain.

    Raises HistoryError when there is a key already, or there are conversations that a lost one encrypted, and
    HistoryLocked without the passphrase that `ways` asks for; PolicyError where they must not be plain.
    """
    if not ways:
        managed.check_may_be_plain()
    file = _read()
    if file is not None and file.key.ways:
        raise HistoryError("The conversations have a key already", "`localai history rekey` makes another")
    _refuse_orphans()
    if not ways:
        _write(_File(_Kept()))
        return None
    key = os.urandom(database.KEY_BYTES)
    _write(_File(_keep(key, ways, passphrase)))
    return key


def unlock(passphrase: str | None = None, opens: Callable[[bytes], bool] | None = None) -> bytes | None:
    """The key; None: the conversations are plain, by the user's choice.

    A `passphrase` that is given is used, if one protects the key; else the keyring. `opens` tells whether a
    key is the one of the conversations, and is asked only after a change of the key that was interrupted.
    Raises HistoryLocked when a passphrase is needed, or it is wrong; HistoryError when the keyring no longer
    has the key.
    """
    file = _needed()
    if not file.key.ways:
        return None
    if file.next is None:
        return _key_of(file.key, passphrase)
    return _interrupted(file, file.next, passphrase, opens or _opens)


def protect(key: bytes, ways: Sequence[Way], passphrase: str | None = None) -> None:
    """Keep the same key otherwise; from where it is no longer kept, it is removed.

    Raises HistoryError, and HistoryLocked without the passphrase that `ways` asks for.
    """
    if not ways:
        raise HistoryError("The key must be kept somewhere", "Choose the keyring, a passphrase, or both")
    old = _needed()
    _write(_File(_keep(key, ways, passphrase)))
    _forget(old.key, old.next)


def begin_rekey(ways: Sequence[Way], passphrase: str | None = None) -> bytes:
    """Make another key and keep both: now give it to the database, then call `finish_rekey`.

    Raises HistoryError, and HistoryLocked without the passphrase that `ways` asks for.
    """
    file = _needed()
    if not file.key.ways or not ways:
        raise HistoryError("The conversations are not encrypted, so there is no key to change")
    if file.next is not None:
        raise HistoryError("An earlier change of the key was interrupted", "Open the conversations first")
    key = os.urandom(database.KEY_BYTES)
    _write(_File(file.key, _keep(key, ways, passphrase)))
    return key


def finish_rekey() -> None:
    """The database has the new key: forget the old one. Nothing happens without `begin_rekey`."""
    file = _needed()
    if file.next is not None:
        _write(_File(file.next))
        _forget(file.key)


def cancel_rekey() -> None:
    """The database kept its key: forget the new one. Nothing happens without `begin_rekey`."""
    file = _needed()
    if file.next is not None:
        _write(_File(file.key))
        _forget(file.next)


# -------------------------------------------------------------------------------------------- keeping a key


def _keep(key: bytes, ways: Sequence[Way], passphrase: str | None) -> _Kept:
    if "passphrase" in ways and not passphrase:
        raise HistoryLocked("A passphrase is needed to protect the conversations")
    envelope = wrap.seal(key, passphrase or "") if "passphrase" in ways else None
    entry = f"history {os.urandom(8).hex()}" if "keyring" in ways else ""
    if entry:
        keyring.store(entry, key)
    return _Kept(entry, envelope)


def _forget(*kept: _Kept | None) -> None:
    for one in kept:
        if one is not None and one.entry:
            keyring.remove(one.entry)


def _key_of(kept: _Kept, passphrase: str | None) -> bytes:
    if kept.envelope and passphrase is not None:
        return wrap.unseal(kept.envelope, passphrase)
    needed = HistoryLocked("The conversations are locked", "Give their passphrase")
    if not kept.entry:
        raise needed
    if kept.envelope and keyring.problem():
        raise needed
    key = keyring.fetch(kept.entry)
    if key is None and kept.envelope:
        raise needed
    if key is None:
        raise HistoryError(
            f'The keyring no longer has the key of the conversations ("{keyring.SERVICE}", "{kept.entry}")',
            "Log in as the user that you were, or restore the keyring from a backup; to start anew, "
            f"move {paths.history_path()} and {key_path()} away",
        )
    return key


def _interrupted(
    file: _File, following: _Kept, passphrase: str | None, opens: Callable[[bytes], bool]
) -> bytes:
    """The one of two keys that opens the database; the other is forgotten."""
    failure: HistoryError | None = None
    for kept, settle in ((file.key, cancel_rekey), (following, finish_rekey)):
        try:
            key = _key_of(kept, passphrase)
        except HistoryError as error:
            failure = error
            continue
        if opens(key):
            settle()
            return key
    if failure is not None:
        raise failure
    raise HistoryError(
        f"Neither of the two keys opens {paths.history_path()}", "Restore the file from a backup"
    )


def _opens(key: bytes) -> bool:
    path = paths.history_path()
    return database.is_new(path) or database.opens(path, key)


def _refuse_orphans() -> None:
    """A new key for conversations that another one encrypted would only hide what was lost."""
    path = paths.history_path()
    with database.mapped(path, encrypted=True):
        encrypted = not database.is_new(path) and not database.is_plain(path)
    if encrypted:
        raise HistoryError(
            f"{path} is encrypted, but {key_path()}, which tells how, is not there",
            "Restore that file from a backup, or move the conversations away to start anew",
        )


# -------------------------------------------------------------------------------------------------- the file


def _needed() -> _File:
    file = _read()
    if file is None:
        raise HistoryError("How the conversations are protected was not chosen yet", "Run `localai chat`")
    return file


def _read() -> _File | None:
    path = key_path()
    try:
        return msgspec.json.decode(path.read_bytes(), type=_File)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise HistoryError(f"{path} cannot be read: {error.strerror}", "See that you may read it") from error
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise HistoryError(f"{path} is damaged, or of a newer version ({error})", _BACKUP) from error


def _write(file: _File) -> None:
    """In one step, for the user alone, and on the disk when it returns."""
    path = key_path()
    fresh = path.with_name(path.name + ".new")
    try:
        paths.private_dir(path.parent)
        fresh.unlink(missing_ok=True)
        with os.fdopen(os.open(fresh, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as opened:
            opened.write(msgspec.json.encode(file))
            opened.flush()
            os.fsync(opened.fileno())
        fresh.replace(path)
        database.sync(path.parent)
    except OSError as error:
        raise HistoryError(
            f"{path} cannot be written: {error.strerror}", "See that the folder exists and is yours"
        ) from error
