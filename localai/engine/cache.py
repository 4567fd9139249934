"""What the KV cache of a context holds, token by token, and what is kept beside it.

A conversation that is being computed has a sequence in the cache. When another one needs the place, it is
parked: its keys and values are copied to ordinary memory, from where they come back in milliseconds. A
sequence that waits in the cache itself would slow down every token of the others, because attention looks at
all cells.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from localai.engine.context import Context

GRID = 128
"""Reproducible replies read their prompts in pieces of so many tokens that begin at its multiples.

llama.cpp's results differ in the last bits with the number of tokens evaluated at once.
"""
WORTH_PARKING = 64
"""Tokens: fewer are computed again as quickly."""


class CachedSequence:
    """The tokens of one sequence that `context` has evaluated."""

    def __init__(self, context: Context, number: int) -> None:
        self.number = number
        self.tokens: list[int] = []
        self.on_grid = 0
        """The first so many tokens were evaluated as a reproducible reply does it."""
        self.busy = False
        """Whether a reply is working on it."""
        self.used = 0
        """When it was last taken; a count, not a time."""
        self._context = context
        self._clean = True

    def __len__(self) -> int:
        return len(self.tokens)

    def cut(self, length: int) -> None:
        """Keep the first `length` tokens."""
        if length < len(self.tokens) or not self._clean:
            self._context.truncate(self.number, length)
            del self.tokens[length:]
            self.on_grid = min(self.on_grid, length // GRID * GRID)
            self._clean = True

    def keep_common(self, tokens: Sequence[int]) -> None:
        """Keep what it has in common with `tokens`."""
        self.cut(_common(tokens, self.tokens))

    def add(self, tokens: Sequence[int], outputs: int) -> int:
        """Put `tokens` behind it into the context's next batch; the index of the first there."""
        if not self._clean:
            self.cut(len(self.tokens))
        return self._context.add(self.number, len(self.tokens), tokens, outputs)

    def evaluated(self, tokens: Sequence[int], *, reproducible: bool = False) -> None:
        """The batch with these `tokens` was evaluated, for a reproducible reply or not."""
        if reproducible and len(tokens) == GRID and self.on_grid == len(self.tokens):
            self.on_grid += GRID
        self.tokens += tokens

    def failed(self) -> None:
        """A batch with tokens of this was broken off: llama.cpp may hold some of them."""
        self._clean = False


class Parked(msgspec.Struct):
    """A sequence kept in ordinary memory."""

    tokens: list[int]
    on_grid: int
    data: bytearray
    used: int = 0


