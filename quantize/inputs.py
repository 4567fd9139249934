"""The files that a job reads: what its worker may open, and what no output may replace."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from localai.errors import UsageError
from quantize import links
from quantize.protocol import Job

TEMPLATES: Final = "additional_chat_templates"
MOST_FILES: Final = 4096
"""Of a folder, so many files are read at most; a checkpoint has some hundreds."""


def files(job: Job) -> list[str]:
    """All files that the worker may have to read: of a folder those in it, and templates one below.

    Links of a folder that lead out of it give nothing away: what they name is refused, and cannot be read.
    """
    source, named = Path(job.source), Path(job.imatrix)
    templates = source.joinpath(TEMPLATES).glob("*") if source.is_dir() else ()
    paths = itertools.islice(itertools.chain(_read_by(job), templates), MOST_FILES)
    return [str(path) for path in paths if path.is_file() and (path == named or not _leads_out(source, path))]


def _leads_out(source: Path, path: Path) -> bool:
    return source.is_dir() and path.is_relative_to(source) and links.outside(source, path) is not None


def folders(job: Job) -> list[str]:
    """The folders that it may have to list: the source, or where it should be and is not."""
    source = Path(job.source)
    if source.exists():
        return [job.source] if source.is_dir() else []
    return [str(source.parent)]


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
