"""System calls that attacks make, by number: a process taken over asks no library.

Source: asm/unistd_64.h of x86-64, and asm-generic/unistd.h, which aarch64 uses, of Linux 6.8.
"""

from __future__ import annotations

from typing import Any, Final

from localai.confine import calls
from localai.confine.syscalls import Numbers, machine

CALLS: Final[dict[str, Numbers]] = {
    name: Numbers(*numbers)
    for name, numbers in {
        "add_key": (248, 217),
        "bpf": (321, 280),
        "clone": (56, 220),
        "clone3": (435, 435),
        "connect": (42, 203),
        "creat": (85, None),
        "execveat": (322, 281),
        "fchmodat2": (452, 452),
        "getpid": (39, 172),
        "io_uring_setup": (425, 425),
        "mount": (165, 40),
        "name_to_handle_at": (303, 264),
        "open_by_handle_at": (304, 265),
        "openat2": (437, 437),
        "perf_event_open": (298, 241),
        "personality": (135, 92),
        "pidfd_getfd": (438, 438),
        "pidfd_open": (434, 434),
        "pidfd_send_signal": (424, 424),
        "prlimit64": (302, 261),
        "process_vm_readv": (310, 270),
        "process_vm_writev": (311, 271),
        "ptrace": (101, 117),
        "renameat2": (316, 276),
        "rt_sigqueueinfo": (129, 138),
        "setns": (308, 268),
        "socket": (41, 198),
        "syslog": (103, 116),
        "tgkill": (234, 131),
        "unshare": (272, 97),
        "userfaultfd": (323, 282),
    }.items()
}


def call(name: str, *arguments: Any) -> int:
    """What the kernel answers to that call. OSError if it refuses, NotImplementedError if there is none."""
    on = machine()
    number = getattr(CALLS[name], on) if on else None
    if number is None:
        raise NotImplementedError(f"no {name} on this processor")
    return calls.system_call(number, *arguments)
