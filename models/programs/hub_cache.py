"""What the cache of the Hugging Face hub holds, which many programs fill: transformers, llama.cpp, hf.

    models--OWNER--NAME/refs/main               the newest commit
    models--OWNER--NAME/snapshots/COMMIT/PATH   links to blobs; the files themselves where there are no links
    models--OWNER--NAME/blobs/HASH              the sha256 of large files, a git hash of small ones
    blobs/HA/HASH                               in newer versions, what blobs are links to; not a sha256

A file that is not complete is no blob yet. Links out of the cache are nobody's: they are left out.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from models.programs import reading
from models.programs.checkpoints import checkpoint_in
from models.programs.found import Found, Surroundings

NAME: Final = "Hugging Face cache"

_PREFIX: Final = "models--"
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MAX_ENTRIES: Final = 100_000
"""Of a whole cache, which may hold hundreds of repositories with all their small files."""


def find(here: Surroundings) -> Iterator[Found]:
    """The models in all folders that the environment may mean, and in the usual one."""
    home = here.named("HF_HOME")
    caches = [
        here.named("HF_HUB_CACHE"),
        here.named("HUGGINGFACE_HUB_CACHE"),
        home / "hub" if home else None,
        (here.named("XDG_CACHE_HOME") or here.home / ".cache") / "huggingface/hub",
        here.home / ".cache/huggingface/hub",
    ]
    for cache in dict.fromkeys(caches):
        if cache is not None:
            yield from models_in(cache, NAME)


def models_in(cache: Path, program: str) -> Iterator[Found]:
    """The GGUF files in the cache at `cache`, and of each repository one checkpoint, the newest."""
    budget = reading.Budget(_MAX_ENTRIES)
    for repository in reading.folders(cache, budget):
        if not repository.name.startswith(_PREFIX):
            continue
        called = repository.name.removeprefix(_PREFIX).replace("--", "/")
        checkpoint: Found | None = None
        for snapshot in _snapshots(repository, budget):
            files = [path for path in reading.files_below(snapshot, budget) if reading.inside(path, cache)]
            yield from _models(snapshot, files, called, program)
            names = {path.name for path in files if path.parent == snapshot}
            checkpoint = checkpoint or checkpoint_in(snapshot, names, program, called)
        if checkpoint is not None:
            yield checkpoint


def _snapshots(repository: Path, budget: reading.Budget) -> list[Path]:
    newest = (reading.content(repository / "refs/main", 100) or b"").decode("ascii", "replace").strip()
    found = reading.folders(repository / "snapshots", budget)
    return sorted(found, key=lambda path: (path.name != newest, path.name))


def _models(snapshot: Path, files: list[Path], called: str, program: str) -> Iterator[Found]:
    return reading.models_among(
        files,
        program,
        lambda path: f"{called}/{path.relative_to(snapshot).as_posix()}",
        lambda path: _digest(path, snapshot.parent.parent / "blobs"),
    )


def _digest(path: Path, blobs: Path) -> str:
    """The sha256 that the name of the blob is which `path` is a link to; "" without such a link."""
    with suppress(OSError, ValueError):
        if path.is_symlink():
            target = Path(os.path.normpath(path.parent / path.readlink()))
            if target.parent == Path(os.path.normpath(blobs)) and _SHA256.fullmatch(target.name):
                return target.name
    return ""
