"""The attacks, by processes of their own: all succeed unconfined, none at `full`; what each layer closes.

What a layer closes is a table here, so that one that grows weaker is seen, even if another stands behind.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import get_args

import msgspec
import pytest

from localai.confine import attacks, landlock, linux
from localai.confine.attacks import kernel, numbers
from localai.confine.attacks.early import SUFFIX, TRIES
from localai.confine.attacks.kinds import Attack, tried
from localai.confine.probes import WORDS, Concern
from localai.confine.report import LayerName, Profile
from localai.errors import OfflineError
from tests.localai.confined_attacker import Found, Settings
from tests.localai.kernels import landlock_abi

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the sandbox that is attacked is Linux's")

ROOT = Path(__file__).parents[2]
NOBODY = 65534
USERS = ("root", "nobody") if sys.platform == "linux" and os.geteuid() == 0 else ("user",)
LEAST = 60
"""So many attacks must be possible at least, or the control proves little."""
REFUSALS = {"EPERM", "EACCES", "ENOSYS", "EFBIG", "ENOMEM"}
"""How attacks are denied at `full`. Another error would be one of the attack's own."""
SECONDS = 3.0
"""All attacks take a twentieth of a second; more than this is something that waits."""

CLOSED_BY = {
    "TCP connect": "N L4 S",
    "TCP connect by the C library": "N L4 S",
    "TCP connect by system call": "N L4 S",
    "TCP connect in a new thread": "N L4 S",
    "TCP fast open": "N S",
    "TCP connect over IPv6": "N L4 S",
    "MPTCP connect": "N S",
    "TCP server": "L4 S",
    "UDP datagram": "N S",
    "UDP server": "S",
    "SCTP socket": "S",
    "raw socket": "n S",
    "packet socket": "n S",
    "netlink socket": "S",
    "vsock socket": "S",
    "kernel cipher socket": "S",
    "Unix socket with a path": "L9 S",
    "Unix socket with a name": "N L6 S",
    "Unix server with a path": "L1 S",
    "descriptor through a socket pair": "S",
    "io_uring": "S",
    "new file": "L1 R S",
    "new file by the C library": "L1 S",
    "new file to be read": "L1 S",
    "new file by openat2": "L1 S",
    "new file by creat": "L1 S",
    "file without a name": "L1 R S",
    "change a file": "L1 R S",
    "change the model": "L1 R S",
    "change the open model": "L1 R S",
    "write into a file of the app": "R",
    "append to a file": "L1 R S",
    "empty a file": "L3 S",
    "empty a file by opening it": "L1 S",
    "make a folder": "L1 S",
    "remove a folder": "L1 S",
    "rename a file": "L1 S",
    "exchange two files": "L1 S",
    "remove a file": "L1 S",
    "link to a file": "L1 S",
    "symbolic link": "L1 S",
    "named pipe": "L1 S",
    "device node": "n L1 S",
    "block device node": "n L1 S",
    "rights of the model": "S",
    "rights of the open model": "S",
    "rights of the model by fchmodat2": "S",
    "owner of the open model": "u S",
    "times of the open model": "S",
    "attribute of the open model": "S",
    "flags of the open model": "S",
    "mount": "n L1 S",
    "file elsewhere": "L1",
    "file elsewhere by openat2": "L1 S",
    "file elsewhere by its handle": "L1 S",
    "file of the system": "L1",
    "folder elsewhere": "L1",
    "list of processes": "L1",
    "environment of the app": "N L1",
    "command line of the app": "L1",
    "memory map of the app": "N L1",
    "memory of the app": "N L1",
    "open file of the app": "N L1",
    "program of the app": "N L1",
    "folder of the app": "N L1",
    "kernel log": "n S",
    "kernel log by its device": "n L1",
    "start a program": "L1 S",
    "start a program by posix_spawn": "L1 S",
    "become a program": "L1 S",
    "become a program in a place to read": "L1 S",
    "become a program in memory": "R S",
    "fork": "S",
    "process by clone": "S",
    "process by clone3": "S",
    "signal to the app": "L6 S",
    "signal to a thread of the app": "L6 S",
    "queued signal to the app": "L6 S",
    "signal by process handle": "L6 S",
    "signal by a pipe": "S",
    "take an open file of the app": "N L1 S",
    "copy memory of the app": "N L1 S",
    "write memory of the app": "N L1 S",
    "trace the app": "N L1 S",
    "network of the app": "n L1 S",
    "priority of the app": "n S",
    "cores of the app": "n S",
    "scheduling of the app": "n S",
    "limits of the app": "S",
    "32 TiB of addresses": "R",
    "32 TiB of memory": "R",
    "a dump of memory": "r",
    "larger files": "r",
    "more memory": "r",
    "unshare": "S",
    "program in the kernel": "n S",
    "performance counters": "S",
    "page faults": "S",
    "personality": "S",
    "timers": "S",
    "call to a device": "L5 S",
    "key in the kernel": "S",
    "x32 entry": "S",
    "pair of sockets": "S",
    "process by fork": "S",
    "make a folder by mkdirat": "L1 S",
    "remove a file by unlinkat": "L1 S",
    "remove a folder by unlinkat": "L1 S",
    "rename a file by renameat": "L1 S",
    "link to a file by linkat": "L1 S",
    "symbolic link by symlinkat": "L1 S",
    "named pipe by mknod": "L1 S",
    "rights of the model by fchmodat": "S",
    "owner of the model by chown": "u S",
    "owner of the model by lchown": "u S",
    "owner of the model by fchownat": "u S",
    "times of the model by utime": "S",
    "times of the model by utimes": "S",
    "times of the model by futimesat": "S",
    "attribute of the model by setxattr": "S",
    "attribute of the model by lsetxattr": "S",
    "watch a file elsewhere": "S",
    "signal to the app by tkill": "L6 S",
    "queued signal to a thread of the app": "L6 S",
    "scheduling of the app by sched_setattr": "n S",
    "pages of the app": "N L1 S",
    "shared memory": "S",
    "semaphore": "S",
    "message queue": "S",
    "message queue with a name": "S",
    "keys": "S",
    "asynchronous reading": "S",
    "another root folder": "n S",
}
"""What each layer closes alone: N the network namespace (n: as root, which gives up what root may do; u: as a
user, with the user namespace that this takes), L Landlock from that ABI on, S the filter of system calls,
R limits (r: if the user may not raise them)."""
LETTERS: dict[LayerName, str] = {
    "no_new_privs": "",
    "network_namespace": "N",
    "landlock": "L",
    "rlimits": "R",
    "seccomp": "S",
}


