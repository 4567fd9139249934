"""How fast this machine reads its memory and computes: measured, and kept in the data folder.

To write a token, the processor reads all weights from memory: no model can be faster than that. The memory is
read by as many threads as the engine computes with, through NumPy, which lets them run side by side. XOR over
64-bit numbers was seen to run as fast as a loop in C over the widest registers; sums of floats do not.

Other programs only ever make it slower. So what counts is the best moment of a measurement, and the best of
the first few measurements.
"""

from __future__ import annotations

import datetime
import threading
import time
from bisect import bisect_right
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from localai import hardware, paths

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FILE: Final = "speed.json"
SECONDS: Final = 0.3
"""How long reading is measured."""
MOMENT_S: Final = 0.02
"""The best so long moment counts: long enough for thousands of pages, short enough to be undisturbed."""
TIMES: Final = 3
"""Measured so often, on different occasions, before it is believed."""
KEPT_DAYS: Final = 180
"""After that it is measured again: memory may have been added."""

_BUFFER, _LEAST_TOTAL = 64 << 20, 192 << 20
"""Bytes that each thread reads, and all together at least: more than the caches of most processors."""
_CHUNK = 4 << 20
"""Bytes between two looks at the clock."""
_MATRIX = 64
"""Rows of a matrix: as many as OpenBLAS multiplies with one thread."""
_AT_ONCE, _MATRIX_S = 8, 0.05


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured, and on what."""

    processor: str
    cores: int
    """Threads that read side by side."""
    bytes_per_s: float
    """Of memory, read by all cores together."""
    flops: float
    """32-bit floating-point operations per second of one core, in small matrices."""
    date: str
    """Of the first measurement, as ISO 8601, in UTC."""
    times: int = 1
    """How often it was measured."""


def known() -> Measured | None:
    """What was measured on this machine before; None if nothing holds any more."""
    with suppress(OSError, msgspec.MsgspecError, ValueError):
        found = msgspec.json.decode(_path().read_bytes(), type=Measured)
        age = _today() - datetime.date.fromisoformat(found.date)
        same = (found.processor, found.cores) == (hardware.processor(), hardware.physical_cores())
        if same and 0 <= age.days < KEPT_DAYS and found.bytes_per_s > 0 and found.flops > 0:
            return found
    return None


def measured(*, again: bool = False) -> Measured:
    """The best of what is known of this machine and what is measured now, which takes half a second.

    It is measured on the first `TIMES` occasions only; `again`: forget what was known and begin anew.
    """
    before = None if again else known()
    if before is not None and before.times >= TIMES:
        return before
    now = measure()
    return _keep(now if before is None else _better(before, now))


def measure(cores: int | None = None, seconds: float = SECONDS) -> Measured:
    """Read memory with `cores` threads (default: as many as the engine has) for `seconds`."""
    count = cores or hardware.physical_cores()
    return Measured(
        processor=hardware.processor(),
        cores=count,
        bytes_per_s=_read_rate(count, seconds),
        flops=_flops(),
        date=_today().isoformat(),
    )


def best_moment(ends: Sequence[float], each: int, moment: float = MOMENT_S) -> float:
    """The most bytes per second in any `moment`, if `each` bytes were read whenever one of `ends` came.

    `ends` are seconds, in order. Where all of it took less than a moment, the mean.
    """
    if not ends:
        return 0.0
    most = max(bisect_right(ends, end + moment) - index - 1 for index, end in enumerate(ends))
    span = ends[-1] - ends[0]
    return each * (most / moment if span > moment else (len(ends) - 1) / max(span, 1e-9))


def _better(before: Measured, now: Measured) -> Measured:
    return msgspec.structs.replace(
        before,
        bytes_per_s=max(before.bytes_per_s, now.bytes_per_s),
        flops=max(before.flops, now.flops),
        times=before.times + 1,
    )


def _read_rate(threads: int, seconds: float) -> float:
    """Bytes per second that `threads` read together at their best."""
    import numpy as np

    size = max(_BUFFER, _LEAST_TOTAL // threads)
    buffers = [np.ones((size // _CHUNK, _CHUNK // 8), np.uint64) for _ in range(threads)]
    ends: list[list[float]] = [[] for _ in buffers]
    until = time.perf_counter() + seconds
    workers = [
        threading.Thread(target=_read, args=(buffer, until, found))
        for buffer, found in zip(buffers, ends, strict=True)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return best_moment(sorted(end for found in ends for end in found), _CHUNK)


def _read(buffer: NDArray[np.uint64], until: float, ends: list[float]) -> None:
    """Read chunk after chunk, again and again; take down when each was read."""
    import numpy as np

    while True:
        for chunk in buffer:
            np.bitwise_xor.reduce(chunk)
            ends.append(time.perf_counter())
        if ends[-1] > until:
            return


def _flops() -> float:
    """Floating-point operations per second of one core."""
    import numpy as np

    matrix = np.ones((_MATRIX, _MATRIX), np.float32)
    result = np.empty_like(matrix)
    best, until = 0.0, time.perf_counter() + _MATRIX_S
    while not best or time.perf_counter() < until:
        began = time.perf_counter()
        for _ in range(_AT_ONCE):
            np.matmul(matrix, matrix, out=result)
        best = max(best, _AT_ONCE * 2 * _MATRIX**3 / max(time.perf_counter() - began, 1e-9))
    return best


def _keep(found: Measured) -> Measured:
    """Write it down; where nothing can be written, it is measured again next time."""
    with suppress(OSError):
        path = _path()
        paths.private_dir(path.parent)
        staged = path.with_name(f"{path.name}.{threading.get_native_id()}.partial")
        staged.write_bytes(msgspec.json.encode(found))
        staged.replace(path)
    return found


def _path() -> Path:
    return paths.data_dir() / FILE


def _today() -> datetime.date:
    return datetime.datetime.now(datetime.UTC).date()
