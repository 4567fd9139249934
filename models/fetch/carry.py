"""Carries out a plan: each file in order, what is there already kept, and everything within one folder."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path, PurePosixPath

from localai.errors import FetchError, IntegrityError
from localai.paths import private_dir
from models import files
from models.fetch import transfer as transferring
from models.fetch.plan import Item, Plan
from models.fetch.protocol import FetchedFile
from models.header import printable
from models.progress import Progress


def transfer(
    plan: Plan, folder: Path, advance: Progress, on_header: Callable[[Path], None]
) -> tuple[FetchedFile, ...]:
    """Fetch all of `plan` into `folder`. FetchError, IntegrityError, NoSpace or StoreError.

    `on_header` gets the file that has the beginning of a GGUF file; if it raises, what came is kept.
    """
    if not folder.is_dir():
        raise FetchError(f"{folder} is not a folder", "Make it first")
    with files.storage_errors(folder):
        if plan.present and (made := plan.present(folder, advance)):
            return made
        _prepare(plan, folder)
        fetched: list[FetchedFile] = []
        for item in plan.items:
            show = _within(plan, sum(file.size for file in fetched), advance)
            begins = plan.header_first and not fetched
            fetched.append(_one(item, folder / item.name, show, on_header if begins else None))
        return plan.finish(folder, fetched, advance) if plan.finish else tuple(fetched)


def _prepare(plan: Plan, folder: Path) -> None:
    """Make the folders that the items lie in. Links in their place, and weights of others in them, go."""
    below = {PurePosixPath(item.name).parent for item in plan.items} - {PurePosixPath()}
    names = {item.name for item in plan.items}
    for part in below:
        place = folder / part
        if place.is_symlink():
            place.unlink()
        private_dir(place)
        for path in place.glob("*.safetensors"):
            if path.relative_to(folder).as_posix() not in names:
                files.discard(path)


def _within(plan: Plan, before: int, on_progress: Progress) -> Progress:
    """Progress of one file as progress of all, of which `before` bytes were there before it."""

    def advance(step: str, done: int, total: int) -> None:
        whole = plan.resolved.total or (total if len(plan.items) == 1 else 0)
        on_progress(step, before + done, whole)

    return advance


def _one(
    item: Item, target: Path, on_progress: Progress, on_header: Callable[[Path], None] | None
) -> FetchedFile:
    sha256 = _kept(item, target, on_progress)
    if sha256 is None and item.wanted is not None:
        received = transferring.download(
            item.wanted, target, on_progress=partial(on_progress, "Downloading"), on_header=on_header
        )
        return FetchedFile(str(target), received.size, received.sha256, item.listed.path)
    if sha256 is None:
        sha256 = _copied(item, target, on_progress)
    if on_header is not None:
        on_header(target)
    return FetchedFile(str(target), target.stat().st_size, sha256, item.listed.path)


def _kept(item: Item, target: Path, on_progress: Progress) -> str | None:
    """The sha256 of what is at `target` if it is what is wanted; else that is cleared away."""
    listed = item.listed
    if not os.path.lexists(target):
        return None
    is_whole = not target.is_symlink() and target.stat().st_size == (listed.size or target.stat().st_size)
    if is_whole and (listed.sha256 or listed.git_sha1):
        sha256, git_sha1 = _digests(target, on_progress)
        if (sha256 == listed.sha256) if listed.sha256 else (git_sha1 == listed.git_sha1):
            return sha256
    files.discard(target)
    return None


def _digests(path: Path, on_progress: Progress) -> tuple[str, str]:
    """sha256 and git's name for the content of the file at `path`."""
    size, done = path.stat().st_size, 0
    sha256, git = hashlib.sha256(), hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(files.CHUNK):
            sha256.update(chunk)
            git.update(chunk)
            done += len(chunk)
            on_progress("Checking", done, size)
    return sha256.hexdigest(), git.hexdigest()


def _copied(item: Item, target: Path, on_progress: Progress) -> str:
    """The sha256 of the file on this machine that `item` names, after it was copied to `target`."""
    if item.local is None:
        raise FetchError(f"Nothing says where {printable(item.listed.path)} is", "Run it again")
    staged = target.with_name(f"{target.name}.copying")
    files.discard(staged)
    try:
        sha256 = files.copy_hashed(item.local, staged, on_progress)
        if sha256 != item.listed.sha256:
            raise IntegrityError(
                f"{printable(str(item.local))} has the sha256 {sha256} and not {item.listed.sha256}",
                "The catalogue does not fit the package: do not use it",
            )
        staged.replace(target)
    finally:
        files.discard(staged)
    return sha256
