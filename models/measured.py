"""The figures of model files, kept beside the models: a small file for each, called by its digest.

    figures/<sha256>.json      in the store, and in those of others that are shared

A figure belongs to the bytes of a file, whatever they are called and wherever they are: also before that file
is made, since quantizing makes the same bytes each time, and after it was removed, since it may come again.
So nothing here is deleted with a model. There are numbers and no texts. What cannot be read, or is not what
it should be, counts as not measured.
"""

from __future__ import annotations

import datetime
import os
import re
import stat
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Final

import msgspec

from localai import paths
from localai.errors import UsageError
from models import files, locks
from models.figures import Answers, Figures, Loss, Speed, comparable
from models.machine import machine_id

FOLDER: Final = "figures"
VERSION: Final = 1
_LARGEST: Final = 64 * 1024
"""Bytes of a file; ours have about 1 KB."""
_MACHINES: Final = 16
"""Whose speeds are kept, of one file: a store may be on a disk that is carried around."""
_MOST: Final = 5_000
"""Files that are looked at where all are asked for."""
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")


class _Kept(Figures, frozen=True, kw_only=True, omit_defaults=True):
    """What one file has. Fields that a later version adds are ignored."""

    version: Annotated[int, msgspec.Meta(ge=VERSION, le=VERSION)]
    speeds: Annotated[tuple[Speed, ...], msgspec.Meta(max_length=_MACHINES)] = ()
    """One for each machine, the latest first; `speed` is not stored."""


class Found(msgspec.Struct, frozen=True):
    """What is known of some files."""

    figures: dict[str, Figures]
    """By the digest of the file."""
    damaged: tuple[Path, ...] = ()
    """The files of figures that were left out, because they cannot be read."""


def keep(figures: Figures, root: Path | None = None) -> bool:
    """Keep `figures` in the store at `root` (default: one's own); parts that are None stay what they were.

    A loss takes the place of the one before, unless that is of the same reference and text and of more
    tokens; right answers likewise. False if it cannot be written, or has a number that no figure can be: it
    is then measured again one day.
    """
    if not _DIGEST.fullmatch(figures.sha256):
        return False
    with suppress(OSError, UsageError, msgspec.MsgspecError):
        root = root or paths.models_dir()
        folder = paths.private_dir(root / FOLDER)
        with locks.held(root / "lock"):
            path = folder / f"{figures.sha256}.json"
            data = msgspec.json.encode(_merged(figures, _known(path, [])))
            msgspec.json.decode(data, type=_Kept)  # or nobody could read what is written
            _write(path, msgspec.json.format(data, indent=2) + b"\n")
        return True
    return False


def read(sha256: str, roots: Sequence[Path] | None = None) -> Figures | None:
    """What is known of the file with that digest, in the stores at `roots` (default: one's own, then shared).

    What is one's own comes before what others have measured. `speed` is that of this machine.
    """
    return all_of([sha256], roots).figures.get(sha256)


def all_of(digests: Iterable[str] | None = None, roots: Sequence[Path] | None = None) -> Found:
    """The same of several files; None: of all of which there are figures."""
    roots = [paths.models_dir(), *paths.shared_models_dirs()] if roots is None else roots
    wanted = _everything(roots) if digests is None else filter(_DIGEST.fullmatch, dict.fromkeys(digests))
    machine, damaged, found = machine_id(), list[Path](), dict[str, Figures]()
    for sha256 in wanted:
        places = (root / FOLDER / f"{sha256}.json" for root in roots)
        kept = [one for one in (_known(path, damaged) for path in places) if one is not None]
        if kept:
            found[sha256] = _joined(kept, machine)
    return Found(found, tuple(damaged))


def _everything(roots: Sequence[Path]) -> list[str]:
    names: dict[str, None] = {}
    for root in roots:
        with suppress(OSError), os.scandir(root / FOLDER) as entries:
            for _, entry in zip(range(_MOST), entries, strict=False):
                sha256 = entry.name.removesuffix(".json")
                if _DIGEST.fullmatch(sha256):
                    names[sha256] = None
    return sorted(names)


def _known(path: Path, damaged: list[Path]) -> _Kept | None:
    """What the file at `path` has; None, and it is among the `damaged` ones if there is something else."""
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            raise ValueError("it is a link, or no file")
        with path.open("rb") as file:
            data = file.read(_LARGEST + 1)
        if len(data) > _LARGEST:
            raise ValueError("it is too large")
        kept = msgspec.json.decode(data, type=_Kept)
        if kept.sha256 != path.stem:
            raise ValueError("it is about another file")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, RecursionError, msgspec.MsgspecError):
        damaged.append(path)
        return None
    return kept


def _joined(kept: Sequence[_Kept], machine: str) -> Figures:
    """One out of several, the first of which wins, for `machine`."""
    speeds = (speed for one in kept for speed in one.speeds if speed.machine == machine)
    return Figures(
        sha256=kept[0].sha256,
        file_type=kept[0].file_type,
        size=kept[0].size,
        loss=next((one.loss for one in kept if one.loss), None),
        speed=next(speeds, None),
        answers=next((one.answers for one in kept if one.answers), None),
        imatrix=kept[0].imatrix,
        measured=kept[0].measured,
    )


def _merged(new: Figures, before: _Kept | None) -> _Kept:
    speeds = before.speeds if before else ()
    if new.speed is not None:
        others = [one for one in speeds if one.machine != new.speed.machine]
        speeds = (new.speed, *others)[:_MACHINES]
    return _Kept(
        version=VERSION,
        sha256=new.sha256,
        file_type=new.file_type,
        size=new.size,
        loss=_better(new.loss, before.loss if before else None),
        answers=_fuller(new.answers, before.answers if before else None),
        speeds=speeds,
        imatrix=new.imatrix or (before is not None and before.imatrix),
        measured=new.measured or datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )


def _better(new: Loss | None, before: Loss | None) -> Loss | None:
    if new is None or before is None:
        return new or before
    return before if comparable(new, before) and before.tokens > new.tokens else new


def _fuller(new: Answers | None, before: Answers | None) -> Answers | None:
    if new is None or before is None:
        return new or before
    return before if new.set == before.set and before.asked > new.asked else new


def _write(path: Path, data: bytes) -> None:
    """Whole or not at all; the caller holds the lock."""
    staged = path.with_name(f".{path.stem}.partial")
    staged.unlink(missing_ok=True)  # of a process that was killed
    try:
        with os.fdopen(os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        staged.replace(path)
    finally:
        with suppress(OSError):
            staged.unlink(missing_ok=True)
    files.sync_folder(path.parent)
