"""Attempts to disturb, control or look into the app by calls about processes."""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import struct
from collections.abc import Callable
from typing import Final

from localai.confine.attacks.kinds import Attack, in_thread
from localai.confine.attacks.numbers import call
from localai.confine.attacks.targets import SECRET, Targets

_SEIZE: Final = 0x4206
"""PTRACE_SEIZE: attach, but stop nothing. It ends with the thread that did it."""
_NEW_NET: Final = 0x40000000
_TRACE: Final = "the right to trace the app"


def _with_handle(targets: Targets, use: Callable[[int], int]) -> None:
    """`use` a descriptor that stands for the app."""
    opened = call("pidfd_open", targets.app, 0)
    try:
        use(opened)
    finally:
        os.close(opened)


def _signal_by_handle(targets: Targets) -> None:
    _with_handle(targets, lambda opened: call("pidfd_send_signal", opened, 0, None, 0))


def _queue_signal(targets: Targets) -> None:
    by_queue = struct.pack("=iii", 0, 0, -1).ljust(128, b"\0")
    call("rt_sigqueueinfo", targets.app, 0, by_queue)


def _signal_by_pipe(targets: Targets) -> None:
    """Have the kernel tell the app by signal when there is something to read; nothing is."""
    import fcntl

    reader, writer = os.pipe()
    try:
        fcntl.fcntl(reader, fcntl.F_SETOWN, targets.app)
    finally:
        os.close(reader)
        os.close(writer)


def _take_descriptor(targets: Targets) -> None:
    _with_handle(targets, lambda opened: _closed(call("pidfd_getfd", opened, targets.descriptor, 0)))


def _closed(descriptor: int) -> int:
    os.close(descriptor)
    return 0


def _vector(address: int, length: int) -> bytes:
    """struct iovec."""
    return struct.pack("=QQ", address, length)


def _copy_memory(targets: Targets) -> None:
    copy = ctypes.create_string_buffer(len(SECRET))
    ours = _vector(ctypes.addressof(copy), len(SECRET))
    call("process_vm_readv", targets.app, ours, 1, _vector(targets.address, len(SECRET)), 1, 0)
    if copy.raw != SECRET:
        raise OSError(errno.EIO, "another memory")


def _write_memory(targets: Targets) -> None:
    """With what stands there already."""
    copy = ctypes.create_string_buffer(SECRET, len(SECRET))
    ours = _vector(ctypes.addressof(copy), len(SECRET))
    call("process_vm_writev", targets.app, ours, 1, _vector(targets.address, len(SECRET)), 1, 0)


def _trace(targets: Targets) -> None:
    def act() -> None:
        call("ptrace", _SEIZE, targets.app, 0, 0)

    in_thread(act)


def _enter_network(targets: Targets) -> None:
    """Go back to the network of the app."""

    def act() -> None:
        opened = os.open(f"/proc/{targets.app}/ns/net", os.O_RDONLY)
        try:
            call("setns", opened, _NEW_NET)
        finally:
            os.close(opened)

    in_thread(act)


def _priority(targets: Targets) -> None:
    os.setpriority(os.PRIO_PROCESS, targets.app, targets.niceness)


def _cores(targets: Targets) -> None:
    os.sched_setaffinity(targets.app, os.sched_getaffinity(targets.app))


def _scheduling(targets: Targets) -> None:
    kind, settings = os.sched_getscheduler(targets.app), os.sched_getparam(targets.app)
    os.sched_setscheduler(targets.app, kind, settings)


def _limits(targets: Targets) -> None:
    resource.prlimit(targets.app, resource.RLIMIT_NOFILE)


ATTACKS: Final = {
    "signal to the app": Attack("processes", lambda targets: os.kill(targets.app, 0)),
    "signal to a thread of the app": Attack(
        "processes", lambda targets: _nothing(call("tgkill", targets.app, targets.app, 0))
    ),
    "queued signal to the app": Attack("processes", _queue_signal),
    "signal by process handle": Attack("processes", _signal_by_handle),
    "signal by a pipe": Attack("processes", _signal_by_pipe),
    "take an open file of the app": Attack("processes", _take_descriptor, _TRACE),
    "copy memory of the app": Attack("processes", _copy_memory, _TRACE),
    "write memory of the app": Attack("processes", _write_memory, _TRACE),
    "trace the app": Attack("processes", _trace, _TRACE),
    "network of the app": Attack("processes", _enter_network, "root"),
    "priority of the app": Attack("processes", _priority),
    "cores of the app": Attack("processes", _cores),
    "scheduling of the app": Attack("processes", _scheduling),
    "limits of the app": Attack("processes", _limits),
}


def _nothing(_: int) -> None:
    """For calls whose answer means nothing."""
