"""Digests of files and of folders of them, and who else may change them."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from models.files import sha256_of

_CACHES: Final = ("__pycache__",)


def of_tree(root: Path) -> tuple[str, int]:
    """(SHA-256, number of files) of all files below `root` but compiled Python. OSError.

    It is that of one line for each file, sorted by path: its own digest, two spaces, its path from `root`
    with forward slashes, a line break. In the folder itself:
    find * -type f ! -path "*__pycache__*" | LC_ALL=C sort | xargs sha256sum | sha256sum
    """
    lines = sorted((path.relative_to(root).as_posix(), sha256_of(path)) for path in files_below(root))
    text = "".join(f"{digest}  {name}\n" for name, digest in lines)
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest(), len(lines)


def files_below(root: Path) -> Iterator[Path]:
    """All regular files below `root` but compiled Python; links are not followed."""
    for folder, names, files in os.walk(root):
        names[:] = [name for name in names if name not in _CACHES]
        for name in files:
            path = Path(folder, name)
            if not path.is_symlink():
                yield path


def writable_by_others(paths: Iterable[Path]) -> list[Path]:
    """Those of `paths` that somebody beside their owner and root may write to, by their rights or owner."""
    return [path for path in paths if _is_writable_by_others(path)]


def _is_writable_by_others(path: Path) -> bool:
    if not hasattr(os, "geteuid"):
        return False  # Windows tells rights otherwise
    try:
        entry = path.stat()
    except OSError:
        return False
    sticky = stat.S_ISDIR(entry.st_mode) and bool(entry.st_mode & stat.S_ISVTX)
    own = entry.st_uid in (0, os.geteuid())
    world = bool(entry.st_mode & stat.S_IWOTH) and not sticky
    group = bool(entry.st_mode & stat.S_IWGRP) and entry.st_gid not in (0, entry.st_uid) and not sticky
    return world or group or not own
