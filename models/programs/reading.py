"""Looking into folders and files of other programs, which may hold anything: with bounds, and without errors.

What cannot be read is not there. Folders that are links are not entered; a file that is a link counts if it
leads to a regular file.
"""

from __future__ import annotations

import itertools
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from models.header import printable
from models.manifest import Part, digest_of_parts
from models.parts import MOST, number_of, stem_of
from models.programs.found import Found

MAX_ENTRIES: Final = 20_000
MAX_DEPTH: Final = 8
MAX_BYTES: Final = 4 << 20
"""Of a settings file or a manifest."""

_UNFINISHED: Final = ("incomplete-", "downloading_", ".")
"""So begin names of GGUF files while GPT4All or LM Studio fetch them. Other programs change the end."""
_NO_MODELS: Final = ("mmproj", "imatrix")
"""What llama.cpp, too, takes such GGUF files by: they go with a model."""

T = TypeVar("T")


class Budget:
    """How many entries of folders may still be looked at."""

    def __init__(self, entries: int = MAX_ENTRIES) -> None:
        self.entries = entries


def entries(folder: Path, budget: Budget) -> list[os.DirEntry[str]]:
    """What is in `folder`, by name; nothing if it cannot be read."""
    try:
        with os.scandir(folder) as found:
            listed = list(itertools.islice(found, max(0, budget.entries)))
    except (OSError, ValueError):
        return []
    budget.entries -= len(listed)
    return sorted(listed, key=lambda entry: entry.name)


def folders(folder: Path, budget: Budget) -> list[Path]:
    """The folders in `folder`, links left out, by name."""
    return [Path(entry.path) for entry in entries(folder, budget) if _is_folder(entry)]


def files_below(folder: Path, budget: Budget, depth: int = MAX_DEPTH) -> Iterator[Path]:
    """The regular files in `folder` and below it, and links to such; those of one folder stay together."""
    listed = entries(folder, budget)
    yield from (path for entry in listed if is_regular(path := Path(entry.path)))
    if depth > 0:
        for entry in listed:
            if _is_folder(entry):
                yield from files_below(Path(entry.path), budget, depth - 1)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    with suppress(OSError):
        return entry.is_dir(follow_symlinks=False)
    return False


def is_regular(path: Path, *, follow: bool = True) -> bool:
    """Whether there is a regular file at `path`, or a link to one if links are to be followed."""
    return size_of(path, follow=follow) is not None


def size_of(path: Path, *, follow: bool = True) -> int | None:
    """Bytes of the regular file at `path`; None if there is none."""
    with suppress(OSError, ValueError):
        status = path.stat(follow_symlinks=follow)
        return status.st_size if stat.S_ISREG(status.st_mode) else None
    return None


def content(path: Path, limit: int = MAX_BYTES) -> bytes | None:
    """The content of a regular file of at most `limit` bytes; None for anything else."""
    flags = ("O_NONBLOCK", "O_CLOEXEC", "O_BINARY")  # not to wait for what writes to a pipe
    with suppress(OSError, ValueError):
        if not is_regular(path):
            return None
        descriptor = os.open(path, os.O_RDONLY | sum(getattr(os, flag, 0) for flag in flags))
        with os.fdopen(descriptor, "rb") as file:
            if stat.S_ISREG(os.fstat(descriptor).st_mode) and len(data := file.read(limit + 1)) <= limit:
                return data
    return None


def json_of(path: Path, kind: type[T], limit: int = MAX_BYTES) -> T | None:
    """The JSON in a file as a `kind`; None if it is not that, or cannot be read."""
    data = content(path, limit)
    with suppress(msgspec.MsgspecError, ValueError, RecursionError):
        return msgspec.json.decode(data, type=kind) if data is not None else None
    return None


def inside(path: Path, folder: Path) -> bool:
    """Whether `path`, all links followed, is below `folder`."""
    with suppress(OSError, ValueError, RuntimeError):
        return path.resolve(strict=True).is_relative_to(folder.resolve(strict=True))
    return False


def is_model_name(name: str) -> bool:
    """Whether a file of that name can be a model that is complete."""
    lower = name.lower()
    return (
        lower.endswith(".gguf")
        and not lower.startswith(_UNFINISHED)
        and not any(word in lower for word in _NO_MODELS)
    )


def models_among(
    paths: Iterable[Path],
    program: str,
    called: Callable[[Path], str],
    digest: Callable[[Path], str] = lambda _: "",
) -> Iterator[Found]:
    """The models in GGUF files among `paths`, the parts of one together.

    `called` tells what the program calls the model with that first file, `digest` a file's sha256 or "".
    """
    groups: dict[tuple[Path, int], list[Path]] = {}
    for path in paths:
        if is_model_name(path.name):
            number = number_of(path.name)
            count = number[1] if number and 1 <= number[0] <= number[1] <= MOST else 0
            key = path.with_name(stem_of(path.name)) if count else path
            groups.setdefault((key, count), []).append(path)
    for (_, count), group in groups.items():
        yield model_of(sorted(group), count, program, called(min(group)), digest)


def model_of(
    paths: list[Path], count: int, program: str, called: str, digest: Callable[[Path], str] = lambda _: ""
) -> Found:
    """The model in those files, which are `count` if it is one in parts, and otherwise one."""
    sizes = [size_of(path) or 0 for path in paths]
    missing = max(1, count) - len(paths)
    return Found(
        program=program,
        called=printable(called),
        paths=tuple(paths),
        size=sum(sizes),
        sha256="" if missing else _digest([digest(path) for path in paths], sizes),
        problem=f"of its {count} files, {len(paths)} are there" if missing else "",
    )


def _digest(digests: list[str], sizes: list[int]) -> str:
    """That of the only file, or of all parts as the store has it; "" if one is not known."""
    if len(digests) == 1 or not all(digests):
        return digests[0] if len(digests) == 1 else ""
    return digest_of_parts([Part(sha256, size) for sha256, size in zip(digests, sizes, strict=True)])
