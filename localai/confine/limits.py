"""Limits on what a worker may take: memory, files, a dump of its memory.

Source: setrlimit(2).
"""

from __future__ import annotations

import resource
import signal
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Self

from localai import hardware
from localai.confine.report import Profile

ROOM = 8 << 30
"""Bytes of address space beyond memory and model: libraries, stacks, heaps that are reserved and not used."""


class Limits(NamedTuple):
    """What a worker may take, in bytes."""

    data: int
    """Memory that it can write to, and owns alone."""
    address_space: int | None
    files: int | None
    """The size that a file may grow to."""

    @classmethod
    def of(cls, profile: Profile, files: Iterable[str]) -> Self:
        """For a worker that maps `files`.

        It owns what the machine has, swap included. Address space is that, and the files; drivers of GPUs
        reserve terabytes of it. But for quantize, no file receives a byte.
        """
        memory = hardware.total_memory() + _swap()
        space = None if profile == "gpu" else memory + sum(map(_size, files)) + ROOM
        return cls(memory + ROOM // 4, space, None if profile == "quantize" else 0)

    def set(self) -> str:
        """Limit this process; what is left out, in a few words.

        There is no core dump, for it would hold the conversation.
        """
        _lower(resource.RLIMIT_CORE, 0)
        _lower(resource.RLIMIT_DATA, self.data)
        if self.files is not None:
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
