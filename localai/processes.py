"""Starting worker processes and understanding how they ended."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Collection
from contextlib import suppress
from typing import BinaryIO, Final

SECRETS: Final = ("LOCALAI_PASSPHRASE", "LOCALAI_PASSPHRASE_FILE")
"""Environment variables that open the conversations: for `localai.cli.unlock`, and for no other process."""
CONFINED: Final = frozenset(
    {
        *("PATH", "HOME", "LANG", "TZ", "TMPDIR", "SYSTEMROOT"),
        *("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "LLAMA_CPP_LIB_PATH"),
    }
)
CONFINED_PREFIXES: Final = (
    *("LC_", "PYTHON", "GGML_", "OMP_", "OPENBLAS_"),
    *("CUDA_", "NVIDIA_", "HIP_", "HSA_", "ROCR_", "VK_"),
)
"""What a confined worker gets of the environment: for Python, libraries and GPUs. No keys, no proxies."""


FIRST_TO_GO: Final = 800
"""oom_score_adj of workers."""


def worker_command(module: str) -> list[str]:
    """The command that runs `module` as a worker, whatever the current folder holds."""
    return [sys.executable, "-P", "-m", module]


def worker_environment() -> dict[str, str]:
    """The environment of a worker.

    Without GGML_NO_BACKTRACE, ggml starts a debugger found on PATH when it aborts. NumPy is not used for
    algebra: threads for it would only take memory. What opens the conversations is no worker's business, and
    still less that of the process that fetches models from the network.
    """
    ours = {"GGML_NO_BACKTRACE": "1", "PYTHONUNBUFFERED": "1", "OPENBLAS_NUM_THREADS": "1"}
    return {**environment(), **ours}


def confined_environment() -> dict[str, str]:
    """The environment of a worker that is confined: little of ours, and no cache on the disk for CUDA."""
    kept = {
        name: value
        for name, value in worker_environment().items()
        if name in CONFINED or name.startswith(CONFINED_PREFIXES)
    }
    return {**kept, "CUDA_CACHE_DISABLE": "1"}


def environment() -> dict[str, str]:
    """The environment for any other program: ours without `SECRETS`."""
    return {name: value for name, value in os.environ.items() if name not in SECRETS}


def be_first_to_go() -> None:
    """Where memory runs out, Linux ends this worker and not the app with the conversation in it."""
    if sys.platform == "linux":
        from pathlib import Path  # the app does not need it to start

        with suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text(str(FIRST_TO_GO))


def close_inherited(kept: Collection[int] = ()) -> None:
    """Close all descriptors but the three standard ones and `kept`: a worker has no business with others.

    On Windows none is inherited.
    """
    if os.name != "posix":
        return
    start = 3
    for descriptor in [*sorted(kept), os.sysconf("SC_OPEN_MAX")]:
        os.closerange(start, descriptor)
        start = descriptor + 1


def claim_stdio() -> tuple[BinaryIO, BinaryIO]:
    """Take standard input and output for frames, and return them as (reader, writer).

    Afterwards file descriptor 0 is empty and 1 goes to standard error, so that nothing that a library
    prints can get between the frames.
    """
    reader = os.fdopen(os.dup(0), "rb", buffering=64 * 1024)
    writer = os.fdopen(os.dup(1), "wb", buffering=0)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)
    return reader, writer


def enlarge_pipe(descriptor: int, size: int) -> None:
    """Let a pipe hold up to `size` bytes, where the system can (Linux) and allows it."""
    if sys.platform == "linux":
        import fcntl

        with suppress(OSError):
            fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, size)


def describe_exit(returncode: int | None, stderr: str = "") -> str:
    """How a worker ended, in words; `stderr` is the end of what it printed."""
    last = next((line.strip() for line in reversed(stderr.splitlines()) if line.strip()), "")
    if returncode is not None and returncode < 0:
        try:
            name = signal.Signals(-returncode).name
        except ValueError:
            name = "unknown"
        text = f"it was ended by signal {-returncode} ({name})"
        if name == "SIGKILL":
            text += ", as the system does when memory runs out"
        elif name == "SIGVTALRM":
            text += ", because the chat template in the model's file took too long"
        elif last:
            text += f": {last}"
        return text
    text = f"it ended with exit code {returncode}"
    return f"{text}: {last}" if last else text
