"""Which models may be loaded where an organization says so: `localai.policy`, in the app, before each load.

What is on the list are digests of bytes, so the bytes are read: what a manifest says of them can be edited.
That takes as long as one reading of the file. Then the same file must be loaded: it is compared with what it
was before it was read, right before the load and once more after it, by what a system changes with every
write and every rename (stat(2): device, inode, size, time of the last write, time of the last change).
"""

from __future__ import annotations

import asyncio
import hashlib
import stat
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from localai import policy
from localai.errors import ModelFileError
from models.gguf import read_header
from models.parts import files_of

_STEP: Final = 1 << 20
_Traits = tuple[int, int, int, int, int]


class Seen(NamedTuple):
    """Files as they were when their bytes were found to be on the list; none where there is no list."""

    files: tuple[tuple[Path, _Traits], ...] = ()

    def require_unchanged(self) -> None:
        """ModelFileError if one is no longer the file that was read."""
        for path, traits in self.files:
            if _traits(path) != traits:
                raise _changed(path)


async def seen(models: Iterable[str | None]) -> Seen:
    """The files of all `models`, once their bytes are found to be on the organization's list.

    PolicyError for one that is not; ModelFileError for one that cannot be read or changes meanwhile.
    """
    if policy.current().allowed_models is None:
        return Seen()
    paths = [Path(model) for model in models if model is not None]
    given_up = threading.Event()
    try:
        return await asyncio.to_thread(_read, paths, given_up)
    finally:
        given_up.set()  # no thread goes on to read gigabytes that nobody waits for


def _read(models: Sequence[Path], given_up: threading.Event) -> Seen:
    found: list[tuple[Path, _Traits]] = []
    for model in models:
        found.append(_listed(model, given_up))
        # Those bytes are on the list: what they say of further parts may be believed.
        others = files_of(model)[1:] if read_header(model).split_count > 1 else []
        found += [_listed(part, given_up) for part in others]
    result = Seen(tuple(found))
    result.require_unchanged()
    return result


def _listed(path: Path, given_up: threading.Event) -> tuple[Path, _Traits]:
    """The file with its traits from before it was read. PolicyError unless it is on the list."""
    traits = _traits(path)
    digest = _sha256(path, given_up)
    wanted = policy.current()
    if not wanted.lists([digest]):
        raise wanted.error("models.allow", f"{path} (SHA-256 {digest}) cannot be run")
    return path, traits


def _sha256(path: Path, given_up: threading.Event) -> str:
    found = hashlib.sha256()
    try:
        with path.open("rb", buffering=0) as file:
            while (data := file.read(_STEP)) and not given_up.is_set():
                found.update(data)
    except OSError as error:
        raise _unreadable(path, error) from error
    return found.hexdigest()


def _traits(path: Path) -> _Traits:
    try:
        status = path.stat()
    except OSError as error:
        raise _unreadable(path, error) from error
    if not stat.S_ISREG(status.st_mode):  # to read a pipe may take for ever
        raise ModelFileError(f"{path} is not a file", "Give the model's file itself")
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _unreadable(path: Path, error: OSError) -> ModelFileError:
    return ModelFileError(
        f"{path} cannot be read: {error.strerror}", "See that it is there, and yours to read"
    )


def _changed(path: Path) -> ModelFileError:
    return ModelFileError(f"{path} was changed while it was checked and loaded", "Load it again")
