"""The filter of system calls, run here as the kernel runs it, for both architectures."""

from __future__ import annotations

import platform
import re
import struct
import sys
from pathlib import Path
from typing import get_args

import pytest

from localai.confine import seccomp, syscalls
from localai.confine.report import Profile
from localai.confine.syscalls import AUDIT_ARCH, CALLS, LAST_KNOWN, Machine

PID = 4711
HEADERS: dict[Machine, Path] = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "aarch64": Path("/usr/include/asm-generic/unistd.h"),
}
MACHINES = get_args(Machine)
PROFILES = get_args(Profile)
CPU_AND_QUANTIZE = ("cpu", "quantize")


def verdict(on: Machine, profile: Profile, call: str | int, *arguments: int) -> int:
    """What the filter says of a call: an interpreter of classic BPF, written from linux/filter.h."""
    number = getattr(CALLS[call], on) if isinstance(call, str) else call
    words = [*arguments, *[0] * (6 - len(arguments))]
    return run(seccomp.program(on, profile, PID), struct.pack("=IIQ6Q", number, AUDIT_ARCH[on], 0, *words))


def run(program: list[seccomp.Instruction], data: bytes) -> int:
    accumulator = place = 0
    while True:
        code, if_true, if_false, operand = program[place]
        place += 1
        match code:
            case 0x20:
                accumulator = struct.unpack_from("=I", data, operand)[0]
            case 0x15:
                place += if_true if accumulator == operand else if_false
            case 0x35:
                place += if_true if accumulator >= operand else if_false
            case 0x45:
                place += if_true if accumulator & operand else if_false
            case 0x06:
                return operand
            case _:
                raise AssertionError(f"no such instruction: {code:#x}")


@pytest.mark.parametrize("on", MACHINES)
def test_the_numbers_are_those_of_the_kernels_headers(on: Machine) -> None:
    if not HEADERS[on].exists():
        pytest.skip(f"{HEADERS[on]} is not installed")
    found = dict(
        re.findall(r"^#define __NR(?:3264)?_(\w+)\s+(\d+)$", HEADERS[on].read_text(), flags=re.MULTILINE)
    )
    found["newfstatat"] = found.get("newfstatat") or found["fstatat"]
    newest = max(int(number) for name, number in found.items() if number and name != "syscalls")
    for name, numbers in CALLS.items():
        number = getattr(numbers, on)
        if number is None or number <= newest:  # else the headers are older than the call
            assert str(number) == found.get(name, "None"), name


@pytest.mark.parametrize("on", MACHINES)
@pytest.mark.parametrize("profile", PROFILES)
def test_what_computing_needs_is_allowed(on: Machine, profile: Profile) -> None:
    for name in ("read", "write", "futex", "mmap", "munmap", "mprotect", "exit_group", "clock_gettime"):
        assert verdict(on, profile, name) == seccomp.ALLOW, name
    assert verdict(on, profile, "openat", 0, 0, 0o2000000) == seccomp.ALLOW, "O_RDONLY | O_CLOEXEC"
    assert verdict(on, profile, "clone", 0x3D0F00) == seccomp.ALLOW, "a thread, as pthread_create makes it"
    assert verdict(on, profile, "tgkill", PID, PID, 6) == seccomp.ALLOW, "abort()"
    assert verdict(on, profile, "fcntl", 1, 3) == seccomp.ALLOW
    assert verdict(on, profile, "prlimit64", 0, 7) == seccomp.ALLOW


@pytest.mark.parametrize("on", MACHINES)
@pytest.mark.parametrize("profile", PROFILES)
def test_what_reaches_out_is_refused(on: Machine, profile: Profile) -> None:
    column = MACHINES.index(on)
    refused = {
        "socket": (41, 198), "socketpair": (53, 199), "connect": (42, 203), "sendto": (44, 206),
        "bind": (49, 200), "sendmsg": (46, 211), "recvmsg": (47, 212), "io_uring_setup": (425, 425),
        "execve": (59, 221), "execveat": (322, 281), "ptrace": (101, 117), "kill": (62, 129),
        "process_vm_readv": (310, 270), "pidfd_getfd": (438, 438), "bpf": (321, 280), "keyctl": (250, 219),
        "unshare": (272, 97), "setns": (308, 268), "mount": (165, 40), "unlinkat": (263, 35),
        "renameat2": (316, 276), "fchmodat": (268, 53), "truncate": (76, 45), "mknodat": (259, 33),
        "utimensat": (280, 88), "setpriority": (141, 140), "tkill": (200, 130), "personality": (135, 92),
        "rt_sigqueueinfo": (129, 138), "perf_event_open": (298, 241), "userfaultfd": (323, 282),
    }  # fmt: skip
    for name, numbers in refused.items():
        assert verdict(on, profile, numbers[column]) == seccomp.REFUSE, name


