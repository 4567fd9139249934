"""Numbers of Linux system calls on the two architectures that workers are confined on.

Source: asm/unistd_64.h of x86-64, and asm-generic/unistd.h, which aarch64 uses, of Linux 6.1. Calls that one
of the two does not have are None there.
"""

from __future__ import annotations

import platform
import sys
from typing import Final, Literal, NamedTuple

Machine = Literal["x86_64", "aarch64"]


class Numbers(NamedTuple):
    """The number of one call."""

    x86_64: int | None
    aarch64: int | None


AUDIT_ARCH: Final[dict[Machine, int]] = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
"""AUDIT_ARCH_* of linux/audit.h: how a filter tells which table of numbers a call is from."""
LAST_KNOWN: Final = 450
"""Calls above are newer than this file. They are answered as by a kernel that does not have them."""

CALLS: Final[dict[str, Numbers]] = {
    name: Numbers(*numbers)
    for name, numbers in {
        "access": (21, None),
        "arch_prctl": (158, None),
        "brk": (12, 214),
        "clock_getres": (229, 114),
        "clock_gettime": (228, 113),
        "clock_nanosleep": (230, 115),
        "clone": (56, 220),
        "clone3": (435, 435),
        "close": (3, 57),
        "close_range": (436, 436),
        "dup": (32, 23),
        "dup2": (33, None),
        "dup3": (292, 24),
        "epoll_create1": (291, 20),
        "epoll_ctl": (233, 21),
        "epoll_pwait": (281, 22),
        "epoll_wait": (232, None),
        "eventfd2": (290, 19),
        "exit": (60, 93),
        "exit_group": (231, 94),
        "faccessat": (269, 48),
        "faccessat2": (439, 439),
        "fadvise64": (221, 223),
        "fallocate": (285, 47),
        "fcntl": (72, 25),
        "fdatasync": (75, 83),
        "fstat": (5, 80),
        "fstatfs": (138, 44),
        "fsync": (74, 82),
        "ftruncate": (77, 46),
        "futex": (202, 98),
        "futex_waitv": (449, 449),
        "get_mempolicy": (239, 236),
        "getcpu": (309, 168),
        "getcwd": (79, 17),
        "getdents64": (217, 61),
        "getegid": (108, 177),
        "geteuid": (107, 175),
        "getgid": (104, 176),
        "getitimer": (36, 102),
        "getpid": (39, 172),
        "getppid": (110, 173),
        "getrandom": (318, 278),
        "getrlimit": (97, 163),
        "getrusage": (98, 165),
        "gettid": (186, 178),
        "gettimeofday": (96, 169),
        "getuid": (102, 174),
        "ioctl": (16, 29),
        "landlock_create_ruleset": (444, 444),
        "landlock_add_rule": (445, 445),
        "landlock_restrict_self": (446, 446),
        "lseek": (8, 62),
        "lstat": (6, None),
        "madvise": (28, 233),
        "mbind": (237, 235),
        "membarrier": (324, 283),
        "memfd_create": (319, 279),
        "mlock": (149, 228),
        "mlock2": (325, 284),
        "mmap": (9, 222),
        "mprotect": (10, 226),
        "mremap": (25, 216),
        "msync": (26, 227),
        "munlock": (150, 229),
        "munmap": (11, 215),
        "nanosleep": (35, 101),
        "newfstatat": (262, 79),
        "open": (2, None),
        "openat": (257, 56),
        "openat2": (437, 437),
        "pause": (34, None),
        "pipe": (22, None),
        "pipe2": (293, 59),
        "poll": (7, None),
        "ppoll": (271, 73),
        "prctl": (157, 167),
        "pread64": (17, 67),
        "preadv": (295, 69),
        "prlimit64": (302, 261),
        "pselect6": (270, 72),
        "pwrite64": (18, 68),
        "pwritev": (296, 70),
        "read": (0, 63),
        "readahead": (187, 213),
        "readlink": (89, None),
        "readlinkat": (267, 78),
        "readv": (19, 65),
        "restart_syscall": (219, 128),
        "rseq": (334, 293),
        "rt_sigaction": (13, 134),
        "rt_sigpending": (127, 136),
        "rt_sigprocmask": (14, 135),
        "rt_sigreturn": (15, 139),
        "rt_sigsuspend": (130, 133),
        "rt_sigtimedwait": (128, 137),
        "sched_get_priority_max": (146, 125),
        "sched_get_priority_min": (147, 126),
        "sched_getaffinity": (204, 123),
        "sched_getparam": (143, 121),
        "sched_getscheduler": (145, 120),
        "sched_setaffinity": (203, 122),
        "sched_yield": (24, 124),
        "seccomp": (317, 277),
        "select": (23, None),
        "set_mempolicy": (238, 237),
        "set_robust_list": (273, 99),
        "set_tid_address": (218, 96),
        "setitimer": (38, 103),
        "setrlimit": (160, 164),
        "sigaltstack": (131, 132),
        "socket": (41, 198),
        "stat": (4, None),
        "statfs": (137, 43),
        "statx": (332, 291),
        "sync_file_range": (277, 84),
        "sysinfo": (99, 179),
        "tgkill": (234, 131),
        "time": (201, None),
        "times": (100, 153),
        "umask": (95, 166),
        "uname": (63, 160),
        "write": (1, 64),
        "writev": (20, 66),
    }.items()
}


def machine() -> Machine | None:
    """The architecture of this process; None: another one, or not Linux.

    The system's is another for a 32-bit Python on it: its calls have other numbers.
    """
    found = platform.machine()
    if platform.system() != "Linux" or found not in ("x86_64", "aarch64") or sys.maxsize < 2**32:
        return None
    return found  # type: ignore[return-value]


def number(name: str, on: Machine) -> int | None:
    """The number of the call `name` on that architecture; None: it has none."""
    return getattr(CALLS[name], on)  # type: ignore[no-any-return]
