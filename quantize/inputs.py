"""Keeps an output from replacing what it is made from."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from localai.errors import UsageError
from quantize.protocol import Job


def require_no_input(output: Path, job: Job) -> None:
    """UsageError if `output` is a file that `job` reads, under whatever name it is found.

    All that lies in a checkpoint's folder counts, whether it is read or not, except for GGUF files: those are
    made from it.
    """
    try:
        found = output.lstat()
    except OSError:
        return
    for path in _read_by(job):
        with contextlib.suppress(OSError):
            if os.path.samestat(found, path.stat()):
                raise UsageError(f"{output} is a file of the model that is read", "Choose another output")


def _read_by(job: Job) -> Iterator[Path]:
    source = Path(job.source)
    if job.imatrix:
        yield Path(job.imatrix)
    if source.is_dir():
        with contextlib.suppress(OSError):
            yield from (entry for entry in source.iterdir() if entry.suffix.lower() != ".gguf")
        return
    yield source
    if part := re.fullmatch(r"(.*)-\d{5}-of-(\d{5})\.gguf", source.name):
        for number in range(1, int(part[2]) + 1):
            yield source.with_name(f"{part[1]}-{number:05}-of-{part[2]}.gguf")
