"""What a worker with a loaded model really takes of the memory (Linux).

Its resident size says too much: of a mapped file, all pages are resident after loading, also those that are
not read again because llama.cpp has copied the weights in another order, and those of the input embedding, of
which a few rows are read. So the system is asked to take the model's file pages back, as it does when memory
is short; some tokens are generated; and the pages that came back are those that are needed. To them comes
what the process has for itself (anonymous memory: caches, buffers, copied weights), all of it, and the
libraries that it has mapped.
"""

from __future__ import annotations

import ctypes
import os
import random
import re
from contextlib import aclosing
from pathlib import Path
from typing import NamedTuple

import psutil

from localai.engine.client import Engine
from localai.engine.protocol import Done
from localai.engine.settings import Limits, LoadOptions, Sampling

FILL = 1_100
"""Tokens that are read: more than two batches, so that all buffers were used."""
GENERATED = 16
_SPARE = 64
"""Tokens of the context that stay free."""
_PROCESS_MADVISE, _PAGEOUT = 440, 21
_AT_ONCE = 1 << 30
"""Bytes: Linux handles less than 2 GiB in one call, and says nothing of the rest."""
_MAPPING = re.compile(r"[0-9a-f]+-[0-9a-f]+ \S+ [0-9a-f]+ \S+ (\d+) *(.*)")


class Real(NamedTuple):
    """Bytes, and tokens per second."""

    anonymous: int
    model: int
    """Pages of the model's file that were read for the last tokens."""
    libraries: int
    resident: int
    """What a list of processes shows before the system takes anything back."""
    tokens_per_s: float

    @property
    def needed(self) -> int:
        """What is compared with the estimate."""
        return self.anonymous + self.model + self.libraries


class _Region(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


async def measure(path: Path, options: LoadOptions, fill: int = FILL) -> Real:
    """Load the model at `path` in a worker of its own, read up to `fill` tokens, generate a few, and look.

    PermissionError where this user may not ask the system to take pages back. Raises from the error tree.
    """
    engine, others = Engine(), set(psutil.Process().children())
    try:
        loaded = await engine.load(path, options)
        (worker,) = set(psutil.Process().children()) - others
        source, known = random.Random(1), min(loaded.vocabulary, 100_000)
        count = max(1, min(fill, loaded.context - _SPARE))
        tokens = [source.randrange(known) for _ in range(count)]
        await _generate(engine, tokens)
        resident = worker.memory_info().rss
        page_out(worker.pid, path)
        rate = await _generate(engine, [*tokens, 1])
        return Real(*_sizes(worker.pid, path), resident, rate)
    finally:
        await engine.close()


async def _generate(engine: Engine, tokens: list[int]) -> float:
    """Tokens per second."""
    greedy, limits = Sampling(temperature=0.0), Limits(GENERATED)
    async with aclosing(engine.continue_tokens(tokens, greedy, limits, ignore_end=True)) as events:
        async for event in events:
            if isinstance(event, Done):
                return event.timings.tokens_per_s
    raise AssertionError("a reply ends")


def page_out(pid: int, path: Path) -> None:
    """Have the system take back the pages of the file at `path` that process `pid` has mapped."""
    libc = ctypes.CDLL(None, use_errno=True)
    handle = os.pidfd_open(pid)
    try:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            if not line.endswith(f" {path}"):
                continue
            start, end = (int(part, 16) for part in line.partition(" ")[0].split("-"))
            for base in range(start, end, _AT_ONCE):
                region = _Region(base, min(_AT_ONCE, end - base))
                if libc.syscall(_PROCESS_MADVISE, handle, ctypes.byref(region), 1, _PAGEOUT, 0) < 0:
                    raise PermissionError(ctypes.get_errno(), "this system takes no pages back on request")
    finally:
        os.close(handle)


def _sizes(pid: int, path: Path) -> tuple[int, int, int]:
    """(anonymous, of the file at `path`, of other files) in bytes."""
    anonymous = model = libraries = 0
    of_file, name = False, ""
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if mapping := _MAPPING.fullmatch(line):
            of_file, name = mapping[1] != "0", mapping[2]
            continue
        key, _, value = line.partition(":")
        if key not in ("Rss", "Anonymous"):
            continue
        size = int(value.split()[0]) * 1024
        if key == "Anonymous":
            anonymous += size
            libraries -= size if of_file and name != str(path) else 0
        elif name == str(path):
            model += size
        elif of_file:
            libraries += size
    return anonymous, model, libraries
