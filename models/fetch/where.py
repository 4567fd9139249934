"""Addresses of the web: which server they lead to, and how they are shown to people."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from localai.errors import FetchError
from models.header import printable

_PORTS: Final = {"http": 80, "https": 443}


def origin(url: str) -> str:
    """Scheme, host and port of an address, always written the same way."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname or ''}:{parts.port or _PORTS.get(parts.scheme, 0)}"


def host(url: str) -> str:
    """The host of an address, for people."""
    return printable(urlsplit(url).hostname or "")


def require_address(url: str) -> None:
    """FetchError unless `url` is one that can be asked for."""
    try:
        parts = urlsplit(url)
        is_one = parts.scheme in _PORTS and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_one = False
    if not is_one:
        raise FetchError(f"{shown(url)!r} is no address of a file", "It begins with https://")


def shown(url: str) -> str:
    """An address for people: without what may be secret in it (user, password, query)."""
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "the address"
    return printable(f"{parts.scheme}://{parts.hostname or ''}{port}{parts.path}")
