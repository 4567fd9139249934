"""One connection of a transfer, in a thread of its own: it takes bytes to fetch, and writes them."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable

from models.fetch.ledger import Claim, Ledger, Stopped
from models.fetch.options import Options
from models.fetch.retry import Broken, back_off
from models.fetch.source import DOUBTS, Source, Span
from models.fetch.web import Answer


class Connection(threading.Thread):
    """Runs until nothing is left to fetch, or the transfer ends; what ends it is told to the ledger."""

    def __init__(
        self,
        ledger: Ledger,
        source: Source,
        options: Options,
        write: Callable[[list[bytes], int, int], None],
        name: str,
    ) -> None:
        super().__init__(name=f"fetch {name}", daemon=True)
        self._ledger, self._source, self._options, self._write = ledger, source, options, write
        self._answer: Answer | None = None
        self._rate = 0.0
        """Bytes that came in a second, the last time."""
        self._failures = 0
        """In a row, of this connection."""
        self._fruitless = 0
        """In a row, while no connection has brought anything."""
        self._received = 0
        """What all had brought when `_fruitless` was counted anew."""

    def run(self) -> None:
        """Only failures that another try may mend are borne here."""
        try:
            while (claim := self._ledger.claim(self._rate)) is not None:
                broken = self._try(claim)
                if broken is None:
                    self._failures, self._rate = 0, claim.rate()
                elif self._bear(broken):
                    return
        except Stopped:
            return
        except BaseException as error:  # noqa: BLE001 - a thread's end: the one that waits raises it
            self._ledger.fail(error)

    def stop(self) -> None:
        """End what it waits for from the network."""
        if (answer := self._answer) is not None:
            answer.stop()

    # ------------------------------------------------------------------------------------------ failures

    def _bear(self, broken: Broken) -> bool:
        """Wait as is due after a failure; True: it is one connection too many. FetchError: it is enough."""
        ledger, options = self._ledger, self._options
        if ledger.stopped:
            raise Stopped
        if ledger.received >= self._received + options.progress:
            self._fruitless = 0
        if not self._fruitless:
            self._received = ledger.received
        self._failures += 1
        self._fruitless += 1
        attempts = options.attempts if ledger.received or broken.crowded else options.first_attempts
        if self._fruitless >= min(attempts, broken.attempts):
            raise self._source.failed(broken, self._fruitless) from broken
        if broken.crowded and self._failures > 1 and ledger.received and ledger.retire():
            return True
        if broken.wait:
            ledger.be_quiet(broken.wait)
        elif not (broken.expired and self._failures == 1):
            ledger.wait(back_off(self._failures, options.first_wait, options.longest_wait))
        return False

    # -------------------------------------------------------------------------------------------- bytes

    def _try(self, claim: Claim) -> Broken | None:
        """Fetch the bytes of `claim`, or as many of them as come; returns why no more came."""
        try:
            answer, span = self._source.ask(claim.place, claim.end, self._ledger.size)
            with answer:
                self._answer = answer
                self._accept(claim, span)
                self._receive(answer, claim, span)
        except Broken as broken:
            return broken
        finally:
            self._answer = None
            self._ledger.release(claim)
        return None

    def _accept(self, claim: Claim, span: Span) -> None:
        """Note what the answer tells about the server."""
        if not span.is_whole:
            self._ledger.learn(size=span.size, ranges=True)
        elif not self._ledger.whole(claim, span.size):
            raise Broken("it sends the whole file instead of the part that was asked for", attempts=DOUBTS)

    def _receive(self, answer: Answer, claim: Claim, span: Span) -> None:
        """Write what comes; bytes that are there already are passed over."""
        place, pace = span.start, _Pace(self._options)
        while room := self._ledger.room(claim):
            if claim.is_too_slow:
                raise Broken("it is much slower than before")
            skip = claim.place - place
            pieces = self._gather(answer, min(skip, self._options.piece) if skip else room, pace)
            if not pieces:
                break
            if not skip:
                self._ledger.put(claim, pieces, functools.partial(self._write, pieces))
            place += sum(map(len, pieces))
        self._require_end(answer, claim, span, place)

    def _require_end(self, answer: Answer, claim: Claim, span: Span, place: int) -> None:
        """The body must end where it should; a file whose size nobody told ends where its body does."""
        if claim.end is None and span.end is None:
            self._ledger.learn(size=place)
        elif claim.end is not None and claim.place < claim.end and (span.end is None or place < span.end):
            raise Broken("the connection ended too early")
        elif (span.end is None or place >= span.end) and answer.read(1):
            raise Broken("more bytes come than were announced", attempts=DOUBTS)

    def _gather(self, answer: Answer, wanted: int, pace: _Pace) -> list[bytes]:
        """Up to `wanted` bytes, less at the end or when they come slowly. Broken if none come for that."""
        pieces: list[bytes] = []
        due = time.monotonic() + self._options.piece_seconds
        while wanted and time.monotonic() < due:
            started = time.monotonic()
            try:
                piece = answer.read(wanted)
                pace.note(len(piece), time.monotonic() - started)
            except Broken:
                if pieces:  # They are good; what is broken will be so the next time, too.
                    break
                raise
            if not piece:
                break
            pieces.append(piece)
            wanted -= len(piece)
        if self._ledger.stopped:
            raise Stopped
        return pieces


class _Pace:
    """Whether enough comes while it is waited for."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._took, self._count = 0.0, 0

    def note(self, count: int, took: float) -> None:
        """So many bytes came in so many seconds. Broken if it was too few for too long."""
        self._count += count
        self._took += took
        if self._took >= self._options.slow_seconds:
            if self._count < self._took * self._options.slow_rate:
                raise Broken(f"only {self._count / self._took:,.0f} bytes came in a second")
            self._took, self._count = 0.0, 0