@functools.cache
def attacked(
    user: str,
    layers: Collection[LayerName] | None,
    *,
    abi: int = landlock.NEWEST,
    early: bool = False,
    profile: Profile = "cpu",
    act: str = "attack",
) -> Found:
    """What comes of an attacker who is that user, and confined by those layers; None: not at all."""
    if not may_run_python(user):
        pytest.skip("another user cannot run this Python")
    names = None if layers is None else tuple(name for name in linux.LAYERS if name in layers)
    settings = Settings(names, early, abi, profile, act)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place, "targets")
        folder.mkdir()
        if user == "nobody":
            Path(place).chmod(0o711)
            os.chown(folder, NOBODY, NOBODY)
        words = ["-m", "tests.localai.confined_attacker", "drive", str(folder)]
        run = subprocess.run(
            [sys.executable, "-B", *words, msgspec.json.encode(settings).decode()],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            cwd=ROOT,
            env={"PATH": "/usr/bin:/bin", "HOME": place},
            **identity(user),
        )
    if user == "nobody" and b"ermission denied" in run.stderr and not run.stdout:
        pytest.skip("another user cannot read this Python")
    assert run.returncode == 0, run.stderr.decode()
    return msgspec.json.decode(run.stdout, type=Found)


def identity(user: str) -> dict[str, object]:
    """For subprocess: that user, with no group beside."""
    return {"user": NOBODY, "group": NOBODY, "extra_groups": []} if user == "nobody" else {}


