"""The filter of system calls: what a worker needs is allowed, everything else is refused.

A list of what is allowed, because a list of what is forbidden is out of date with the next kernel. Refused
calls fail with EPERM; those that are newer than our tables with ENOSYS, so that the C library falls back to
older ones. A call through the 32-bit entry ends the process. `program` only makes the filter, and can be
tried for both architectures anywhere; `install` puts it over all threads of this process (TSYNC).

Source: seccomp(2), linux/filter.h, linux/seccomp.h.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from localai.confine import calls
from localai.confine.report import Profile
from localai.confine.syscalls import AUDIT_ARCH, CALLS, LAST_KNOWN, Machine, machine, number

ALLOW: Final = 0x7FFF0000
KILL: Final = 0x80000000
REFUSE: Final = 0x00050000 | errno.EPERM
UNKNOWN: Final = 0x00050000 | errno.ENOSYS

_LOAD, _EQUAL, _GREATER_EQUAL, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
"""Of classic BPF: load a word of the call; jump if equal, not less, any bit set; end."""
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16
"""Offsets in struct seccomp_data; each argument has 8 bytes, the lower word first on both architectures."""
_X32 = 0x40000000

_SET_MODE_FILTER = 1
_TSYNC, _SPEC_ALLOW = 1, 4
"""All threads; and without what older kernels do against speculation, which slows the whole process."""
_CLONE_THREAD = 0x00010000
_NAMESPACES = 0x7E020000
"""CLONE_NEWNS to CLONE_NEWNET: threads that were there before may still have root's capabilities."""
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | getattr(os, "O_TMPFILE", 0) & ~os.O_DIRECTORY

# Those that computing needs most come first: the kernel looks from the beginning.
_ALWAYS: Final = """
    futex read write mmap munmap madvise mprotect clock_gettime clock_nanosleep pread64 sched_yield getcpu
    access arch_prctl brk clock_getres close close_range dup dup2 dup3 exit exit_group faccessat faccessat2
    fadvise64 fstat fstatfs futex_waitv get_mempolicy getcwd getdents64 getegid geteuid getgid getitimer
    getpid getppid getrandom getrlimit getrusage gettid gettimeofday getuid lseek lstat membarrier
    memfd_create mlock mlock2 mremap msync munlock nanosleep newfstatat pause pipe pipe2 poll ppoll preadv
    pselect6 readahead readlink readlinkat readv restart_syscall rseq rt_sigaction rt_sigpending
    rt_sigprocmask rt_sigreturn rt_sigsuspend rt_sigtimedwait sched_get_priority_max sched_get_priority_min
    sched_getaffinity sched_getparam sched_getscheduler select set_robust_list set_tid_address setitimer
    setrlimit sigaltstack stat statfs statx sysinfo time times umask uname writev
"""
_TO_WRITE: Final = "pwrite64 pwritev ftruncate fallocate fsync fdatasync sync_file_range"
"""What else writing into open files takes."""
_FOR_GPUS: Final = (
    "open openat eventfd2 epoll_create1 epoll_ctl epoll_pwait epoll_wait mbind set_mempolicy pwrite64"
)
"""Which files a driver opens for writing is then Landlock's business: nodes of devices, and no others."""
_ABSENT: Final = ("clone3", "openat2")
"""Their arguments lie in memory, where a filter cannot look: the C library falls back to clone and openat."""

_FCNTL: Final = (0, 1, 2, 3, 4, 1030, 1031, 1032, 1033, 1034)
"""F_DUPFD, F_GETFD to F_SETFL, F_DUPFD_CLOEXEC, F_SETPIPE_SZ, F_GETPIPE_SZ, F_ADD_SEALS, F_GET_SEALS.
Not F_SETOWN, which can send signals to other processes."""
_IOCTL: Final = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)
"""TCGETS, TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX."""
_FILE_IOCTL: Final = (0x40086602, 0x401C5820, 0x40046604, 0x40049409, 0x4020940D)
"""FS_IOC_SETFLAGS, FS_IOC_FSSETXATTR, FS_IOC_SETVERSION, FICLONE, FICLONERANGE: no business of a GPU's."""
_PRCTL: Final = (3, 15, 16, 0x53564D41)
"""PR_GET_DUMPABLE, PR_SET_NAME, PR_GET_NAME, PR_SET_VMA."""


class Instruction(NamedTuple):
    """One of classic BPF: struct sock_filter."""

    code: int
    if_true: int
    """So many instructions are skipped if the comparison holds."""
    if_false: int
    operand: int


