"""No network for a process: whatever it tries of it, in Python, is an error that says so.

Contract: `forbid_network` holds until the process ends, for all threads and all libraries, and costs a lookup
in a table for each event that has nothing to do with networks. Every process of the program calls it first,
except the one of `models pull` (`models.fetch.worker`). It turns a mistake, ours or a library's, into one
clear line. Code that is hostile, or not Python, is held back by `localai.confine`: for its sake `lifted`.

Sockets between processes of this machine (AF_UNIX: the desktop's keyring, the event loop) are no network.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

_LOCAL: Final = (1, -1)
"""AF_UNIX, which is 1 on every system (importing `socket` takes time); -1: a descriptor, a socket already."""
_LOOPBACK: Final = ("127.0.0.1", "::1")

_lifted = 0


def forbid_network() -> None:
    """Raise OfflineError from now on, in the place that tries to use the network. It cannot be undone."""
    watched = _WATCHED

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in watched and not _lifted:
            tried = watched[event](arguments)
            if tried:
                raise _error(tried)

    sys.addaudithook(hook)


@contextmanager
def lifted() -> Iterator[None]:
    """Let all threads try it: to see whether the system itself refuses, or that a method sees packets."""
    global _lifted  # of the process, as the hook is
    _lifted += 1
    try:
        yield
    finally:
        _lifted -= 1


def _error(tried: str) -> Exception:
    from localai.errors import OfflineError  # here: no start waits for it

    return OfflineError(
        f"something tried to use the network ({tried}), which was refused",
        "Only the process of `localai models pull` may. This is a defect: please report it",
    )


def _made(arguments: tuple[Any, ...]) -> str:
    family = int(arguments[1])
    # Windows has no pairs of sockets: the event loop connects two over the loopback.
    return "" if family in _LOCAL or _is_windows() else f"a socket of {_family(family)}"


def _family(number: int) -> str:
    import socket

    try:
        return socket.AddressFamily(number).name
    except ValueError:
        return f"family {number}"


def _addressed(what: str) -> Callable[[tuple[Any, ...]], str]:
    def tried(arguments: tuple[Any, ...]) -> str:
        family, address = int(arguments[0].family), arguments[1]
        if family in _LOCAL or (_is_windows() and _is_loopback(address)):
            return ""
        return f"{what} {_shown(address)}" if address else ""  # None: a datagram to where it is connected

    return tried


def _named(what: str) -> Callable[[tuple[Any, ...]], str]:
    return lambda arguments: f"{what} {_shown(next((one for one in arguments if _is_name(one)), ''))}".strip()


def _is_name(value: object) -> bool:
    return isinstance(value, str | bytes | tuple) and bool(value)


def _is_loopback(address: object) -> bool:
    return isinstance(address, tuple) and bool(address) and address[0] in _LOOPBACK


def _is_windows() -> bool:
    return sys.platform == "win32"


def _shown(address: object) -> str:
    """`address` in a line: short, and without characters that a terminal would obey."""
    return ascii(address)[:80].strip("'")


_WATCHED: Final[dict[str, Callable[[tuple[Any, ...]], str]]] = {
    "socket.__new__": _made,
    "socket.bind": _addressed("an address for others,"),
    "socket.connect": _addressed("a connection to"),
    "socket.sendto": _addressed("a datagram to"),
    "socket.sendmsg": _addressed("a datagram to"),
    **dict.fromkeys(
        (
            "socket.getaddrinfo",
            "socket.gethostbyname",
            "socket.gethostbyaddr",
            "socket.getnameinfo",
        ),
        _named("the address of"),
    ),
    **dict.fromkeys(
        (
            "http.client.connect",
            "urllib.Request",
            "ftplib.connect",
            "imaplib.open",
            "nntplib.connect",
            "poplib.connect",
            "smtplib.connect",
            "telnetlib.Telnet.open",
            "webbrowser.open",
        ),
        _named("a connection to"),
    ),
}
"""What is tried, in words, from the arguments of an event; empty: it is no network."""
