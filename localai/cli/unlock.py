"""Opening the stored conversations: where their key comes from.

The passphrase is the one in the environment, or in a file that it names, else it is asked for on the
terminal. `localai chat` asks on a screen how they are protected (`localai.cli.first_run`); the other commands
do it here. Nothing is ever stored unprotected unless the user said so.
"""

from __future__ import annotations

import getpass
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from localai.cli import output
from localai.errors import HistoryLocked, Interrupted, UsageError
from localai.processes import SECRETS

if TYPE_CHECKING:
    from localai.history import History
    from localai.history.key import Way

PASSPHRASE, PASSPHRASE_FILE = SECRETS
"""Environment variables for where there is no terminal to ask on."""
ATTEMPTS: Final = 3
LEAST_LETTERS: Final = 8


def is_first_run() -> bool:
    """Whether neither the user nor the environment has said yet how the conversations are protected."""
    from localai.history import key

    return key.protection() is None and given_passphrase() is None


def open_history(*, ask: bool = True, plain: bool = False) -> History:
    """The stored conversations, unlocked; on the first run, how they are protected is decided.

    `ask`: the user may be asked on the terminal; else what only a user can tell raises HistoryLocked.
    `plain`: the user wants them unencrypted; UsageError if they are encrypted already. Raises HistoryError.
    """
    from localai.history import key

    chosen = key.protection()
    if chosen is None:
        return _first_run(ask=ask, plain=plain)
    if plain and chosen.ways:
        raise UsageError(
            "the conversations are encrypted already, so --plain-history cannot be had",
            "Leave it out; `localai history export --all` writes readable copies",
        )
    if "passphrase" in chosen.ways and "keyring" not in chosen.ways:
        return _opened(_by_passphrase(ask=ask))
    try:
        return _opened(key.unlock())
    except HistoryLocked:
        if "passphrase" not in chosen.ways:
            raise
        return _opened(_by_passphrase(ask=ask))


def _opened(key: bytes | None) -> History:
    """The conversations with that key. What the engine kept goes with those that are too old to be kept."""
    from localai.history import History, states

    history = History(key=key)
    states.forget(key, history.outlived)
    return history


def _first_run(*, ask: bool, plain: bool) -> History:
    from localai.history import History, key, managed

    if plain:
        key.create(())
        return History()
    passphrase = given_passphrase()
    if passphrase is None:
        problem = key.keyring_problem()
        if not problem:
            return History(key=key.create(("keyring",)))
        if not (ask and _terminal()):
            raise HistoryLocked(
                f"a passphrase must protect the conversations, for there is no keyring here: {problem}",
                f"Run `localai chat` on a terminal, set {PASSPHRASE}, or use --incognito"
                + (" or --plain-history" if managed.may_be_plain() else ""),
            )
        output.note(f"your conversations are kept encrypted; there is no keyring here for the key: {problem}")
        output.note("a passphrase protects them; it is asked for at each start, and nobody can recover it")
        passphrase = new_passphrase(empty="keep nothing this time")
        if not passphrase:
            return History(memory=True)
    ways: tuple[Way, ...] = ("passphrase",)
    return History(key=key.create(ways, passphrase))


def given_passphrase() -> str | None:
    """The passphrase that the environment gives, if it does. Raises UsageError for an unreadable file."""
    if value := os.environ.get(PASSPHRASE):
        return value
    if not (name := os.environ.get(PASSPHRASE_FILE)):
        return None
    try:
        text = Path(name).expanduser().read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UsageError(f"{PASSPHRASE_FILE} names {name}, which cannot be read: {reason}") from error
    return text.removesuffix("\n").removesuffix("\r")


def new_passphrase(*, empty: str = "") -> str:
    """Ask for a new passphrase, twice. `empty`: what an empty one means; without it there must be one."""
    while True:
        first = _secret(f"New passphrase (empty: {empty}): " if empty else "New passphrase: ")
        if not first and empty:
            return ""
        if len(first) < LEAST_LETTERS:
            output.note(f"a passphrase has at least {LEAST_LETTERS} letters; several words are good")
        elif _secret("Once more: ") == first:
            return first
        else:
            output.note("the two are not the same")


def _by_passphrase(*, ask: bool) -> bytes | None:
    from localai.history import key

    passphrase = given_passphrase()
    if passphrase is not None or not (ask and _terminal()):
        return key.unlock(passphrase)
    for attempt in range(ATTEMPTS):
        try:
            return key.unlock(_secret("Passphrase of your conversations: "))
        except HistoryLocked:
            if attempt == ATTEMPTS - 1:
                raise
            output.note("that is not the passphrase")
    raise AssertionError


def _terminal() -> bool:
    return sys.stdin.isatty() and sys.stderr.isatty()


def _secret(prompt: str) -> str:
    """What the user types without seeing it."""
    try:
        return getpass.getpass(prompt, stream=sys.stderr)
    except (EOFError, KeyboardInterrupt) as error:
        output.aside("\n")
        raise Interrupted("nothing was typed") from error
