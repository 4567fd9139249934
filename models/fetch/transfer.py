"""Fetch one file over HTTP: in parallel ranges, going on where an earlier attempt stopped, verified.

`target.partial` has the bytes at their places, `target.journal` says which of them can be trusted, and
`target.lock` is held by the process that fetches. The file gets the name `target` when its size and its
digest are right and it is flushed to the disk, and never before.
"""

from __future__ import annotations

import hashlib
from contextlib import ExitStack
from pathlib import Path

from msgspec.structs import replace

from localai.errors import FetchError
from models import files
from models.fetch import journal
from models.fetch.attempt import Attempt, OnHeader, Progress
from models.fetch.options import Options
from models.fetch.places import Places
from models.fetch.retry import Changed
from models.fetch.turn import turn
from models.fetch.wanted import Received, Wanted
from models.fetch.where import require_address, shown
from models.header import printable

__all__ = ["Options", "Received", "Wanted", "download", "watch"]


def _silent(done: int, total: int) -> None:
    """For callers that show nothing."""


def download(
    wanted: Wanted,
    target: Path,
    *,
    on_progress: Progress = _silent,
    on_header: OnHeader | None = None,
    options: Options = Options(),
) -> Received:
    """Fetch `wanted` to the file `target`, whose folder is there.

    The callbacks are called in this thread. `on_header` gets the partial file once its first `options.header`
    bytes, or all of it, are there; or `target`, if it is there already. What they raise, KeyboardInterrupt
    and all errors but IntegrityError leave what came: the next call goes on there. If another process is
    fetching to `target`, this waits for it.

    FetchError if it cannot be had, IntegrityError if it is not what was wanted (all is thrown away then),
    NoSpace if the disk is full, StoreError if it cannot be used.
    """
    require_address(wanted.url)
    label = printable(wanted.label) or shown(wanted.url).rpartition("/")[2] or "the file"
    wanted, places = replace(wanted, label=label), Places(target)
    with ExitStack() as stack:
        stack.enter_context(files.storage_errors(target.parent))
        waited = stack.enter_context(turn(places.lock, lambda: on_progress(*watch(target))))
        if (found := _there(wanted, target, waited=waited)) is not None:
            places.forget()
            if on_header is not None:
                on_header(target)
            return found
        try:
            return Attempt(wanted, places, on_progress, on_header, options).run()
        except Changed:
            places.forget()
        try:
            # If the digest is known, several machines behind one address may have had several names for it.
            second = Attempt(wanted, places, on_progress, on_header, options, names_differ=wanted.has_digest)
            return second.run()
        except Changed:
            places.forget()
            raise FetchError(
                f"{wanted.label} changes at {shown(wanted.url)} while it is fetched: nothing was kept",
                "Run it again later.",
            ) from None


def watch(target: Path) -> tuple[int, int]:
    """(done, total) of the transfer to `target` that another process does; total is 0 if not known."""
    known = journal.read(Places(target).journal, journal.boot_id())
    return known.trusted.total, known.size


def _there(wanted: Wanted, target: Path, *, waited: bool) -> Received | None:
    """What is at `target` already, if it is wanted: by its digest, or as another process has just put it."""
    if target.is_symlink() or not target.is_file():
        return None
    size = target.stat().st_size
    if (wanted.size and size != wanted.size) or not (wanted.has_digest or waited):
        return None
    sha256, git = hashlib.sha256(), hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    with target.open("rb") as file:
        while data := file.read(files.CHUNK):
            sha256.update(data)
            if wanted.git_sha1:
                git.update(data)
    found = Received(size, sha256.hexdigest())
    is_it = wanted.sha256 in ("", found.sha256) and wanted.git_sha1 in ("", git.hexdigest())
    return found if is_it else None
