"""What a process can do beyond its user, on which network, and who sees its memory.

Source: prctl(2), core(5), user_namespaces(7), network_namespaces(7), capabilities(7).
"""

from __future__ import annotations

import ctypes
import os
import struct
from typing import Any, Final

from localai.confine import calls

_PR_GET_DUMPABLE, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 3, 4, 38
_NEW_USER, _NEW_NET = 0x10000000, 0x40000000
_CAPABILITIES_VERSION = 0x20080522
_KEPT: Final = (1 << 2) | (1 << 14)
"""CAP_DAC_READ_SEARCH, because root may read everybody's models, and CAP_IPC_LOCK, for --mlock."""


def no_new_privileges() -> None:
    """Nothing that this process starts gains rights, such as by a set-user-ID bit. OSError."""
    calls.prctl(_PR_SET_NO_NEW_PRIVS, 1)


def keep_memory() -> None:
    """No other program of the user, and no crash reporter, sees this process' memory. OSError.

    Where core_pattern names a program, the kernel hands it the dump although RLIMIT_CORE is 0.
    """
    calls.prctl(_PR_SET_DUMPABLE, 0)


def is_memory_kept() -> bool:
    """Whether `keep_memory` took effect. OSError."""
    return calls.prctl(_PR_GET_DUMPABLE, 0) == 0


def leave_network() -> str:
    """Move to a network namespace that has nothing but a loopback that is down; how, in a few words.

    OSError where the system does not allow it, and (EINVAL) if this process has other threads.
    """
    if os.geteuid() == 0:
        _unshare(_NEW_NET)
        return ""
    _unshare(_NEW_USER | _NEW_NET)
    return "with a user namespace"


def drop_capabilities() -> None:
    """Give up what root, or the owner of a namespace, may do beyond an ordinary user. OSError."""
    header = ctypes.create_string_buffer(struct.pack("=Ii", _CAPABILITIES_VERSION, 0), 8)
    sets = ctypes.create_string_buffer(24)
    libc = ctypes.CDLL(None, use_errno=True)
    _checked(libc.capget(header, sets))
    words = struct.unpack("=6I", sets.raw)
    kept = [words[0] & _KEPT, words[1] & _KEPT, 0, 0, 0, 0]
    _checked(libc.capset(header, ctypes.create_string_buffer(struct.pack("=6I", *kept), 24)))


def _unshare(flags: int) -> None:
    _checked(ctypes.CDLL(None, use_errno=True).unshare(flags))


def _checked(result: Any) -> None:
    if result != 0:
        raise calls.failed()
