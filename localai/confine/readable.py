"""What a worker may read beside its model: Python, the libraries, and what tells about this machine."""

from __future__ import annotations

import os
import sys
import sysconfig
from pathlib import Path
from typing import Final

PACKAGES: Final = ("localai", "models", "quantize")
MACHINE: Final = (
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/self/fd",
    "/proc/self/maps",
    "/proc/self/stat",
    "/proc/self/statm",
    "/proc/self/status",
    "/sys/devices/system/cpu",
    "/sys/devices/system/node",
    "/sys/fs/cgroup/cpu.max",
    "/sys/fs/cgroup/memory.current",
    "/sys/fs/cgroup/memory.max",
    "/sys/fs/cgroup/memory.stat",
    "/dev/urandom",
)
"""How many cores there are, how much memory, and how much of both this process uses."""
LIBRARIES: Final = ("/usr/lib", "/usr/lib64", "/lib", "/lib64", "/usr/local/lib", "/etc/ld.so.cache")
ENGINE: Final = "LLAMA_CPP_LIB_PATH"
"""With which llama-cpp-python is told to load llama.cpp from another folder."""
WRITABLE: Final = ("/dev/null",)
"""Opened for writing by llama_cpp when it is imported."""
GPU_NODES: Final = ("nvidia*", "dri/*", "kfd", "nvidia-caps/*")
"""Below /dev: CUDA, Vulkan and ROCm."""
GPU_READS: Final = (
    "/sys/devices",
    "/sys/class",
    "/sys/bus",
    "/proc/driver/nvidia",
    "/etc/vulkan",
    "/usr/share/vulkan",
)
"""Where drivers find their devices, and Vulkan its drivers."""


def runtime() -> list[str]:
    """Python's own folders and ours, and the system's libraries."""
    found = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    found += [
        str(Path(prefix, name)) for prefix in (sys.prefix, sys.base_prefix) for name in ("lib", "lib64")
    ]
    for package in PACKAGES:
        module = sys.modules.get(package)
        found += list(getattr(module, "__path__", ()))
    if libraries := os.environ.get(ENGINE):
        found.append(libraries)
    return list(dict.fromkeys([*found, *LIBRARIES, *MACHINE]))


def gpu_nodes() -> list[str]:
    """The device nodes of GPUs that there are."""
    return sorted(
        str(path) for pattern in GPU_NODES for path in Path("/dev").glob(pattern) if not path.is_dir()
    )


def opened(path: str) -> tuple[str, int | None]:
    """How a confined process calls the file at `path`, and the descriptor that this takes.

    A file without a name is reached through the process that has it open, where a confined one may not look:
    it is opened now, and reached through the descriptor.
    """
    if not path.startswith("/proc/"):
        return path, None
    descriptor = os.open(path, os.O_RDONLY)
    return f"/proc/self/fd/{descriptor}", descriptor
