"""What this machine has: the facts that defaults are chosen from."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import psutil

CGROUP = Path("/sys/fs/cgroup")


def physical_cores() -> int:
    """Physical cores that this process may use, at least 1.

    A second hyper-thread on a core adds nothing to llama.cpp's matrix multiplications but one more thread
    that spins at each barrier.
    """
    usable = usable_cores()
    return max(1, min(psutil.cpu_count(logical=False) or usable, usable))


def usable_cores() -> int:
    """Cores that this process may use, hyper-threads counted, at least 1."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(usable, container_cores(CGROUP) or usable))


def container_cores(cgroup: Path) -> int | None:
    """Cores that a container may use at once (`cpu.max` of its control group), or None without a limit.

    A container sees all cores of its host; with a thread on each, most would wait for their share.
    """
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
        return max(1, int(quota) // int(period))
    except (OSError, ValueError, ZeroDivisionError):
        return None


def available_memory() -> int:
    """Bytes of memory that can be had without swapping."""
    available = int(psutil.virtual_memory().available)
    limit = container_memory(CGROUP)
    if limit is None:
        return available
    used = _number(CGROUP / "memory.current", 0) - _file_cache(CGROUP)
    return max(0, min(available, limit - max(0, used)))


def total_memory() -> int:
    """Bytes of memory in the machine, or of it what this container may use."""
    total = int(psutil.virtual_memory().total)
    return min(total, container_memory(CGROUP) or total)


def container_memory(cgroup: Path) -> int | None:
    """Bytes that a container may use (`memory.max` of its control group), or None without a limit."""
    return _number(cgroup / "memory.max", 0) or None


def _file_cache(cgroup: Path) -> int:
    """Bytes of files in memory, which count as used there; the system drops them when it needs room."""
    try:
        pairs = dict(line.split() for line in (cgroup / "memory.stat").read_text().splitlines())
        return int(pairs["active_file"]) + int(pairs["inactive_file"])
    except (OSError, ValueError, KeyError):
        return 0


def _number(path: Path, default: int) -> int:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # "max" stands for no limit
        return default


def processor() -> str:
    """The processor's name, such as "AMD EPYC 7B13", or its architecture where it tells none."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:  # noqa: PTH123
            for line in lines:
                if line.lower().startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
