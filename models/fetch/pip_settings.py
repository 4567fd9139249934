"""Which package indexes the user has set for pip, and how they are reached.

pip itself is asked, in a child (`pip config list`): its files and its PIP_* variables then mean what they
mean for pip. Where there is no pip, the variables alone count.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from localai.errors import FetchError
from localai.processes import environment
from models.header import printable

PUBLIC: Final = "https://pypi.org/simple"
_SECTIONS: Final = ("global", "install", "download", ":env:")
"""Of pip's settings, those that hold for fetching; a later one wins."""
_SECONDS: Final = 60.0
_HINT: Final = "See what is set: python -m pip config list"


@dataclass(frozen=True)
class Settings:
    """Addresses may have a user and a password in them: they are secret."""

    indexes: tuple[str, ...] = (PUBLIC,)
    """Addresses of indexes, the first one first; also file:// ones. Without a slash at their ends."""
    find_links: tuple[str, ...] = ()
    """Folders with wheels, or addresses of pages that list some."""
    trusted: frozenset[str] = frozenset()
    """HOST or HOST:PORT of which no certificate is asked."""
    cert: str = ""
    """A file, or folder, with certificates to check others with."""
    client_cert: str = ""
    proxy: str = ""


def read() -> Settings:
    """What is set now. FetchError if pip cannot say."""
    asked = ask_pip()
    return parse(_of_environment() if asked is None else asked)


def parse(values: Mapping[str, str]) -> Settings:
    """The settings in `values`, whose names are as `pip config list` has them, such as "global.index-url"."""
    found: dict[str, str] = {}
    for section in _SECTIONS:
        for name, value in values.items():
            if name.startswith(f"{section}.") and value:
                found[name.removeprefix(f"{section}.")] = value
    index = found.get("index-url") or found.get("pypi-url") or PUBLIC
    addresses = (
        [] if _is_true(found.get("no-index", "")) else [index, *found.get("extra-index-url", "").split()]
    )
    return Settings(
        indexes=tuple(dict.fromkeys(address.rstrip("/") for address in addresses)),
        find_links=tuple(found.get("find-links", "").split()),
        trusted=frozenset(found.get("trusted-host", "").lower().split()),
        cert=found.get("cert", ""),
        client_cert=found.get("client-cert", ""),
        proxy=found.get("proxy", ""),
    )


def _is_true(text: str) -> bool:
    return text.lower() in ("1", "true", "yes", "on", "y", "t")


def ask_pip() -> dict[str, str] | None:
    """What pip lists; None without pip."""
    command = [sys.executable, "-P", "-m", "pip", "--disable-pip-version-check", "config", "list"]
    child = {**environment(), "PYTHONIOENCODING": "utf-8", "PIP_NO_COLOR": "1", "PYTHONWARNINGS": "ignore"}
    try:
        result = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, env=child, timeout=_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise FetchError("pip does not say which package index is set", _HINT) from error
    said = result.stderr.decode("utf-8", errors="replace")
    if "No module named pip" in said:
        return None
    if result.returncode:
        last = next((line for line in reversed(said.splitlines()) if line.strip()), "it said nothing")
        raise FetchError(f"pip does not say which package index is set: {printable(last)}", _HINT)
    return _listed(result.stdout.decode("utf-8", errors="replace"))


def _listed(text: str) -> dict[str, str]:
    """What is in lines such as `global.index-url='https://...'`; others are passed over."""
    found = {}
    for line in text.splitlines():
        name, _, value = line.partition("=")
        try:
            parsed = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            continue
        if isinstance(parsed, str):
            found[name.strip()] = parsed
    return found


def _of_environment() -> dict[str, str]:
    variables = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
    return {f":env:.{name[4:].lower().replace('_', '-')}": value for name, value in variables.items()}