def program(on: Machine, profile: Profile, pid: int) -> list[Instruction]:
    """The filter for a process with that id."""
    return [
        Instruction(_LOAD, 0, 0, _ARCHITECTURE),
        Instruction(_EQUAL, 1, 0, AUDIT_ARCH[on]),
        _end(KILL),
        Instruction(_LOAD, 0, 0, _NUMBER),
        *([Instruction(_GREATER_EQUAL, 0, 1, _X32), _end(REFUSE)] if on == "x86_64" else []),
        *(step for name in allowed(profile) for step in _if_call(name, on, [_end(ALLOW)])),
        *(step for name in _ABSENT for step in _if_call(name, on, [_end(UNKNOWN)])),
        *_conditional(on, profile, pid),
        Instruction(_GREATER_EQUAL, 0, 1, LAST_KNOWN + 1),
        _end(UNKNOWN),
        _end(REFUSE),
    ]


def allowed(profile: Profile) -> list[str]:
    """The calls that are allowed whatever their arguments are."""
    more: dict[Profile, str] = {"cpu": "", "gpu": _FOR_GPUS, "quantize": _TO_WRITE}
    return [*_ALWAYS.split(), *more[profile].split()]


def _conditional(on: Machine, profile: Profile, pid: int) -> Iterator[Instruction]:
    """What depends on arguments: threads but no processes, files but only to read, only oneself."""
    thread = [Instruction(_ANY_BIT, 2, 0, _NAMESPACES), Instruction(_ANY_BIT, 0, 1, _CLONE_THREAD)]
    yield from _if_call("clone", on, [*_argument(0), *thread, *_either()])
    for name, flags in () if profile == "gpu" else (("openat", 2), ("open", 1)):
        writes = Instruction(_ANY_BIT, 1, 0, _WRITES)
        yield from _if_call(name, on, [*_argument(flags), writes, *_either()])
    yield from _if_call("fcntl", on, [*_argument(1), *_if_one_of(_FCNTL)])
    if profile == "gpu":
        yield from _if_call("ioctl", on, [*_argument(1), *_if_one_of(_FILE_IOCTL, then=REFUSE)])
    else:
        yield from _if_call("ioctl", on, [*_argument(1), *_if_one_of(_IOCTL)])
    yield from _if_call("prctl", on, [*_argument(0), *_if_one_of(_PRCTL)])
    yield from _if_call("tgkill", on, [*_argument(0), *_if_one_of((pid,))])
    for name in ("prlimit64", "sched_setaffinity"):
        yield from _if_call(name, on, [*_argument(0), *_if_one_of((0,))])


def _if_call(name: str, on: Machine, body: list[Instruction]) -> list[Instruction]:
    """`body`, which must end, for that call; nothing if the architecture has none of that name."""
    call = number(name, on)
    return [] if call is None else [Instruction(_EQUAL, 0, len(body), call), *body]


def _argument(index: int) -> list[Instruction]:
    """Load the lower word of an argument."""
    return [Instruction(_LOAD, 0, 0, _ARGUMENTS + 8 * index)]


def _either() -> list[Instruction]:
    """What follows a comparison that skips 0 if all is well and 1 if not."""
    return [_end(ALLOW), _end(REFUSE)]


def _if_one_of(values: tuple[int, ...], then: int = ALLOW) -> list[Instruction]:
    tests = [Instruction(_EQUAL, len(values) - place, 0, value) for place, value in enumerate(values)]
    return [*tests, _end(REFUSE if then == ALLOW else ALLOW), _end(then)]


def _end(verdict: int) -> Instruction:
    return Instruction(_RETURN, 0, 0, verdict)


class _Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]


def install(profile: Profile) -> str:
    """Filter all threads of this process from now on; how, in a few words. OSError if that cannot be."""
    on = machine()
    if on is None:
        raise OSError(errno.ENOSYS, "not for this processor")
    steps = program(on, profile, os.getpid())
    code = b"".join(struct.pack("=HBBI", *step) for step in steps)
    buffer = ctypes.create_string_buffer(code, len(code))
    filter_ = ctypes.byref(_Program(len(steps), ctypes.cast(buffer, ctypes.c_void_p)))
    call = number("seccomp", on)
    assert call is not None
    try:
        thread = calls.system_call(call, _SET_MODE_FILTER, _TSYNC | _SPEC_ALLOW, filter_)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        thread = calls.system_call(call, _SET_MODE_FILTER, _TSYNC, filter_)  # before Linux 4.17
    if thread:
        raise OSError(errno.EBUSY, f"thread {thread} cannot be filtered")
    return f"{len(CALLS)} calls known, {len(allowed(profile))} allowed"
