"""What all threads of one transfer share: who fetches which bytes, which are written, which are hashed.

Bytes are fetched in their order, within a window before the place up to which they are hashed: so the hash
is made of what is still in memory, and memory is bounded. Bytes that an earlier process left are hashed from
the disk, and meanwhile the rest comes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

from models.fetch.intervals import Intervals
from models.fetch.options import Options

_MUCH_SLOWER: Final = 4


class Claim:
    """Bytes that one connection fetches: from `place` to before `end`."""

    def __init__(self, place: int, end: int | None) -> None:
        self.place = place
        """The next byte to come."""
        self.end = end
        """None: up to the end of the file, wherever that is."""
        self.is_too_slow = False
        """Whether its connection should leave it to another."""
        self._begin, self._since = place, time.monotonic()

    def rate(self) -> float:
        """Bytes that came in a second, all in all."""
        return (self.place - self._begin) / max(time.monotonic() - self._since, 1e-6)


class Stopped(Exception):
    """The transfer ends: another thread has failed, or the user wants no more."""


class Ledger:
    """Safe for several threads. Places and sizes are bytes."""

    def __init__(self, size: int | None, written: Intervals, options: Options) -> None:
        self._options = options
        self.changed = threading.Condition()
        """Notified when anything here is different; hold it to read several things at once."""
        self.size = size
        self.written = Intervals(written)
        self._old = Intervals(written)
        self._claims: list[Claim] = []
        self._pieces: dict[int, list[bytes]] = {}
        self._writing = 0
        self._quiet_until = 0.0
        self.hashed = 0
        """All before this place is hashed."""
        self.received = 0
        """Bytes that have come since the start."""
        self.ranges: bool | None = None
        """Whether the server sends parts of the file; None: not known yet."""
        self.workers = 0
        """Connections that take claims."""
        self.error: BaseException | None = None
        self._stopped = False

    # --------------------------------------------------------------------------------------- its end

    def fail(self, error: BaseException) -> None:
        """The transfer ends because of this; the first error counts."""
        with self.changed:
            self.error = self.error or error
            self._stopped = True
            self.changed.notify_all()

    def stop(self) -> None:
        """The transfer ends; returns when nobody writes to the file any more."""
        with self.changed:
            self._stopped = True
            self.changed.notify_all()
            self.changed.wait_for(lambda: not self._writing)

    @property
    def stopped(self) -> bool:
        """Whether the transfer ends."""
        return self._stopped

    def wait(self, seconds: float) -> None:
        """Wait so long, or until the transfer ends: then Stopped."""
        with self.changed:
            if self.changed.wait_for(lambda: self._stopped, seconds):
                raise Stopped

    @property
    def complete(self) -> bool:
        """Whether all bytes are written."""
        return self.size is not None and self.written.reach(0) >= self.size

    @property
    def verified(self) -> bool:
        """Whether all bytes are hashed."""
        return self.size is not None and self.hashed >= self.size

    # ------------------------------------------------------------------------------------- connections

    def claim(self, rate: float = 0.0) -> Claim | None:
        """The next bytes to fetch, after waiting for the window; None if nothing is left to do.

        `rate`: bytes that the connection can fetch in a second, as far as is known. If it has to wait for
        long for one that is much slower, that one is told to give up.
        """
        patience = self._options.starving_seconds
        starving = time.monotonic() + patience
        with self.changed:
            while not self._stopped and not self.complete:
                now = time.monotonic()
                if now < self._quiet_until:
                    self.changed.wait(self._quiet_until - now)
                elif found := self._free():
                    self._claims.append(found)
                    return found
                else:
                    if now >= starving:
                        self._give_up_the_first(rate)
                        starving = now + patience
                    self.changed.wait(starving - now)
        return None

    def _free(self) -> Claim | None:
        """The first bytes that nobody fetches, if they are within the window."""
        taken = Intervals(self.written)
        for claim in self._claims:
            if claim.end is None:
                return None
            taken.add(claim.place, claim.end)
        place = taken.reach(0)
        if self.size is not None and place >= self.size:
            return None
        if place >= self._limit():
            return None
        ends = [
            taken.next_start(place),
            self.size,
            None if self.ranges is False else place + self._range(place),
        ]
        return Claim(place, min((end for end in ends if end is not None), default=None))

    def _limit(self) -> int:
        """Where the window ends. What is hashed from the disk does not hold up what comes."""
        place = self.hashed
        if self._old.reach(place) > place:
            place = self.written.reach(place)
        return place + self._options.window

    def _range(self, place: int) -> int:
        """How many bytes to ask for: less for the header, to have it soon, and near the end, to share it."""
        options = self._options
        length = options.range
        if place < options.header:
            length = min(length, options.header // options.connections)
        if self.size is not None:
            length = min(length, (self.size - place) // (2 * options.connections))
        return max(length, options.least_range)

    def _give_up_the_first(self, rate: float) -> None:
        """The first bytes that are being fetched are those that all wait for."""
        first = min(self._claims, key=lambda claim: claim.place, default=None)
        if first is not None and first.rate() * _MUCH_SLOWER < rate:
            first.is_too_slow = True

    def whole(self, claim: Claim, size: int | None) -> bool:
        """Make `claim` all that is missing, as the server sends the file in one, which has that size.

        False if others fetch parts of it, or did so: then this was a mistake of the server's.
        """
        with self.changed:
            if self.ranges or any(other is not claim for other in self._claims):
                return False
            self.ranges = False
            self.size = size if self.size is None else self.size
            claim.place, claim.end = self.written.reach(0), self.size
            return True

    def room(self, claim: Claim) -> int:
        """How many bytes to take next for `claim`, after passing over those that are written; 0: none."""
        with self.changed:
            claim.place = self.written.reach(claim.place)
            ends = [claim.end, self.written.next_start(claim.place)]
            return max(0, min([self._options.piece, *(end - claim.place for end in ends if end is not None)]))

    def release(self, claim: Claim) -> None:
        """Nobody fetches these bytes any more; what has not come of them is free."""
        with self.changed:
            self._claims.remove(claim)
            self.changed.notify_all()

    def retire(self) -> bool:
        """Whether one connection less is right, since the server has too much to do; one remains."""
        with self.changed:
            if self.workers <= 1:
                return False
            self.workers -= 1
            return True

    def be_quiet(self, seconds: float) -> None:
        """No connection asks for anything for so long."""
        with self.changed:
            self._quiet_until = max(self._quiet_until, time.monotonic() + seconds)

    def learn(self, *, size: int | None = None, ranges: bool | None = None) -> None:
        """What the server told."""
        with self.changed:
            self.size = self.size if size is None else size
            self.ranges = self.ranges if ranges is None else ranges
            self.changed.notify_all()

    def put(self, claim: Claim, pieces: list[bytes], write: Callable[[int, int], None]) -> None:
        """Take the next bytes of `claim`: `write` is called to write them, from one place to before another.

        Waits until they are within the window; Stopped if the transfer ends.
        """
        start, end = claim.place, claim.place + sum(map(len, pieces))
        with self.changed:
            self.changed.wait_for(lambda: self._stopped or start < self._limit() + self._options.range)
            if self._stopped:
                raise Stopped
            self._writing += 1
        try:
            write(start, end)
        except BaseException:
            with self.changed:
                self._writing -= 1
                self.changed.notify_all()
            raise
        with self.changed:
            self._writing -= 1
            self.written.add(start, end)
            self.received += end - start
            claim.place = end
            if start < self.hashed + self._options.window + self._options.range:
                self._pieces[start] = pieces
            self.changed.notify_all()

    # -------------------------------------------------------------------------------------------- hash

    def next_to_hash(self) -> tuple[list[bytes], int] | None:
        """The bytes that come next, or how many of them to read from the disk; None at the end.

        Waits for them; Stopped if the transfer ends.
        """
        with self.changed:
            self.changed.wait_for(
                lambda: self._stopped or self.verified or self.written.reach(self.hashed) > self.hashed
            )
            if self._stopped:
                raise Stopped
            if self.verified:
                return None
            if (pieces := self._pieces.pop(self.hashed, None)) is not None:
                return pieces, 0
            ends = [self.written.reach(self.hashed), self.hashed + self._options.piece]
            ends += [start for start in self._pieces if start > self.hashed]
            return [], min(ends) - self.hashed

    def have_hashed(self, count: int) -> None:
        """So many bytes more are hashed."""
        with self.changed:
            self.hashed += count
            self.changed.notify_all()
