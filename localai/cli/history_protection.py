"""`localai history lock` and `rekey`: where the key of the conversations is, and another key for them."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from localai.cli import options, output
from localai.errors import HistoryError, HistoryLocked, LocalAIError, UsageError

if TYPE_CHECKING:
    from localai.history.key import Way

PassphraseFile = Annotated[
    Path | None,
    typer.Option("--passphrase-file", help="A file with the new passphrase.", show_default=False),
]


def lock(
    to_keyring: Annotated[
        bool, typer.Option("--keyring", help="Put the key back into the keyring instead.")
    ] = False,
    passphrase_file: PassphraseFile = None,
    json: options.Json = False,
) -> None:
    """Protect the conversations by a passphrase from now on, and take their key out of the keyring."""
    from localai.history import key

    chosen = key.protection()
    ways: tuple[Way, ...] = ("keyring",) if to_keyring else ("passphrase",)
    if to_keyring and passphrase_file is not None:
        raise UsageError("--keyring and --passphrase-file exclude each other", "Leave one of them out")
    if to_keyring and (problem := key.keyring_problem()):
        raise HistoryError(f"the key cannot be put into the keyring: {problem}", "Keep the passphrase")
    old = chosen.ways if chosen else ()
    current = _current(old)
    passphrase = None if to_keyring else _new(passphrase_file, was="passphrase" in old)
    if current is None:
        _encrypt(ways, passphrase)
    else:
        key.protect(current, ways, passphrase)
    if json:
        output.print_json({"protection": list(ways)})
    elif to_keyring:
        print("The key of your conversations is in the keyring")
    else:
        print("A passphrase protects your conversations from now on; nobody can recover it")


def _current(ways: tuple[Way, ...]) -> bytes | None:
    """The key as it is now, asked for if a passphrase protects it; None: the conversations are plain."""
    from localai.cli.unlock import open_history

    if not ways:
        return None
    with open_history() as history:
        return history.key


def _encrypt(ways: tuple[Way, ...], passphrase: str | None) -> None:
    from localai.history import History, key

    made = key.create(ways, passphrase)
    History(key=made).close()


def _new(file: Path | None, *, was: bool) -> str:
    """The new passphrase: from a file, else asked for twice, else from the environment."""
    from localai.cli import unlock

    if file is not None:
        return _long_enough(_read(file))
    if sys.stdin.isatty() and sys.stderr.isatty():
        return unlock.new_passphrase()
    given = unlock.given_passphrase()
    if given is None:
        raise HistoryLocked(
            "there is no terminal to ask for a passphrase on",
            f"Give one with --passphrase-file or {unlock.PASSPHRASE}",
        )
    if was:
        raise UsageError(
            f"{unlock.PASSPHRASE} is the passphrase that there is", "Give the new one with --passphrase-file"
        )
    return _long_enough(given)


def _read(file: Path) -> str:
    try:
        text = file.expanduser().read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UsageError(f"{file} cannot be read: {reason}", "Name a file with the passphrase") from error
    return text.removesuffix("\n").removesuffix("\r")


def _long_enough(passphrase: str) -> str:
    from localai.cli.unlock import LEAST_LETTERS

    if len(passphrase) < LEAST_LETTERS:
        raise UsageError(
            f"the passphrase has fewer than {LEAST_LETTERS} letters", "Choose a longer one; words are good"
        )
    return passphrase


def rekey(json: options.Json = False) -> None:
    """Encrypt all conversations with a fresh key. No other window may have them open."""
    from localai.cli import unlock
    from localai.history import History, key

    chosen = key.protection()
    if chosen is None or not chosen.ways:
        raise HistoryError("the conversations are not encrypted", "`localai history lock` protects them")
    passphrase = None
    if "passphrase" in chosen.ways:
        passphrase = unlock.given_passphrase()
        if passphrase is None and not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise HistoryLocked("the conversations are locked", f"Set {unlock.PASSPHRASE}")
        passphrase = passphrase or _ask()
    with History(key=key.unlock(passphrase)) as history:
        fresh = key.begin_rekey(chosen.ways, passphrase)
        try:
            history.rekey(fresh)
        except LocalAIError as error:
            history.close()
            # This keeps whichever of the two keys the file now has.
            if key.unlock(passphrase) != fresh:
                raise HistoryError(
                    f"the conversations keep their key, for another could not be given to {history.path}",
                    "Close all other windows, see that the disk has space for a copy, and try again",
                ) from error
        else:
            key.finish_rekey()
    _drop_states()
    if json:
        output.print_json({"rekeyed": True})
    else:
        print("Your conversations have a fresh key")


def _ask() -> str:
    import getpass

    try:
        return getpass.getpass("Passphrase of your conversations: ", stream=sys.stderr)
    except EOFError as error:
        raise HistoryLocked("no passphrase was typed") from error


def _drop_states() -> None:
    """What the engine kept is under the old key: nothing opens it any more."""
    from localai.history.states import states_path

    path = states_path()
    for end in ("", "-wal", "-shm"):
        with contextlib.suppress(OSError):
            path.with_name(path.name + end).unlink()
