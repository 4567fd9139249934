"""Addresses of the web: which server they lead to, and how they are shown to people.

What decides where an address leads is the parser that connects, urllib3's. An address that any other could
read in another way is none: else a token could go to a server that it was not meant for.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from urllib3.exceptions import LocationValueError
from urllib3.util import parse_url

from localai.errors import FetchError
from models.header import printable

_PORTS: Final = {"http": 80, "https": 443}
_FORBIDDEN: Final = re.compile(r"[\\\x00-\x20\x7f-\x9f\s]")
"""No address has them as they are; parsers differ in what they make of them."""


class Server(NamedTuple):
    """Where an address leads."""

    scheme: str
    host: str
    """In lower case, without brackets."""
    port: int


def server(url: str) -> Server:
    """The server that `url` leads to. FetchError if it is no address, or one that can be read in two ways."""
    found = _server(url)
    if found is None:
        raise FetchError(f"{shown(url)!r} is no address of a file", "It begins with https://")
    return found


def origin(url: str) -> str:
    """Scheme, host and port of an address, always written the same way. FetchError if it is none."""
    found = server(url)
    return f"{found.scheme}://{found.host}:{found.port}"


def host(url: str) -> str:
    """The host of an address, for people."""
    return printable(urlsplit(url).hostname or "")


def is_plain(text: str) -> bool:
    """Whether `text`, an address or a part of one, has no backslash, blank or control character."""
    return not _FORBIDDEN.search(text)


def is_address(url: str) -> bool:
    """Whether `url` can be asked for as it is: it leads to one server, and has no user or password in it."""
    return _server(url) is not None and "@" not in urlsplit(url).netloc


def require_address(url: str) -> None:
    """FetchError unless `url` is one that can be asked for."""
    if not is_address(url):
        raise FetchError(f"{shown(url)!r} is no address of a file", "It begins with https://")


def shown(url: str) -> str:
    """An address for people: without what may be secret in it (user, password, query)."""
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "the address"
    return printable(f"{parts.scheme}://{parts.hostname or ''}{port}{parts.path}")


def _server(url: str) -> Server | None:
    """Where both parsers say that `url` leads; None if they do not agree, or it leads nowhere."""
    if not is_plain(url):
        return None
    try:
        one, other = urlsplit(url), parse_url(url)
        named = (one.hostname or "").lower()
        if not named.isascii():  # The names of other scripts are written in ASCII to connect
            named = parse_url(f"{one.scheme}://{named}").host or ""
        first = Server(one.scheme, named, _PORTS[one.scheme] if one.port is None else one.port)
        scheme = other.scheme or ""
        port = _PORTS[scheme] if other.port is None else other.port
    except (ValueError, KeyError, LocationValueError):
        return None
    second = Server(scheme, (other.host or "").strip("[]").lower(), port)
    return first if first == second and first.host and first.port else None