@functools.cache
def may_run_python(user: str) -> bool:
    """Whether that user can: root's own may lie in a folder that is closed to others."""
    try:
        return subprocess.run([sys.executable, "-c", ""], check=False, **identity(user)).returncode == 0
    except PermissionError:
        return False


def everything(*but: LayerName) -> frozenset[LayerName]:
    """All layers but those, as on a system that has not got them."""
    return frozenset(linux.LAYERS) - set(but)


def alone(layer: LayerName) -> frozenset[LayerName]:
    """That layer; the others cannot be had without no_new_privs, which closes nothing by itself."""
    return frozenset({"no_new_privs", layer})


def through(found: Found) -> dict[str, Concern]:
    """The attacks that succeeded, and what they are about."""
    return {outcome.name: outcome.concern for outcome in found.outcomes if not outcome.denied}


def told(found: Found) -> set[str]:
    """What the sandbox says that it left open."""
    return set(found.sandbox.open)


def require(found: Found, *layers: LayerName) -> None:
    """Skip where the system itself lacks one of the layers that are to be there."""
    for name in layers:
        layer = found.sandbox.layer(name)
        if layer is None or not layer.on:
            pytest.skip(f"{name} is not to be had here: {layer and layer.detail}")


def may_raise_limits() -> bool:
    """Whether root may here: CAP_SYS_RESOURCE."""
    match = re.search(r"CapEff:\t(\w+)", Path("/proc/self/status").read_text())
    return match is not None and bool(int(match[1], 16) >> 24 & 1)


def test_the_table_has_every_attack() -> None:
    assert set(CLOSED_BY) == set(attacks.ATTACKS)


def test_each_attack_is_about_something() -> None:
    assert {attack.concern for attack in attacks.ATTACKS.values()} == set(get_args(Concern))


@pytest.mark.parametrize("user", USERS)
def test_unconfined_all_succeed(user: str) -> None:
    found = attacked(user, None)
    failed = {outcome.name: outcome.detail for outcome in found.outcomes if outcome.denied}
    assert {name: why for name, why in failed.items() if not attacks.ATTACKS[name].needs} == {}
    assert len(through(found)) >= LEAST


@pytest.mark.parametrize("user", USERS)
def test_unconfined_they_touch_their_targets_alone(user: str) -> None:
    found = attacked(user, None)
    expected = r"folder/(made|victim)-[\w-]+|model\.gguf|opened"
    assert found.changed
    assert [name for name in found.changed if not re.fullmatch(expected, name)] == []
    assert found.seconds < SECONDS


@pytest.mark.parametrize("user", USERS)
def test_none_succeeds_at_full(user: str) -> None:
    found = attacked(user, everything())
    require(found, "landlock", "seccomp")
    assert (through(found), found.changed, found.sandbox.level, told(found)) == ({}, [], "full", set())
    assert {outcome.detail for outcome in found.outcomes if outcome.available} <= REFUSALS
    compared = attacks.compared(attacked(user, None).outcomes, found.outcomes)
    assert sum(outcome.available for outcome in compared) >= LEAST
    assert found.seconds < SECONDS


