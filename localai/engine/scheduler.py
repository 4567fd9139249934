"""Evaluates what all requests want, in one batch at a time, and uses idle time for what will be wanted.

Requests that decode come first; the rest of a batch reads one prompt. When nothing is to be done, the cache
is brought to what the next prompt will begin with, until a real request comes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from localai.engine import protocol
from localai.engine.cache import CachedSequence, KVCache
from localai.engine.context import MOST_OUTPUTS, Aborted, AbortFlag, Context, NoRoom
from localai.engine.generate import Generation
from localai.engine.threads import ThreadGovernor

SHARED_PIECE = 128
"""Prompt tokens read at once while another reply is being written, so that it does not stand still."""
ROOM_FOR_REPLY = 256
"""Tokens that each of several requests at once must have room for, or it waits."""
OPERATION_S = 0.06
"""Longest that one operation of the graph may take: only between operations can it be stopped."""
IDLE_PIECE_S = 0.5
"""About how long one piece of reading ahead takes: it can be stopped at any time, but is then lost."""
LEAST_PIECE = 32
STEP_S = 0.1
"""For so long a step may go on without events."""
DRAFT_COST = 0.5
"""What each further token of a small batch costs, compared with a single one; measured: 0.35 to 0.8."""


class PromptPieces:
    """How many prompt tokens are evaluated at once.

    As many as the context allows, unless the largest matrix of the model (`largest`: its share of all
    weights) would then take so long that a cancellation is felt. The first piece of a big model is small.
    """

    def __init__(self, most: int, largest: float, *, careful: bool) -> None:
        self.most = most
        self.size = min(most, 128) if careful else most
        self.token_s: float | None = None
        """Seconds for a token of the last piece; None before the first."""
        self._largest = largest

    def measured(self, tokens: int, seconds: float) -> None:
        """A piece of so many tokens took so long."""
        if tokens < LEAST_PIECE:
            return
        self.token_s = seconds / tokens
        wanted = int(OPERATION_S / max(self._largest * self.token_s, 1e-9))
        limit = max(LEAST_PIECE, min(wanted, self.most))
        self.size = limit if limit < self.size else min(limit, self.size * 2)

    @property
    def idle(self) -> int:
        """Tokens of a piece of reading ahead."""
        if self.token_s is None:
            return min(LEAST_PIECE, self.most)
        return max(LEAST_PIECE, min(self.size, int(IDLE_PIECE_S / self.token_s), 256))


class Scheduler:
    """The computations on one context."""

    def __init__(
        self,
        context: Context,
        cache: KVCache,
        pieces: PromptPieces,
        governor: ThreadGovernor,
        abort: AbortFlag,
    ) -> None:
        self.cache = cache
        self.pieces = pieces
        self.active: list[Generation] = []
        self.steps = 0
        """Grows while the computation gets anywhere."""
        self.hurry = False
        """Another thread may set it: a request waits for the step that runs, which is to end soon."""
        self._context, self._governor, self._abort = context, governor, abort
        self._waiting: list[Generation] = []
        self._ahead: list[int] = []

    # ------------------------------------------------------------------------------------------- requests

    @property
    def busy(self) -> bool:
        """Whether a request is under way."""
        return bool(self.active or self._waiting)

    @property
    def requests(self) -> list[Generation]:
        """Those under way."""
        return [*self.active, *self._waiting]

    def submit(self, generation: Generation) -> None:
        """Begin a request as soon as a sequence is free."""
        self._ahead = []
        self._waiting.append(generation)

    def find(self, request_id: int) -> Generation | None:
        """The request of that number, if it is under way."""
        return next((g for g in self.requests if g.id == request_id), None)

    def read_ahead(self, tokens: list[int]) -> None:
        """Evaluate `tokens` when there is nothing else to do. Replaces what was to be read before."""
        self._ahead = tokens

    @property
    def reads_ahead(self) -> bool:
        """Whether there is something to do in idle time."""
        return bool(self._ahead)

    # -------------------------------------------------------------------------------------------- working

    def step(self) -> Iterator[protocol.GenerationEvent]:
        """Compute one batch or more, until there are events; the events. `reap` gives requests that ended."""
        if self._waiting:
            yield from self._begin_waiting()
        if len(self.active) == 1 and not (one := self.active[0]).ended:
            yield from self._step_alone(one)
            return
        planned = self._plan()
        if not planned:
            return
        work = work_of(sum(count for _, count in planned))
        seconds = self._compute([generation.sequence for generation, _ in planned], work)
        if seconds is None:
            return
        for generation, count in planned:
            if generation.reading and len(planned) == 1:
                self.pieces.measured(count, seconds)
            yield from generation.evaluated(seconds)

    def _step_alone(self, one: Generation) -> Iterator[protocol.GenerationEvent]:
        """The usual case. Little is done between tokens: what Python does there comes out of cold caches."""
        self.hurry = False
        until = time.perf_counter() + STEP_S
        sequences, batch = [one.sequence], self._context.batch
        while True:
            reading = one.reading
            count = one.plan(min(self.pieces.size, batch) if reading else batch, alone=True)
            seconds = self._compute(sequences, 1.0 if count == 1 else work_of(count))
            if seconds is None:
                return
            if reading:
                self.pieces.measured(count, seconds)
            events = one.evaluated(seconds)
            if events or self.hurry or one.ended or time.perf_counter() >= until:
                yield from events
                return

    def reap(self) -> list[Generation]:
        """Take out the requests that have ended."""
        if not self._waiting and not any(g.ended for g in self.active):
            return []
        ended = [g for g in self.requests if g.ended]
        self.active = [g for g in self.active if not g.ended]
        self._waiting = [g for g in self._waiting if not g.ended]
        return ended

    def drop(self) -> list[int]:
        """Give up all requests; their numbers."""
        dropped = self.requests
        self.active, self._waiting, self._ahead = [], [], []
        for generation in dropped:
            generation.release()
        return [generation.id for generation in dropped]

    def _begin_waiting(self) -> Iterator[protocol.GenerationEvent]:
        while self._waiting and not self._waiting[0].ended:
            generation = self._waiting[0]
            if self.active and not self._has_room(generation):
                return
            sequence = self.cache.take(generation.tokens, reproducible=generation.reproducible)
            if sequence is None:
                return
            del self._waiting[0]
            generation.start(sequence)
            self.active.append(generation)
            yield generation.progress()

    def _has_room(self, generation: Generation) -> bool:
        """Whether it fits beside those under way, with some room for all replies."""
        held = sum(max(len(other.tokens), len(other.sequence)) for other in self.active)
        room = ROOM_FOR_REPLY * (len(self.active) + 1)
        return held + len(generation.tokens) + room <= self._context.size

    def _plan(self) -> list[tuple[Generation, int]]:
        """Fill a batch: (request, number of its tokens) in the order of the batch."""
        going = [g for g in self.active if not g.ended]
        decoding = [g for g in going if not g.reading]
        planned: list[tuple[Generation, int]] = []
        rest = self._context.batch
        for others, generation in zip(range(len(decoding))[::-1], decoding, strict=True):
            planned.append((generation, generation.plan(rest - others, alone=len(going) == 1)))
            rest -= planned[-1][1]
        reading = next((g for g in going if g.reading), None)
        if reading is not None and rest:
            most = min(self.pieces.size, rest, SHARED_PIECE if decoding else rest)
            planned.append((reading, reading.plan(most, alone=len(going) == 1)))
        return planned

    def _compute(self, sequences: list[CachedSequence], work: float) -> float | None:
        """Evaluate the batch; the seconds that it took, None if it was broken off."""
        self._governor.begin(work)
        started = time.perf_counter()
        try:
            self._context.evaluate()
        except (Aborted, NoRoom) as error:
            for sequence in sequences:
                sequence.failed()
            self._broken_off(error)
            return None
        except BaseException:
            for sequence in sequences:
                sequence.failed()
            raise
        seconds = time.perf_counter() - started
        self._governor.end()
        self.steps += 1
        return seconds

    def _broken_off(self, error: Exception) -> None:
        if isinstance(error, NoRoom):
            self._make_room()
            return
        self._abort.clear()
        self._governor.rescued()

    def _make_room(self) -> None:
        """Park what is idle; if nothing is, the longest request ends, and gives its place to the others."""
        used = sum(map(len, self.cache.sequences))
        going = [g for g in self.active if not g.ended]
        if not self.cache.make_room(self._context.size - used + 1) and going:
            max(going, key=lambda g: len(g.sequence)).no_room()

    # ------------------------------------------------------------------------------------------ idle time

    def ahead(self) -> None:
        """Evaluate one piece of what is to be read ahead."""
        tokens = self._ahead
        sequence = self.cache.take(tokens)
        piece = [] if sequence is None else tokens[len(sequence) :][: self.pieces.idle]
        if sequence is None or not piece or not self._room_for(len(tokens)):
            self._ahead = []
            return
        sequence.add(piece, 0)
        seconds = self._compute([sequence], float(len(piece)))
        if seconds is not None:
            sequence.evaluated(piece)
            self.pieces.measured(len(piece), seconds)
            if len(sequence) == len(tokens):
                self._ahead = []

    def _room_for(self, tokens: int) -> bool:
        return tokens < self._context.size


def work_of(count: int) -> float:
    """About what a batch of `count` tokens costs, in single tokens."""
    return float(count) if count > MOST_OUTPUTS else 1 + DRAFT_COST * (count - 1)
