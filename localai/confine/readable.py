"""What a worker may read beside its model: Python, the libraries, and what tells about this machine."""

from __future__ import annotations

import importlib.util
import os
import sys
import sysconfig
from pathlib import Path
from typing import Final

PACKAGES: Final = ("localai", "models", "quantize", "llama_cpp")
"""What can lie elsewhere than other packages do, as where a .pth file says."""
SITES: Final = ("site-packages", "dist-packages")
"""Folders on Python's path that hold packages and nothing else, such as that of `pip install --user`."""
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
LIBRARIES: Final = (
    *("/usr/lib", "/usr/lib64", "/lib", "/lib64", "/usr/local/lib", "/usr/local/lib64", "/etc/ld.so.cache"),
    *("/nix/store", "/gnu/store"),
)
LIBRARY_PATH: Final = "LD_LIBRARY_PATH"
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
    "/usr/local/cuda",
    "/opt/cuda",
    "/opt/rocm",
)
"""Where drivers find their devices, Vulkan its drivers, and CUDA and ROCm their libraries."""


def runtime() -> list[str]:
    """Python's own folders and ours, and the system's libraries."""
    found = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    found += [
        str(Path(prefix, name)) for prefix in (sys.prefix, sys.base_prefix) for name in ("lib", "lib64")
    ]
    found += filter(_is_site, sys.path)
    found += [folder for package in PACKAGES for folder in _folders(package)]
    found += _libraries(os.environ.get(LIBRARY_PATH, ""))
    engine = os.environ.get(ENGINE, "")
    found += [engine] if engine and not _holds_home(engine) else _libraries(engine)
    return list(dict.fromkeys([*found, *LIBRARIES, *MACHINE]))


def _is_site(path: str) -> bool:
    """Whether a folder on Python's path is for packages: by its name, or because pip installs there."""
    folder = Path(path)
    if folder.name in SITES:
        return True
    return folder.is_absolute() and not _holds_home(path) and any(folder.glob("*.dist-info"))


def _holds_home(path: str) -> bool:
    """Whether all that the user keeps would be read with that folder."""
    home = Path(os.path.expanduser("~"))  # noqa: PTH111 - Path's own fails for users without a name
    return home.resolve().is_relative_to(Path(path).resolve())


def _folders(package: str) -> list[str]:
    """Where a package lies; nothing if it is not there."""
    if package in sys.modules:
        return list(getattr(sys.modules[package], "__path__", ()))
    spec = importlib.util.find_spec(package)
    return list(spec.submodule_search_locations or ()) if spec else []


def _libraries(folders: str) -> list[str]:
    """The libraries in `folders`, as LD_LIBRARY_PATH names them: they may hold more than that."""
    paths = [Path(folder) for folder in folders.split(os.pathsep) if folder]
    return [str(file) for path in paths if path.is_absolute() for file in path.glob("*.so*")]


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