@pytest.mark.parametrize("user", USERS)
def test_a_thread_that_is_older_than_the_sandbox(user: str) -> None:
    control, found = attacked(user, None, early=True), attacked(user, everything(), early=True)
    require(found, "landlock", "seccomp")
    older = {name + SUFFIX for name in TRIES}
    assert older <= set(through(control))
    assert found.changed == []
    if landlock_abi() >= 8:  # its rules then reach all threads
        assert (through(found), found.sandbox.level) == ({}, "full")
    else:
        assert set(through(found)) <= {name + SUFFIX for name in ("file elsewhere", "memory of the app")}
        assert found.sandbox.level == "partial"
        assert told(found) == {"reading other files in threads that were there before"}


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("layer", [name for name in linux.LAYERS if name != "landlock"])
def test_each_layer_alone_closes_what_is_its_own(user: str, layer: LayerName) -> None:
    found = attacked(user, alone(layer))
    require(found, layer)
    letters = {LETTERS[layer]}
    if layer == "network_namespace":
        letters.add("n" if user == "root" else "u")
    if layer == "rlimits" and not (user == "root" and may_raise_limits()):
        letters.add("r")
    expected = {name for name, by in CLOSED_BY.items() if letters & set(by.split())}
    control = set(through(attacked(user, None)))
    assert control - set(through(found)) == control & expected


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("abi", range(1, landlock.NEWEST + 1))
def test_landlock_alone_closes_what_its_version_can(user: str, abi: int) -> None:
    if abi > landlock_abi():
        pytest.skip(f"this kernel's Landlock has ABI {landlock_abi()}")
    found = attacked(user, alone("landlock"), abi=abi)
    since = {name: int(match[1]) for name, by in CLOSED_BY.items() if (match := re.search(r"L(\d)", by))}
    control = set(through(attacked(user, None)))
    expected = {name for name in control if since.get(name, abi + 1) <= abi}
    assert control - set(through(found)) == expected


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("layer", linux.LAYERS)
def test_what_got_through_is_what_is_told(user: str, layer: LayerName) -> None:
    for layers in (everything(layer), alone(layer)):
        found = attacked(user, layers)
        assert told(found) == {WORDS[concern] for concern in through(found).values()}
        assert (found.sandbox.level == "full") == (not through(found))


@pytest.mark.parametrize("user", USERS)
def test_quantizing_writes_into_open_files_and_does_nothing_else(user: str) -> None:
    found = attacked(user, everything(), profile="quantize")
    require(found, "landlock", "seccomp")
    assert set(through(found)) == {"write into a file of the app"}
    assert found.changed == ["opened"]


@pytest.mark.parametrize("user", USERS)
def test_what_the_driver_of_a_gpu_needs_is_open_and_told(user: str) -> None:
    found = attacked(user, everything(), profile="gpu")
    require(found, "landlock", "seccomp")
    assert set(through(found)) <= {"flags of the open model", "32 TiB of addresses"}
    assert (found.changed, found.sandbox.level, told(found)) == ([], "partial", {"the GPU's driver"})


@pytest.mark.parametrize("user", USERS)
def test_a_worker_can_still_work(user: str) -> None:
    control, found = attacked(user, None, act="work"), attacked(user, everything(), act="work")
    assert found.works == {**control.works, "no new privileges": "True"}
    assert found.works == {
        "map": "8192",
        "memmap": "0",
        "product": "True",
        "threads": str(list(range(8))),
        "random": "16",
        "clock": "True",
        "no new privileges": "True",
    }


@pytest.mark.parametrize("user", USERS)
def test_the_entry_for_32_bit_programs_ends_the_process(user: str) -> None:
    act = "enter 32 bit"
    if attacked(user, None, act=act).works != {"process": "True"}:
        pytest.skip("this kernel, or processor, has no such entry")
    assert attacked(user, alone("seccomp"), act=act).exit_code == -signal.SIGSYS


