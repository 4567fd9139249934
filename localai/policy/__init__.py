"""What an organization demands of this program on its machines, which no user can take back.

The file is `system_path()`, such as /etc/localai/policy.toml. The environment variable LOCALAI_POLICY names a
further one: both are in force, and of each key the stricter value, so that the environment can only make it
stricter. Whoever does something that a key may forbid asks `current()` at that moment; docs/policy.md says
what each key binds. It is not for a confined worker, which may not read the file: the app asks before it
starts one.
"""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

from localai.confine import choice
from localai.errors import PolicyError
from localai.policy.names import HINT, VARIABLE, Key, system_path
from localai.policy.rules import Policy, digest, in_days, merged

__all__ = [
    "VARIABLE",
    "Key",
    "Policy",
    "current",
    "describe",
    "fingerprint",
    "in_days",
    "sandbox_mode",
    "system_path",
]


def current() -> Policy:
    """What is in force for this process, read once. PolicyError if a file is broken: nothing may then run."""
    return _read(os.environ.get(VARIABLE, ""))


@lru_cache(8)
def _read(further: str) -> Policy:
    if not further and not _is_there(system_path()):
        return Policy()
    from localai.policy import reading  # only those wait for it who have a policy

    found = []
    for path, optional in [(system_path(), True), *([(_further(further), False)] if further else [])]:
        values = reading.read(path, optional=optional)
        if values is not None:
            found.append((path, values))
    return merged(found)


def _is_there(path: Path) -> bool:
    """Also if it cannot be looked at: the reader then says why."""
    try:
        path.lstat()
    except FileNotFoundError:
        return False
    except OSError:
        pass
    return True


def _further(text: str) -> Path:
    """In full, for errors."""
    try:
        return Path(text).expanduser().absolute()
    except (RuntimeError, OSError) as error:
        raise PolicyError(f"{VARIABLE} is {text!r}: {error}", "Give the whole path") from error


def describe() -> list[tuple[str, str]]:
    """(what is in force, from which file), in words; nothing without a policy. PolicyError."""
    return current().describe()


def fingerprint() -> str:
    """The SHA-256 of the policy file as it is now, or over both files; "" without one. PolicyError."""
    try:
        return digest([path.read_bytes() for path in current().files]) if current().files else ""
    except OSError as error:
        raise PolicyError(f"the policy {error.filename} cannot be read: {error.strerror}", HINT) from error


def sandbox_mode() -> choice.Mode:
    """How much a worker must be confined: as the user chose, and at least as the policy requires.

    PolicyError if the user asked for less than that, by flag or environment; UsageError as of `choice.mode`.
    """
    wanted = choice.mode()
    if not current().has("require.sandbox"):
        return wanted
    if os.environ.get(choice.VARIABLE) and wanted != "require":
        hint = f"Leave --sandbox out, and unset {choice.VARIABLE}"
        raise current().error("require.sandbox", f"the sandbox cannot be {wanted!r}", hint)
    return "require"