class KVCache:
    """All sequences of `context`, of which `count` can be computed at once.

    `park_limit`: bytes that parked sequences may take; the least recently used go first.
    """

    def __init__(self, context: Context, count: int, park_limit: int) -> None:
        self.sequences = [CachedSequence(context, number) for number in range(count)]
        self.parked: list[Parked] = []
        self._context = context
        self._park_limit = park_limit
        self._clock = 0

    @property
    def parked_bytes(self) -> int:
        """Memory that parked sequences take."""
        return sum(len(parked.data) for parked in self.parked)

    def common(self, tokens: Sequence[int]) -> int:
        """How many of the first of `tokens` need not be evaluated; the last always must, for its logits."""
        held = [sequence.tokens for sequence in self.sequences] + [parked.tokens for parked in self.parked]
        return max(_reusable(tokens, other) for other in held)

    def take(self, tokens: Sequence[int], *, reproducible: bool = False) -> CachedSequence | None:
        """A sequence that holds as much of the beginning of `tokens` as is known, and nothing else.

        None if all are busy. Whatever has to give way for it is parked. `reproducible`: only what was
        evaluated on the grid counts, and no other sequence may stay in the cache.
        """
        free = [sequence for sequence in self.sequences if not sequence.busy]
        if not free:
            return None
        sequence = max(free, key=lambda s: (_reusable(tokens, s.tokens), -len(s), -s.used))
        best = _reusable(tokens, sequence.tokens)
        parked = max(self.parked, key=lambda p: _reusable(tokens, p.tokens), default=None)
        if parked is not None and _reusable(tokens, parked.tokens) > best + WORTH_PARKING:
            sequence = self._unpark(parked, free)
        elif 2 * best < len(sequence):
            empty = next((s for s in free if not len(s)), None)
            if empty is not None:
                sequence = empty
            elif len(sequence) - best >= WORTH_PARKING:
                self._park_copy(sequence)
        if reproducible:
            for other in free:
                if other is not sequence:
                    self.park(other)
        kept = _reusable(tokens, sequence.tokens)
        if reproducible:  # with several sequences, the place in the cache could differ, too
            kept = min(kept, sequence.on_grid) // GRID * GRID if len(self.sequences) == 1 else 0
        sequence.cut(kept)
        self._clock += 1
        sequence.used = self._clock
        return sequence

    def make_room(self, tokens: int) -> bool:
        """Park idle sequences until the cache has cells for so many more tokens; whether it has."""
        while sum(map(len, self.sequences)) + tokens > self._context.size:
            idle = [s for s in self.sequences if not s.busy and len(s)]
            if not idle:
                return False
            self.park(min(idle, key=lambda s: s.used))
        return True

    def park(self, sequence: CachedSequence) -> None:
        """Move a sequence out of the cache."""
        if len(sequence) >= WORTH_PARKING:
            self._park_copy(sequence)
        sequence.cut(0)

    def export(self, tokens: Sequence[int]) -> Parked | None:
        """A copy of what is held of `tokens`, and of nothing else; None if that is not worth keeping."""
        sequence = max(self.sequences, key=lambda s: _common(tokens, s.tokens))
        whole = [p for p in self.parked if _common(tokens, p.tokens) == len(p.tokens)]
        parked = max(whole, key=lambda p: len(p.tokens), default=None)
        live = _common(tokens, sequence.tokens)
        if parked is not None and len(parked.tokens) > live:
            return parked
        if live < WORTH_PARKING or sequence.busy:
            return None
        if live == len(sequence):
            return self._copy(sequence)
        return self._copy_of_beginning(sequence, live)

    def adopt(self, parked: Parked) -> bool:
        """Keep what `export` gave, perhaps to another process; whether there is memory for it."""
        return self._keep(parked)

    def _copy(self, sequence: CachedSequence) -> Parked:
        sequence.cut(len(sequence))  # what a broken-off batch left
        data = self._context.save(sequence.number)
        return Parked(list(sequence.tokens), sequence.on_grid, data, sequence.used)

    def _copy_of_beginning(self, sequence: CachedSequence, length: int) -> Parked:
        """Without what follows, which may be of another conversation."""
        all_of_it = self._copy(sequence)
        sequence.cut(length)
        beginning = self._copy(sequence)
        self._put_back(sequence, all_of_it)
        return beginning

    def _put_back(self, sequence: CachedSequence, parked: Parked) -> None:
        sequence.cut(0)
        if self._context.restore(sequence.number, parked.data, len(parked.tokens)):
            sequence.tokens, sequence.on_grid = list(parked.tokens), parked.on_grid

    def _park_copy(self, sequence: CachedSequence) -> None:
        self._keep(self._copy(sequence))

    def _keep(self, parked: Parked) -> bool:
        self.parked = [p for p in self.parked if _common(p.tokens, parked.tokens) < len(p.tokens)]
        if len(parked.data) > self._park_limit:
            return False
        while self.parked and self.parked_bytes + len(parked.data) > self._park_limit:
            self.parked.remove(min(self.parked, key=lambda p: p.used))
        self._clock += 1
        parked.used = self._clock
        self.parked.append(parked)
        return True

    def _unpark(self, parked: Parked, free: list[CachedSequence]) -> CachedSequence:
        sequence = min(free, key=lambda s: (len(s) > 0, s.used))
        self.parked.remove(parked)
        self.park(sequence)
        self.make_room(len(parked.tokens))
        self._put_back(sequence, parked)
        return sequence


def _reusable(tokens: Sequence[int], held: Sequence[int]) -> int:
    return max(min(_common(tokens, held), len(tokens) - 1), 0)


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """Length of the common beginning; by halves, because comparing slices is quick."""
    low, high = 0, min(len(one), len(other))
    if one[:high] == other[:high]:
        return high
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
