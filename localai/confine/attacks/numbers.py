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
        "chown": (92, None),
        "chroot": (161, 51),
        "clone": (56, 220),
        "clone3": (435, 435),
        "connect": (42, 203),
        "creat": (85, None),
        "execveat": (322, 281),
        "fchmodat": (268, 53),
        "fchmodat2": (452, 452),
        "fchownat": (260, 54),
        "fork": (57, None),
        "futimesat": (261, None),
        "getpid": (39, 172),
        "inotify_add_watch": (254, 27),
        "inotify_init1": (294, 26),
        "io_destroy": (207, 1),
        "io_setup": (206, 0),
        "io_uring_setup": (425, 425),
        "keyctl": (250, 219),
        "lchown": (94, None),
        "linkat": (265, 37),
        "lsetxattr": (189, 6),
        "mkdirat": (258, 34),
        "mknod": (133, None),
        "mount": (165, 40),
        "move_pages": (279, 239),
        "mq_open": (240, 180),
        "msgget": (68, 186),
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
        "renameat": (264, 38),
        "renameat2": (316, 276),
        "rt_sigqueueinfo": (129, 138),
        "rt_tgsigqueueinfo": (297, 240),
        "sched_setattr": (314, 274),
        "semget": (64, 190),
        "setns": (308, 268),
        "setxattr": (188, 5),
        "shmget": (29, 194),
        "socket": (41, 198),
        "symlinkat": (266, 36),
        "syslog": (103, 116),
        "tgkill": (234, 131),
        "tkill": (200, 130),
        "unlinkat": (263, 35),
        "unshare": (272, 97),
        "userfaultfd": (323, 282),
        "utime": (132, None),
        "utimes": (235, None),
    }.items()
}


def call(name: str, *arguments: Any) -> int:
    """What the kernel answers to that call. OSError if it refuses, NotImplementedError if there is none."""
    on = machine()
    number = getattr(CALLS[name], on) if on else None
    if number is None:
        raise NotImplementedError(f"no {name} on this processor")
    return calls.system_call(number, *arguments)
