"""System calls that Python has no function for, by number. Linux alone."""

from __future__ import annotations

import ctypes
import os
from typing import Any


def system_call(number: int, *arguments: Any) -> int:
    """What the kernel answers to call `number`; OSError with its errno if it refuses.

    Integers go as 64-bit registers; ctypes objects (`byref`, buffers, None) as pointers.
    """
    registers = [
        ctypes.c_ulong(value & (2**64 - 1)) if isinstance(value, int) else value for value in arguments
    ]
    libc = _libc()
    result = int(libc.syscall(ctypes.c_long(number), *registers))
    if result < 0:
        raise failed()
    return result


def prctl(option: int, value: int, third: int = 0, fourth: int = 0, fifth: int = 0) -> int:
    """prctl(2); OSError if the kernel refuses."""
    words = [ctypes.c_ulong(word) for word in (value, third, fourth, fifth)]
    result = int(_libc().prctl(ctypes.c_int(option), *words))
    if result < 0:
        raise failed()
    return result


def failed() -> OSError:
    """The error of the last call of this thread."""
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))


def _libc() -> Any:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    return libc
