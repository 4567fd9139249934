"""Runs a command as under a kernel that lacks calls: python -m tests.localai.without_calls NAMES WORDS...

They are answered with ENOSYS from now on, for the command and all that it starts, as by a kernel that was
built without them.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys

from localai.confine import calls, privileges
from localai.confine.seccomp import ALLOW, UNKNOWN, Instruction, _Program
from localai.confine.syscalls import CALLS, Numbers, machine

NUMBERS = {**CALLS, "unshare": Numbers(272, 97)}


def main(names: list[str], command: list[str]) -> None:
    """Become `command`."""
    on = machine()
    assert on is not None
    steps = [Instruction(0x20, 0, 0, 0)]
    for name in names:
        steps += [Instruction(0x15, 0, 1, getattr(NUMBERS[name], on)), Instruction(0x06, 0, 0, UNKNOWN)]
    steps.append(Instruction(0x06, 0, 0, ALLOW))
    code = b"".join(struct.pack("=HBBI", *step) for step in steps)
    buffer = ctypes.create_string_buffer(code, len(code))
    program = _Program(len(steps), ctypes.cast(buffer, ctypes.c_void_p))
    privileges.no_new_privileges()
    calls.system_call(getattr(NUMBERS["seccomp"], on), 1, 0, ctypes.byref(program))
    os.execv(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1].split(","), sys.argv[2:])
