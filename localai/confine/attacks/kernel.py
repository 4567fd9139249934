"""Attempts to use parts of the kernel that no worker needs, where its own mistakes would be found.

Nothing of them stays.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
from typing import Final

from localai.confine import calls
from localai.confine.attacks.kinds import Attack, in_thread
from localai.confine.attacks.numbers import CALLS, call
from localai.confine.attacks.targets import Targets
from localai.confine.syscalls import machine

_QUERY: Final = 0xFFFFFFFF
_READ_ALL: Final = 3
"""SYSLOG_ACTION_READ_ALL."""
_GET_TIMER_SLACK: Final = 30
_GET_ENTROPY: Final = 0x80045200
"""RNDGETENTCNT."""
_X32: Final = 0x40000000
_THREAD_KEYS: Final = -1
"""KEY_SPEC_THREAD_KEYRING: gone with the thread."""
_OWN_FOLDER: Final = 0x200
"""CLONE_FS."""


def _unshare(_: Targets) -> None:
    """The call that makes namespaces, here for what is harmless: a working folder of one's own."""

    def act() -> None:
        call("unshare", _OWN_FOLDER)

    in_thread(act)


def _bpf(_: Targets) -> None:
    """A table for programs in the kernel."""
    array = struct.pack("=IIII", 2, 4, 4, 1)
    os.close(call("bpf", 0, array, len(array)))


def _log(_: Targets) -> str:
    return f"{call('syslog', _READ_ALL, ctypes.create_string_buffer(64), 64)} bytes"


def _measure(_: Targets) -> None:
    """A counter of the kernel, for this process and without what the kernel does itself."""
    software, size, disabled_and_user_alone = 1, 64, 0b1100001
    attributes = struct.pack("=IIQQQQQ", software, size, 0, 0, 0, 0, disabled_and_user_alone)
    os.close(call("perf_event_open", attributes.ljust(size, b"\0"), 0, -1, -1, 0))


def _faults(_: Targets) -> None:
    """Handle one's own page faults: a help against locks of the kernel."""
    user_mode_alone = 1
    os.close(call("userfaultfd", os.O_CLOEXEC | user_mode_alone))


def _personality(_: Targets) -> None:
    """Set how programs are run, such as without random addresses, to what it is."""
    call("personality", call("personality", _QUERY))


def _timers(_: Targets) -> None:
    """Ask how exact one's timers are: one of the many things of prctl(2) that no worker needs."""
    calls.prctl(_GET_TIMER_SLACK, 0)


def _device(_: Targets) -> None:
    """Ask a device that may be read how much chance it has gathered."""
    import fcntl

    opened = os.open("/dev/urandom", os.O_RDONLY)
    try:
        fcntl.ioctl(opened, _GET_ENTROPY, bytes(4))
    finally:
        os.close(opened)


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
    "unshare": Attack("kernel", _unshare, "a system that allows it, as containers do not"),
    "program in the kernel": Attack("kernel", _bpf, "root, or a kernel that allows it"),
    "kernel log": Attack("kernel", _log, "root, or a kernel that shows it"),
    "performance counters": Attack("kernel", _measure, "a kernel that shows them"),
    "page faults": Attack("kernel", _faults, "userfaultfd"),
    "personality": Attack("kernel", _personality),
    "timers": Attack("kernel", _timers),
    "call to a device": Attack("kernel", _device),
    "key in the kernel": Attack("kernel", _key, "a kernel that keeps keys"),
    "x32 entry": Attack("kernel", _x32, "an x32 kernel"),
}