@pytest.mark.skipif(USERS == ("user",), reason="it takes root to make a program that runs as root")
def test_without_new_privileges_no_program_runs_as_its_owner(tmp_path: Path) -> None:
    if not may_run_python("nobody"):
        pytest.skip("another user cannot run this Python")
    with tempfile.TemporaryDirectory() as place:
        program = Path(place, "id")
        shutil.copy("/usr/bin/id", program)
        program.chmod(0o4755)
        Path(place).chmod(0o755)
        lines = f"import subprocess, sys; subprocess.run([{str(program)!r}, '-u'])"
        confine = "from localai.confine import linux; linux.enter('cpu', [], layers=['no_new_privs']); "
        users = [
            subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, **identity("nobody"))
            for code in (lines, confine + lines)
        ]
    if users[0].stdout.strip() != b"0":
        pytest.skip("files in the temporary folder cannot run as their owner, or nobody cannot read Python")
    assert int(users[1].stdout) == NOBODY


def test_targets_are_gone_afterwards(tmp_path: Path) -> None:
    with attacks.prepare(tmp_path) as targets:
        os.fstat(targets.descriptor)
        assert Path(targets.unix_path).is_socket()
    assert not Path(targets.unix_path).parent.exists()
    with pytest.raises(OSError, match="descriptor"):
        os.fstat(targets.descriptor)


def test_attacks_leave_a_descriptor_that_is_another_file_alone(tmp_path: Path) -> None:
    with attacks.prepare(tmp_path / "ours", traceable=False) as targets:
        pass
    other = tmp_path / "other"
    other.write_bytes(b"ours")
    opened = os.open(other, os.O_RDWR)
    os.dup2(opened, targets.descriptor)
    os.close(opened)
    name = "write into a file of the app"
    outcome = tried(name, attacks.ATTACKS[name], targets)
    os.close(targets.descriptor)
    assert (outcome.denied, outcome.detail, other.read_bytes()) == (True, "EBADF", b"ours")


@pytest.mark.parametrize(
    ("error", "denied", "detail", "available"),
    [
        (PermissionError(1, "no"), True, "EPERM", True),
        (TimeoutError("too long"), True, "too long", True),
        (OfflineError("no network here"), True, "OfflineError: no network here", False),
        (NotImplementedError("none"), True, "NotImplementedError: none", False),
        (ValueError("a mistake of ours"), True, "ValueError: a mistake of ours", False),
    ],
)
def test_what_an_error_means(
    error: Exception, denied: bool, detail: str, available: bool, tmp_path: Path
) -> None:
    def attempt(_: attacks.Targets) -> None:
        raise error

    with attacks.prepare(tmp_path / "targets") as targets:
        outcome = tried("it", Attack("write", attempt), targets)
    assert outcome == attacks.Outcome("it", "write", denied, detail, available)


def test_what_fails_in_the_control_proves_nothing() -> None:
    control = [attacks.Outcome("a", "read", True, "ENOSYS"), attacks.Outcome("b", "read", False, "done")]
    confined = [attacks.Outcome("a", "read", True, "EPERM"), attacks.Outcome("b", "read", True, "EPERM")]
    assert [outcome.available for outcome in attacks.compared(control, confined)] == [False, True]


def test_the_older_thread_ends() -> None:
    early = attacks.EarlyThread()
    early.close()
    assert not early._thread.is_alive()


@pytest.mark.parametrize(
    ("column", "headers"),
    [
        ("x86_64", "x86_64-linux-gnu/asm/unistd_64.h"),
        ("aarch64", "asm-generic/unistd.h"),
    ],
)
def test_numbers_are_those_of_the_kernel(column: str, headers: str) -> None:
    path = Path("/usr/include", headers)
    if not path.is_file():
        pytest.skip("the kernel's headers are not installed")
    defined = dict(re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", path.read_text()))
    ours = {name: getattr(one, column) for name, one in numbers.CALLS.items()}
    wrong = {name for name, number in ours.items() if int(defined.get(name, number or 0)) != (number or 0)}
    absent = {name for name, number in ours.items() if number is not None and name not in defined}
    assert (wrong, absent - {"fchmodat2"}) == (set(), set())


def test_the_control_of_numbers() -> None:
    assert numbers.call("getpid") == os.getpid()
    assert kernel.ATTACKS.keys() <= attacks.ATTACKS.keys()
