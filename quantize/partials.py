"""The temporary files beside an output, and getting rid of them.

They are called `.NAME.partial-PID` (the output while it is written) and `.NAME.partial-PID.source` (float
weights on their way to llama.cpp's quantizer), where PID is the process that writes. One whose process is
gone is stale: a kill -9 left it.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

import psutil


def partial_path(output: Path) -> Path:
    """Where this process writes what will be `output`."""
    return output.with_name(f".{output.name}.partial-{os.getpid()}")


def source_path(output: Path) -> Path:
    """Where this process keeps the float weights that `output` is made from."""
    return output.with_name(f".{output.name}.partial-{os.getpid()}.source")


def remove_of(output: Path, pid: int) -> None:
    """Remove the temporary files that the process `pid` left beside `output`."""
    for path, owner in _found(output):
        if owner == pid:
            _remove(path)


def remove_stale(output: Path) -> None:
    """Remove the temporary files beside `output` whose process is gone."""
    for path, owner in _found(output):
        if not _is_running(owner, path):
            _remove(path)


def _found(output: Path) -> Iterator[tuple[Path, int]]:
    pattern = re.compile(re.escape(f".{output.name}.partial-") + r"(\d{1,10})(\.source)?")
    try:
        entries = list(output.parent.iterdir())
    except OSError:
        return
    for entry in entries:
        if match := pattern.fullmatch(entry.name):
            yield entry, int(match[1])


def _is_running(pid: int, path: Path) -> bool:
    """Whether the process that made `path` still runs. A process that began later only has its number."""
    try:
        return psutil.Process(pid).create_time() <= path.stat().st_mtime + 1
    except psutil.AccessDenied:
        return True
    except (psutil.NoSuchProcess, OSError):
        return False


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()
