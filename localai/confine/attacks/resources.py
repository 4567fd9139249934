"""Attempts to take memory without a limit, to raise limits, and to enter the kernel by other doors."""

from __future__ import annotations

import ctypes
import mmap
import os
import resource
import struct
from typing import Final

from localai.confine import calls
from localai.confine.attacks.kinds import Attack
from localai.confine.attacks.numbers import CALLS, call
from localai.confine.attacks.targets import Targets
from localai.confine.syscalls import machine

_HUGE: Final = 32 << 40
"""32 TiB: more than any machine that a worker runs on, less than what addresses can name."""
_NO_RESERVE: Final = 0x4000
_QUERY: Final = 0xFFFFFFFF
_X32: Final = 0x40000000
_THREAD_KEYS: Final = -1
"""KEY_SPEC_THREAD_KEYRING: gone with the thread."""


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


def _faults(_: Targets) -> None:
    """Handle one's own page faults: a help against locks of the kernel."""
    user_mode_alone = 1
    os.close(call("userfaultfd", os.O_CLOEXEC | user_mode_alone))


def _personality(_: Targets) -> None:
    """Set how programs are run, such as without random addresses, to what it is."""
    call("personality", call("personality", _QUERY))


def _key(_: Targets) -> None:
    call("add_key", b"user", b"localai", b"x", 1, _THREAD_KEYS)


def _x32(_: Targets) -> None:
    if machine() != "x86_64":
        raise NotImplementedError("not on this processor")
    calls.system_call((CALLS["getpid"].x86_64 or 0) | _X32)


def enter_32_bit() -> int:
    """This process' id, asked through the entry for 32-bit programs: no filter of 64-bit calls sees it.

    Not one of ATTACKS: a filter that looks at the architecture ends the process (SIGSYS), and so does a
    kernel without that entry (SIGSEGV). NotImplementedError on other processors.
    """
    if machine() != "x86_64":
        raise NotImplementedError("not on this processor")
    code = b"\xb8\x14\x00\x00\x00\xcd\x80\xc3"  # mov eax, 20 (getpid); int 0x80; ret
    page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(code)
    start = ctypes.addressof(ctypes.c_char.from_buffer(page))
    return int(ctypes.CFUNCTYPE(ctypes.c_int)(start)())


ATTACKS: Final = {
    "32 TiB of addresses": Attack("memory", lambda _: _map(mmap.PROT_READ), "48-bit addresses"),
    "32 TiB of memory": Attack(
        "memory", lambda _: _map(mmap.PROT_READ | mmap.PROT_WRITE), "48-bit addresses, overcommitment"
    ),
    "a dump of memory": Attack("memory", lambda _: _raise_limit(resource.RLIMIT_CORE), "no limit yet"),
    "larger files": Attack("memory", lambda _: _raise_limit(resource.RLIMIT_FSIZE), "no limit yet"),
    "more memory": Attack("memory", lambda _: _raise_limit(resource.RLIMIT_DATA), "no limit yet"),
    "page faults": Attack("memory", _faults, "userfaultfd"),
    "personality": Attack("memory", _personality),
    "key in the kernel": Attack("memory", _key, "a kernel that keeps keys"),
    "x32 entry": Attack("memory", _x32, "an x32 kernel"),
}