@pytest.mark.parametrize("on", MACHINES)
@pytest.mark.parametrize("profile", PROFILES)
def test_arguments_count(on: Machine, profile: Profile) -> None:
    assert verdict(on, profile, "clone", 17) == seccomp.REFUSE, "fork"
    for namespace in (0x20000, *(1 << bit for bit in range(25, 31))):
        assert verdict(on, profile, "clone", 0x3D0F00 | namespace) == seccomp.REFUSE
    assert verdict(on, profile, "tgkill", PID + 1, PID + 1, 9) == seccomp.REFUSE
    assert verdict(on, profile, "prlimit64", PID + 1, 7) == seccomp.REFUSE
    assert verdict(on, profile, "sched_setaffinity", PID + 1) == seccomp.REFUSE
    assert verdict(on, profile, "fcntl", 0, 8) == seccomp.REFUSE, "F_SETOWN sends signals"
    assert verdict(on, profile, "prctl", 22) == seccomp.REFUSE, "PR_SET_SECCOMP"
    assert verdict(on, profile, "clone3") == verdict(on, profile, "openat2") == seccomp.UNKNOWN
    assert verdict(on, profile, LAST_KNOWN + 1) == seccomp.UNKNOWN


@pytest.mark.parametrize("on", MACHINES)
@pytest.mark.parametrize("profile", CPU_AND_QUANTIZE)
@pytest.mark.parametrize("flags", [0o1, 0o2, 0o100, 0o1000, 0o20200001, 0o3])
def test_nothing_is_opened_for_writing(on: Machine, profile: Profile, flags: int) -> None:
    assert verdict(on, profile, "openat", 0, 0, flags) == seccomp.REFUSE
    if on == "x86_64":
        assert verdict(on, profile, "open", 0, flags) == seccomp.REFUSE


@pytest.mark.parametrize("on", MACHINES)
def test_only_quantize_writes_into_open_files(on: Machine) -> None:
    for name in ("ftruncate", "fallocate", "pwritev"):
        assert verdict(on, "quantize", name) == seccomp.ALLOW
        assert verdict(on, "cpu", name) == verdict(on, "gpu", name) == seccomp.REFUSE


@pytest.mark.parametrize("on", MACHINES)
def test_only_gpus_get_ioctls(on: Machine) -> None:
    nvidia = 0xC00846D6
    assert verdict(on, "gpu", "ioctl", 3, nvidia) == seccomp.ALLOW
    assert verdict(on, "cpu", "ioctl", 3, nvidia) == verdict(on, "quantize", "ioctl", 3, nvidia)
    assert verdict(on, "cpu", "ioctl", 3, nvidia) == seccomp.REFUSE
    assert verdict(on, "gpu", "ioctl", 3, 0x40086602) == seccomp.REFUSE, "FS_IOC_SETFLAGS"
    assert verdict(on, "cpu", "ioctl", 0, 0x5412) == seccomp.REFUSE, "TIOCSTI types on the terminal"
    assert verdict(on, "cpu", "ioctl", 0, 0x5401) == seccomp.ALLOW, "TCGETS, which Python's open() asks"


def test_other_entries_of_the_kernel_are_closed() -> None:
    program = seccomp.program("x86_64", "cpu", PID)
    i386 = struct.pack("=IIQ6Q", 4, 0x40000003, 0, *[0] * 6)
    assert run(program, i386) == seccomp.KILL
    assert verdict("x86_64", "cpu", 0x40000000 | 1) == seccomp.REFUSE, "x32's write"


@pytest.mark.parametrize("on", MACHINES)
@pytest.mark.parametrize("profile", PROFILES)
def test_the_kernel_would_take_the_program(on: Machine, profile: Profile) -> None:
    """Jumps go forward and stay within, and the last instruction ends it."""
    program = seccomp.program(on, profile, PID)
    assert len(program) <= 4096
    assert program[-1].code == 0x06
    for place, (code, if_true, if_false, _) in enumerate(program):
        if code != 0x06:
            assert place + 1 + max(if_true, if_false) < len(program)
        assert max(if_true, if_false) < 256


def test_a_program_of_32_bits_has_no_filter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as Python on many a Raspberry Pi, whose kernel has 64: each of its calls would end it."""
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert syscalls.machine() == ("aarch64" if sys.platform == "linux" else None)
    monkeypatch.setattr(sys, "maxsize", 2**31 - 1)
    assert syscalls.machine() is None
