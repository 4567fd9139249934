"""One policy file: its values, each checked.

    contact = "security@example.org"
    [require]
    sandbox = true
    encryption = true
    incognito = true
    retention_days = 30
    [forbid]
    pull = true
    plain_history = true
    export = true
    unknown_architectures = true
    [models]
    allow = ["<sha256 in hex>"]

Fail closed: what cannot be read, or has anything that is not in this list, is a PolicyError that names the
file, the line and what is wrong. Nobody's typing error weakens a policy.
"""

from __future__ import annotations

import math
import os
import re
import stat
from pathlib import Path
from typing import Any, Final, TypeAlias

from localai.errors import PolicyError
from localai.policy.lines import line_of, part_with
from localai.policy.names import HINT, KEYS, SWITCHES, VARIABLE, system_path

MOST_BYTES: Final = 1 << 20
_TABLES: Final = {key.partition(".")[0] for key in KEYS if "." in key}
_SHA256: Final = re.compile(r"[0-9a-fA-F]{64}")
_PLACE: Final = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")
_LONGEST_CONTACT: Final = 200
_LONGEST_SHOWN: Final = 60

Values: TypeAlias = dict[str, Any]
"""What a file says, by key: True for a switch, a number of days, a frozenset of digests, a text."""


def read(path: Path, *, optional: bool) -> Values | None:
    """The values of the file; None if it is not there and `optional`. PolicyError for all that is wrong."""
    data = _bytes(path, optional=optional)
    if data is None:
        return None
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _broken(path, data.count(b"\n", 0, error.start) + 1, "it is not UTF-8 text") from error
    return _checked(path, text, _parsed(path, text))


def _bytes(path: Path, *, optional: bool) -> bytes | None:
    """Opened before it is looked at, and without waiting for whoever writes to a pipe of that name."""
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        descriptor = os.open(path, flags)
    except FileNotFoundError as error:
        if optional and not os.path.lexists(path):
            return None
        raise _unreadable(path, "it is not there") from error
    except (OSError, ValueError) as error:
        raise _unreadable(path, getattr(error, "strerror", None) or str(error)) from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise _unreadable(path, "it is not a file")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise _unreadable(path, error.strerror or str(error)) from error
    finally:
        os.close(descriptor)
    if len(data) > MOST_BYTES:
        raise _unreadable(path, "it is larger than 1 MB")
    return data


def _parsed(path: Path, text: str) -> Values:
    import tomllib  # 5 ms, which only those pay who have a policy

    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message = str(error)
        place = _PLACE.search(message)
        line = int(place[1]) if place and place[1] else text.rstrip().count("\n") + 1
        raise _broken(path, line, f"not TOML: {_PLACE.sub('', message)}") from error
    except (RecursionError, ValueError) as error:  # nested without end; a number of thousands of digits
        raise _broken(path, 1, "it is nested too deeply, or has a number that is none") from error


# --------------------------------------------------------------------------------------------- the values


def _checked(path: Path, text: str, document: Values) -> Values:
    found: Values = {}
    for name, value in document.items():
        if name in _TABLES:
            if not isinstance(value, dict):
                raise _broken(path, line_of(text, name), f"{name} is not a table: write [{name}]")
            for inner, one in value.items():
                found |= _value(path, text, f"{name}.{inner}", one)
        elif name == "contact":
            found |= _value(path, text, name, value)
        else:
            raise _broken(path, line_of(text, name), f"there is no key {_shown(name)}")
    return found


def _value(path: Path, text: str, key: str, value: Any) -> Values:
    """The key with its value; nothing for a switch that is off."""
    line = line_of(text, key)
    if key not in KEYS:
        raise _broken(path, line, f"there is no key {_shown(key)}")
    if key in SWITCHES:
        if not isinstance(value, bool):
            raise _broken(path, line, f"{key} is true or false, not {_shown(value)}")
        return {key: True} if value else {}
    if key == "require.retention_days":
        return {key: _days(path, line, value)}
    if key == "models.allow":
        return {key: _digests(path, text, value)}
    if not isinstance(value, str) or not value.isprintable() or not 0 < len(value) <= _LONGEST_CONTACT:
        raise _broken(path, line, "contact is a text of one line, such as an address")
    return {key: value}


def _days(path: Path, line: int, value: Any) -> float:
    number = value if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    if not 0 < number <= 1e6:  # also false for what is no number
        raise _broken(path, line, f"require.retention_days is a number above 0, not {_shown(value)}")
    return float(number)


def _digests(path: Path, text: str, value: Any) -> frozenset[str]:
    line = line_of(text, "models.allow")
    if not isinstance(value, list):
        raise _broken(path, line, f"models.allow is a list of digests, not {_shown(value)}")
    for one in value:
        if not isinstance(one, str) or not _SHA256.fullmatch(one):
            at = part_with(text, one, line) if isinstance(one, str) else line
            raise _broken(path, at, f"{_shown(one)} is no SHA-256: 64 digits in hex")
    return frozenset(one.lower() for one in value)


def _shown(value: object) -> str:
    simple = isinstance(value, str | float | bool) or (isinstance(value, int) and abs(value) < 1 << 64)
    text = repr(value) if simple else f"a {type(value).__name__}"
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"


def _unreadable(path: Path, why: str) -> PolicyError:
    hint = HINT
    if path != system_path():
        hint = f"{VARIABLE} names it: name another, or none"
    return PolicyError(f"the policy {_text(path)} cannot be read: {why}", hint)


def _broken(path: Path, line: int, why: str) -> PolicyError:
    hint = HINT if path == system_path() else f"{VARIABLE} names it: repair it, or name none"
    return PolicyError(f"the policy {_text(path)} is broken in line {line}: {why}", hint)


def _text(path: Path) -> str:
    """The path, also one with bytes that are no text."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
