"""Attempts to start programs and processes.

Where a process comes to be, it ends at once.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import struct
import subprocess
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from localai.confine import calls
from localai.confine.attacks.kinds import Attack
from localai.confine.attacks.numbers import CALLS, call
from localai.confine.attacks.targets import Targets
from localai.confine.syscalls import machine

PROGRAM: Final = "/bin/true"
_AT_EMPTY_PATH: Final = 0x1000


def _run(_: Targets) -> None:
    started = subprocess.Popen([PROGRAM], stdin=subprocess.DEVNULL, env={})
    with suppress(OSError):
        started.wait()


def _spawn(_: Targets) -> None:
    _wait(os.posix_spawn(PROGRAM, [PROGRAM], {}))


def _new_process(make: Callable[[], int]) -> None:
    """A process by `make`, which gives 0 in it, and its id here. No Python runs in it but what ends it."""
    made = make()
    if made == 0:
        os._exit(0)
    if made < 0:
        raise calls.failed()
    _wait(made)


def _wait(process: int) -> None:
    """Until it has ended. That it was made counts, also where nobody may wait for it."""
    with suppress(OSError):
        os.waitpid(process, 0)


def _library() -> ctypes.PyDLL:
    """The C library, called without giving up the interpreter: in the copy, nobody could give it back."""
    return ctypes.PyDLL(None, use_errno=True)


def _fork(_: Targets) -> None:
    _new_process(lambda: int(_library().fork()))


def _fork_by_number(_: Targets) -> None:
    _new_process(lambda: _by_number("fork"))


def _clone(_: Targets) -> None:
    _new_process(lambda: _by_number("clone", signal.SIGCHLD, 0, 0, 0, 0))


def _clone3(_: Targets) -> None:
    arguments = struct.pack("=QQQQQQQQ", 0, 0, 0, 0, signal.SIGCHLD, 0, 0, 0)
    _new_process(lambda: _by_number("clone3", arguments, len(arguments)))


def _by_number(name: str, *arguments: int | bytes) -> int:
    on = machine()
    number = getattr(CALLS[name], on) if on else None
    if number is None:
        raise NotImplementedError("not on this processor")
    words = [ctypes.c_ulong(value) if isinstance(value, int) else value for value in arguments]
    return int(_library().syscall(ctypes.c_long(number), *words))


def _replace(targets: Targets) -> None:
    _execute(targets.program)


def _from_readable(targets: Targets) -> None:
    """From a place that is open for reading, as that of the libraries is."""
    _execute(targets.model)


def _execute(path: str) -> None:
    """Execute what is no program: the kernel says so only if it would have executed one."""
    _but_no_program(lambda: os.execve(path, [path], {}))


def _from_memory(_: Targets) -> None:
    """The same for a file that is in memory alone, where no rule about paths holds."""
    opened = os.memfd_create("localai")
    try:
        os.write(opened, b"not a program\n")
        nothing = (ctypes.c_char_p * 1)(None)
        _but_no_program(lambda: call("execveat", opened, b"", nothing, nothing, _AT_EMPTY_PATH))
    finally:
        os.close(opened)


def _but_no_program(execute: Callable[[], object]) -> None:
    try:
        execute()
    except OSError as error:
        if error.errno != errno.ENOEXEC:
            raise


ATTACKS: Final = {
    "start a program": Attack("execute", _run),
    "start a program by posix_spawn": Attack("execute", _spawn),
    "become a program": Attack("execute", _replace),
    "become a program in a place to read": Attack("execute", _from_readable),
    "become a program in memory": Attack("execute", _from_memory),
    "fork": Attack("execute", _fork),
    "process by fork": Attack("execute", _fork_by_number, "x86-64"),
    "process by clone": Attack("execute", _clone),
    "process by clone3": Attack("execute", _clone3, "a system that allows it, as containers do not"),
}
