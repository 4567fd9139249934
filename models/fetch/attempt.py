"""One attempt to fetch a file: from what is there already to the file with its name."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Final, TypeAlias

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
from models.fetch.places import Places
from models.fetch.source import Source
from models.fetch.wanted import Received, Wanted
from models.fetch.web import Web

Progress: TypeAlias = Callable[[int, int], None]
"""Called as (done, total), both bytes; total is 0 while it is not known."""
OnHeader: TypeAlias = Callable[[Path], None]
_PATIENCE: Final = 1.0
"""Seconds that a thread is waited for that hangs in the network; it can do no harm."""


class Attempt:
    """Made for one call of `run`. `names_differ`: a server may call the same file by several names."""

    def __init__(
        self,
        wanted: Wanted,
        places: Places,
        on_progress: Progress,
        on_header: OnHeader | None,
        options: Options,
        *,
        names_differ: bool = False,
    ) -> None:
        self._wanted, self._places, self._options = wanted, places, options
        self._on_progress, self._on_header = on_progress, on_header
        self._names_differ = names_differ
        self._connections: list[Connection] = []
        self._looked_at = 0
        """How much had come when the space on the disk was looked at."""
        self._places_are_void = False
        """Whether nothing that came is of use."""

    def run(self) -> Received:
        """Fetch it, verify it, and give it its name. Raises as `download` does, and Changed, OSError."""
        with ExitStack() as stack:
            known = self._open(stack)
            self._prepare(stack, known)
            try:
                self._work()
            except BaseException:
                self._stop()
                if not self._ledger.written or self._places_are_void:
                    self._places.forget()
                raise
            self._stop()
            return self._finish()

    # ------------------------------------------------------------------------------------------- begin

    def _open(self, stack: ExitStack) -> Known:
        """Open the files, and tell what is known of what is in them.

        The journal goes, or claims less, before the file is made larger: bytes that nobody has written must
        never be those that a journal claims, whenever this process dies.
        """
        boot = self._options.boot or journal.boot_id()
        known = journal.read(self._places.journal, boot)
        identity = _identity(self._wanted)
        if not known.fits(identity):
            known = Known()
            self._places.forget()
        known.size = known.size or self._wanted.size
        self._partial = Partial(self._places.partial)
        stack.callback(self._partial.close)
        known.trust_no_more_than(self._partial.size)
        self._journal = Journal(self._places.journal, identity, known, boot)
        stack.callback(self._journal.close)
        if known.size:
            self._partial.resize(known.size)
        return known

    def _prepare(self, stack: ExitStack, known: Known) -> None:
        """Make what the threads share, and those that will run."""
        wanted, options = self._wanted, self._options
        self._size = known.size
        self._ledger = Ledger(known.size or None, known.trusted, options)
        self._hasher = Hasher(self._ledger, self._partial, known.size if wanted.git_sha1 else 0)
        web = Web(
            connections=options.connections,
            connect_timeout=options.connect_timeout,
            read_timeout=options.read_timeout,
            receive_buffer=options.receive_buffer,
        )
        stack.enter_context(web)
        self._source = Source(web, wanted, options, known.names, begun=bool(known.trusted))
        self._source.on_name = self._journal.name
        self._source.compares_names = not self._names_differ

    # -------------------------------------------------------------------------------------------- work

    def _work(self) -> None:
        """Until all bytes are hashed; meanwhile say how far it is."""
        self._keeper = Keeper(self._ledger, self._journal, self._partial.duplicate(), self._options)
        self._keeper.start()
        self._hasher.start()
        self._connect(1)
        while not self._look():
            if self._ledger.ranges:
                self._connect(self._options.connections)

    def _look(self) -> bool:
        """Wait a moment, and tell the callbacks what has come; True if it is all."""
        ledger = self._ledger
        with ledger.changed:
            ledger.changed.wait_for(lambda: ledger.stopped or ledger.verified, self._options.tick)
            done, size, error = ledger.written.total, ledger.size, ledger.error
            begin, is_all = ledger.written.reach(0), ledger.verified
        if error is not None:
            raise error
        if size and not self._size:
            self._size = size
            self._require_space(size - done)
            self._journal.size(size)
            self._partial.resize(size)
        if not size and done >= self._looked_at + self._options.space:
            self._looked_at = done
            self._require_an_end(done)
        if self._on_header is not None and (is_all or begin >= self._options.header):
            self._on_header(self._places.partial)
            self._on_header = None
        self._on_progress(done, size or 0)
        return is_all

    def _require_an_end(self, done: int) -> None:
        """A file whose size nobody knows must not fill the disk."""
        if done > self._options.unsized:
            self._places_are_void = True
            raise FetchError(
                f"{self._wanted.label} does not end: {files.megabytes(done)} have come, and were thrown away",
                "Tell whoever runs that server.",
            )
        self._require_space(0)

    def _require_space(self, needed: int) -> None:
        """NoSpace unless so many bytes more fit, and some are left for all else."""
        if needed or not self._size:
            files.require_space(self._places.target.parent, needed, files.free_bytes)

    def _connect(self, count: int) -> None:
        """Have up to so many connections; one that had to go does not come back."""
        while len(self._connections) < count and not self._ledger.complete:
            with self._ledger.changed:
                self._ledger.workers += 1
            name = f"{len(self._connections)}"
            one = Connection(self._ledger, self._source, self._options, self._write, name)
            self._connections.append(one)
            one.start()

    def _write(self, pieces: list[bytes], start: int, end: int) -> None:
        """The file first: the journal must not claim what is not there."""
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

    # --------------------------------------------------------------------------------------------- end

    def _finish(self) -> Received:
        """Compare, flush, and rename. Windows renames and deletes no file that is open."""
        size, sha256 = self._ledger.size or 0, self._hasher.sha256
        problem = self._problem(size)
        if problem is None:
            self._partial.resize(size)
            self._partial.flush()
        self._partial.close()
        self._journal.close()
        if problem is None:
            self._places.partial.replace(self._places.target)
            files.sync_folder(self._places.target.parent)
        self._places.forget()
        if problem is not None:
            raise problem
        return Received(size, sha256)

    def _problem(self, size: int) -> IntegrityError | None:
        """The error if it is not the file that was wanted."""
        wanted, sha256, git = self._wanted, self._hasher.sha256, self._hasher.git_sha1
        if wanted.git_sha1 and not git:
            git = _git_sha1(self._partial, size)
        for name, right, found in (
            ("size", wanted.size or size, size),
            ("sha256", wanted.sha256 or sha256, sha256),
            ("git SHA-1", wanted.git_sha1 or git, git),
        ):
            if right != found:
                return IntegrityError(
                    f"What came for {wanted.label} has the {name} {found}, not {right}: it was thrown away",
                    "Run it again, in case it was damaged on the way; else tell whoever publishes it.",
                )
        return None


def _identity(wanted: Wanted) -> Identity:
    return Identity(size=wanted.size, sha256=wanted.sha256, git_sha1=wanted.git_sha1, etag=wanted.etag)


def _git_sha1(partial: Partial, size: int) -> str:
    """Git's name for a file whose size was not known before: it begins with that."""
    digest, place = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False), 0
    while data := partial.read(files.CHUNK, place):
        digest.update(data)
        place += len(data)
    return digest.hexdigest()
