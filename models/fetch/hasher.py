"""The hash of a file that comes, in a thread of its own: from memory where it can, else from the disk."""

from __future__ import annotations

import hashlib
import threading

from localai.errors import StoreError
from models.fetch.ledger import Ledger, Stopped
from models.fetch.partial import Partial


class Hasher(threading.Thread):
    """Runs until all bytes are hashed, or the transfer ends; what ends it is told to the ledger."""

    def __init__(self, ledger: Ledger, partial: Partial, git_size: int) -> None:
        """`git_size`: bytes of the file if git's name for it is wanted, too, and they are known; else 0."""
        super().__init__(name="fetch hash", daemon=True)
        self._ledger, self._partial = ledger, partial
        self._sha256 = hashlib.sha256()
        self._git = None
        if git_size:
            self._git = hashlib.sha1(b"blob %d\0" % git_size, usedforsecurity=False)

    @property
    def sha256(self) -> str:
        """In hex; of the whole file when the thread has ended."""
        return self._sha256.hexdigest()

    @property
    def git_sha1(self) -> str:
        """In hex; "" if it was not asked for."""
        return self._git.hexdigest() if self._git is not None else ""

    def run(self) -> None:
        """Take what is next until nothing is."""
        try:
            while (found := self._ledger.next_to_hash()) is not None:
                pieces, count = found
                self._take(pieces or [self._read(count)])
        except Stopped:
            return
        except BaseException as error:  # noqa: BLE001 - a thread's end: the one that waits raises it
            self._ledger.fail(error)

    def _take(self, pieces: list[bytes]) -> None:
        for piece in pieces:
            self._sha256.update(piece)
            if self._git is not None:
                self._git.update(piece)
        self._ledger.have_hashed(sum(map(len, pieces)))

    def _read(self, count: int) -> bytes:
        data = self._partial.read(count, self._ledger.hashed)
        if not data:
            raise StoreError("The partial file was made shorter while it was fetched", "Run it again.")
        return data
