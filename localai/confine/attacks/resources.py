"""Attempts to take memory without a limit, and to raise limits."""

from __future__ import annotations

import mmap
import resource
import struct
from typing import Final

from localai.confine.attacks.kinds import Attack
from localai.confine.attacks.numbers import call

_HUGE: Final = 32 << 40
"""32 TiB: more than any machine that a worker runs on, less than what addresses can name."""
_NO_RESERVE: Final = 0x4000


def _map(protection: int) -> None:
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NO_RESERVE
    mmap.mmap(-1, _HUGE, flags=flags, prot=protection).close()


def _raise_limit(kind: int) -> None:
    """Set the limit higher than it may be, and back. By number, since the C library is not asked."""
    soft, hard = resource.getrlimit(kind)
    new = hard if hard == resource.RLIM_INFINITY else hard + 1
    before, after = (_pair(soft, hard), _pair(new, new))
    call("prlimit64", 0, kind, after, None)
    call("prlimit64", 0, kind, before, None)


def _pair(soft: int, hard: int) -> bytes:
    """struct rlimit64."""
    return struct.pack("=QQ", soft & (2**64 - 1), hard & (2**64 - 1))


ATTACKS: Final = {
    "32 TiB of addresses": Attack("memory", lambda _: _map(mmap.PROT_READ), "48-bit addresses"),
    "32 TiB of memory": Attack(
        "memory", lambda _: _map(mmap.PROT_READ | mmap.PROT_WRITE), "48-bit addresses, overcommitment"
    ),
    "a dump of memory": Attack("memory", lambda _: _raise_limit(resource.RLIMIT_CORE), "no limit yet"),
    "larger files": Attack("memory", lambda _: _raise_limit(resource.RLIMIT_FSIZE), "no limit yet"),
    "more memory": Attack("memory", lambda _: _raise_limit(resource.RLIMIT_DATA), "no limit yet"),
}
