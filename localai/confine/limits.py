"""Limits on what a worker may take: memory, files, a dump of its memory.

Source: setrlimit(2).
"""

from __future__ import annotations

import resource
import signal
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple, Self

from localai import hardware
from localai.confine.report import Profile

ROOM: Final = 8 << 30
"""Bytes of address space beyond memory and model: libraries, stacks, heaps that are reserved and not used."""

LARGEST_GROWTH: Final = 32
"""F32 takes so many times the bytes of types with one bit."""


class Limits(NamedTuple):
    """What a worker may take, in bytes."""

    data: int
    """Memory that it can write to, and owns alone."""
    address_space: int | None
    files: int
    """The size that a file may grow to."""

    @classmethod
    def of(cls, profile: Profile, files: Iterable[str]) -> Self:
        """For a worker that maps `files`.

        It owns what the machine has, swap included. Address space is that, and the files; drivers of GPUs
        reserve terabytes of it. No file receives a byte, but for quantize: there it grows to what the largest
        type makes of the smallest, until the size is known (`limit_files`).
        """
        memory, size = hardware.total_memory() + _swap(), sum(map(_size, files))
        space = None if profile == "gpu" else memory + size + ROOM
        return cls(memory + ROOM // 4, space, LARGEST_GROWTH * size + ROOM if profile == "quantize" else 0)

    def set(self) -> str:
        """Limit this process; what is left out, in a few words.

        There is no core dump, for it would hold the conversation.
        """
        _lower(resource.RLIMIT_CORE, 0)
        _lower(resource.RLIMIT_DATA, self.data)
        limit_files(self.files)
        if self.address_space is None:
            return "not of address space, which GPUs need"
        _lower(resource.RLIMIT_AS, self.address_space)
        return ""


def limit_files(size: int) -> None:
    """No file that this process writes to grows beyond `size` bytes; who tries gets an OSError (EFBIG)."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    _lower(resource.RLIMIT_FSIZE, size)


def _lower(kind: int, limit: int) -> None:
    """Set soft and hard limit, never above what they are."""
    hard = resource.getrlimit(kind)[1]
    new = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    resource.setrlimit(kind, (new, new))


def _swap() -> int:
    """Bytes of swap, used or not."""
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        return int(next(line.split()[1] for line in lines if line.startswith("SwapTotal:"))) * 1024
    return 0


def _size(path: str) -> int:
    try:
        found = Path(path).stat()
    except OSError:
        return 0
    return found.st_size
