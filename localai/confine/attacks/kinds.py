"""What an attack is, what came of one, and how one is tried without harm to the process that tries it."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from localai import offline
from localai.confine.attacks.targets import Targets
from localai.confine.probes import Concern

DONE = "done"

Attempt = Callable[[Targets], str | None]
"""Tries it. Returns what it got if it succeeded, OSError if it was denied, and NotImplementedError if this
system has no such thing."""


class Attack(NamedTuple):
    """One thing that a worker must not be able to do."""

    concern: Concern
    attempt: Attempt
    needs: str = ""
    """What an unconfined process needs for it, a few words; empty: it succeeds everywhere on Linux."""


class Outcome(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What came of one attack."""

    name: str
    concern: Concern
    denied: bool
    detail: str
    """How it was denied, such as "EPERM", or what it got."""
    available: bool = True
    """False: it fails without a sandbox, too, and says nothing."""


def tried(name: str, attack: Attack, targets: Targets) -> Outcome:
    """What comes of `attack`. Raises nothing."""

    def outcome(denied: bool, detail: str, available: bool = True) -> Outcome:
        return Outcome(name, attack.concern, denied, detail, available)

    try:
        with offline.lifted():  # the system has to deny it, not a line of ours that an attacker would skip
            return outcome(False, attack.attempt(targets) or DONE)
    except OSError as error:
        return outcome(True, errno.errorcode.get(error.errno or 0, str(error)))
    except Exception as error:  # noqa: BLE001 - one attack that cannot be tried must not hide the others
        return outcome(True, f"{type(error).__name__}: {error}", available=False)


def in_thread(act: Callable[[], str | None]) -> str | None:
    """What `act` gives, or raises, in a thread of its own, with which what it changed of itself ends."""
    results: list[str | None] = []
    errors: list[Exception] = []

    def body() -> None:
        try:
            results.append(act())
        except Exception as error:  # noqa: BLE001 - handed on
            errors.append(error)

    thread = threading.Thread(target=body, daemon=True)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]
