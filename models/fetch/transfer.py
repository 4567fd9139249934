"""Fetch one file over HTTP: in parallel ranges, going on where an earlier attempt stopped, verified.

`target.partial` has the bytes at their places, `target.journal` says which of them can be trusted, and
`target.lock` is held by the process that fetches. The file gets the name `target` when its size and its
digest are right and it is flushed to the disk, and never before.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from localai.errors import FetchError, IntegrityError
from models import files
from models.fetch import journal
from models.fetch.connection import Connection
from models.fetch.hasher import Hasher
from models.fetch.journal import Identity, Journal, Known
from models.fetch.keeper import Keeper
from models.fetch.ledger import Ledger
from models.fetch.options import Options
from models.fetch.partial import Partial
from models.fetch.retry import Changed
from models.fetch.source import Source
from models.fetch.turn import turn
from models.fetch.wanted import Received, Wanted
from models.fetch.web import Web, require_address, shown

__all__ = ["Options", "Received", "Wanted", "download", "watch"]

Progress = Callable[[int, int], None]
"""Called as (done, total), both bytes; total is 0 while it is not known."""
_TICK: Final = 0.1
_PATIENCE: Final = 1.0
"""Seconds that a thread is waited for that hangs in the network; it can do no harm."""


def _silent(done: int, total: int) -> None:
    """For callers that show nothing."""


def download(
    wanted: Wanted,
    target: Path,
    *,
    on_progress: Progress = _silent,
    on_header: Callable[[Path], None] | None = None,
    options: Options = Options(),
) -> Received:
    """Fetch `wanted` to the file `target`, whose folder is there.

    The callbacks are called in this thread. `on_header` gets the partial file once its first `options.header`
    bytes, or all of it, are there. What they raise, KeyboardInterrupt and all errors but IntegrityError leave
    what came: the next call goes on there. If another process is fetching to `target`, this waits for it.

    FetchError if it cannot be had, IntegrityError if it is not what was wanted (all is thrown away then),
    NoSpace if the disk is full, StoreError if it cannot be used.
    """
    require_address(wanted.url)
    wanted = _labelled(wanted)
    with ExitStack() as stack:
        stack.enter_context(files.storage_errors(target.parent))
        waited = stack.enter_context(turn(_beside(target, "lock"), lambda: on_progress(*watch(target))))
        if (found := _there(wanted, target, waited=waited)) is not None:
            _forget(target)
            return found
        try:
            return _Transfer(wanted, target, on_progress, on_header, options).run()
        except Changed:
            _forget(target)
        try:
            return _Transfer(wanted, target, on_progress, on_header, options, is_second=True).run()
        except Changed:
            _forget(target)
            raise FetchError(
                f"{wanted.label} changes at {shown(wanted.url)} while it is fetched: nothing was kept",
                "Run it again later.",
            ) from None


def watch(target: Path) -> tuple[int, int]:
    """(done, total) of the transfer to `target` that another process does; total is 0 if not known."""
    known = journal.read(_beside(target, "journal"), journal.boot_id())
    return known.trusted.total, known.size


def _labelled(wanted: Wanted) -> Wanted:

    return (
        wanted if wanted.label else replace(wanted, label=shown(wanted.url).rpartition("/")[2] or "The file")
    )


def _beside(target: Path, kind: str) -> Path:
    return target.with_name(f"{target.name}.{kind}")


def _forget(target: Path) -> None:
    """Throw away what came."""
    for kind in ("journal", "journal.new", "partial"):
        files.discard(_beside(target, kind))


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


class _Transfer:
    """One attempt, from what is there to the end."""

    def __init__(
        self,
        wanted: Wanted,
        target: Path,
        on_progress: Progress,
        on_header: Callable[[Path], None] | None,
        options: Options,
        *,
        is_second: bool = False,
    ) -> None:
        self._wanted, self._target, self._options = wanted, target, options
        self._on_progress, self._on_header = on_progress, on_header
        self._is_second = is_second
        self._path = _beside(target, "partial")
        self._connections: list[Connection] = []

    def run(self) -> Received:
        """Fetch it, verify it, and give it its name."""
        with ExitStack() as stack:
            self._open(stack)
            try:
                self._work()
            except BaseException:
                self._stop()
                if not self._ledger.written:
                    _forget(self._target)
                raise
            self._stop()
            return self._finish()

    # ------------------------------------------------------------------------------------------ begin

    def _open(self, stack: ExitStack) -> None:
        wanted, options = self._wanted, self._options
        boot = options.boot or journal.boot_id()
        identity = Identity(
            size=wanted.size, sha256=wanted.sha256, git_sha1=wanted.git_sha1, etag=wanted.etag
        )
        place = _beside(self._target, "journal")
        known = journal.read(place, boot)
        other_size = wanted.size and known.size and known.size != wanted.size
        if known.identity is None or other_size or not known.identity.fits(identity):
            known = Known()
            files.discard(self._path)
        known.size = known.size or wanted.size
        self._partial = Partial(self._path)
        stack.callback(self._partial.close)
        _believe_no_more_than(known, self._partial.size)
        if known.size:
            self._partial.resize(known.size)
        self._journal = Journal(place, identity, known, boot)
        stack.callback(self._journal.close)
        self._known_size = known.size
        self._ledger = Ledger(known.size or None, known.trusted, options)
        self._hasher = Hasher(
            self._ledger, self._partial, known.size if wanted.git_sha1 and known.size else None
        )
        self._keeper = Keeper(self._ledger, self._journal, self._partial.duplicate(), options)
        web = stack.enter_context(
            Web(
                connections=options.connections,
                connect_timeout=options.connect_timeout,
                read_timeout=options.read_timeout,
                receive_buffer=options.receive_buffer,
            )
        )
        self._source = Source(web, wanted, options, known.names, begun=bool(known.trusted))
        self._source.on_name = self._journal.name
        self._source.compares_names = not (self._is_second and wanted.has_digest)

    # ------------------------------------------------------------------------------------------- work

    def _work(self) -> None:
        """Until all bytes are hashed; meanwhile say how far it is."""
        self._hasher.start()
        self._keeper.start()
        self._connect(1)
        ledger, header = self._ledger, self._on_header
        while True:
            with ledger.changed:
                ledger.changed.wait_for(lambda: ledger.stopped or ledger.verified, _TICK)
                done, size, error = ledger.written.total, ledger.size, ledger.error
                begin, verified = ledger.written.reach(0), ledger.verified
            if error is not None:
                raise error
            if size and not self._known_size:
                self._learn(size)
            if header is not None and (verified or begin >= self._options.header):
                header(self._path)
                header = None
            self._on_progress(done, size or 0)
            if verified:
                return
            if ledger.ranges:
                self._connect(self._options.connections)

    def _connect(self, count: int) -> None:
        """Have up to so many connections; one that had to go does not come back."""
        while len(self._connections) < count and not self._ledger.complete:
            with self._ledger.changed:
                self._ledger.workers += 1
            one = Connection(
                self._ledger, self._source, self._options, self._write, f"{len(self._connections)}"
            )
            self._connections.append(one)
            one.start()

    def _learn(self, size: int) -> None:
        self._known_size = size
        self._journal.size(size)
        self._partial.resize(size)

    def _write(self, pieces: list[bytes], start: int, end: int) -> None:
        self._partial.write(pieces, start)
        self._journal.written(start, end)

    def _stop(self) -> None:
        """No thread touches the file any more when this returns."""
        self._ledger.stop()
        for one in self._connections:
            one.stop()
        for thread in (self._hasher, self._keeper):
            if thread.ident is not None:
                thread.join()
        deadline = time.monotonic() + _PATIENCE
        for one in self._connections:
            one.join(max(0.0, deadline - time.monotonic()))

    # -------------------------------------------------------------------------------------------- end

    def _finish(self) -> Received:
        size = self._ledger.size or 0
        problem = self._problem(size)
        if not problem:
            self._partial.resize(size)
            self._partial.flush()
        self._partial.close()
        self._journal.close()
        if problem:
            _forget(self._target)
            raise problem
        self._path.replace(self._target)
        files.sync_folder(self._target.parent)
        _forget(self._target)
        return Received(size, self._hasher.sha256)

    def _problem(self, size: int) -> IntegrityError | None:
        """The error if it is not the file that was wanted."""
        wanted = self._wanted
        git = self._hasher.git_sha1
        if wanted.git_sha1 and not git:
            git = _git_sha1(self._partial, size)
        for name, right, found in (
            ("size", wanted.size or size, size),
            ("sha256", wanted.sha256 or self._hasher.sha256, self._hasher.sha256),
            ("git SHA-1", wanted.git_sha1 or git, git),
        ):
            if right != found:
                return IntegrityError(
                    f"What came for {wanted.label} has the {name} {found}, not {right}: it was thrown away",
                    "Run it again, in case it was damaged on the way; else tell whoever publishes it.",
                )
        return None


def _believe_no_more_than(known: Known, size: int) -> None:
    """A partial file may have been made shorter, or be gone."""
    known.trusted, known.durable = known.trusted.within(size), known.durable.within(size)


def _git_sha1(partial: Partial, size: int) -> str:
    digest, place = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False), 0
    while data := partial.read(files.CHUNK, place):
        digest.update(data)
        place += len(data)
    return digest.hexdigest()
