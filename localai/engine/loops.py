"""Notice when a reply repeats itself.

Small reasoning models get caught in loops: the same passage again and again until the context is full. The
sign is cheap to keep: nearly every token of the last stretch ends an 8-gram of tokens that has been seen
several times before. That alone would accuse tables, truth tables, lists of moves and rules of dashes, which
are made of few different tokens; so it only starts a closer look, and a loop is one of these:

- the end of the reply is a passage that comes three times in a row, almost token for token, and at least
  `REPEATED` tokens of it are repetition (`REPEATED_PLAIN` where it has few different tokens);
- over a long stretch of many different tokens everything has been seen before: the same sentences come back,
  though in changing order.

It costs about a microsecond a token. Thinking and answer are looked at apart (a detector for each): an answer
may well quote the thinking.
"""

from __future__ import annotations

from operator import ne

import msgspec

GRAM = 8
TIMES = 4
"""An 8-gram that has come so often is a repetition."""
WINDOW, REPEATS = 128, 120
"""What starts a closer look: so many of the last tokens end a repetition."""
LONG_WINDOW, LONG_REPEATS = 512, 480
"""The same for a loop without a period."""
RICH = 32
"""Different tokens in the long window of a loop without a period: prose has more, tables have fewer."""
PLAIN = 12
"""With fewer different tokens than this the window may be a grid, a rule or padding."""
REPEATED, REPEATED_PLAIN = 128, 512
LOOK_EVERY = 31
"""Tokens between two closer looks; a prime, so that they come at different places of a passage."""
GLANCE = 48
"""Tokens compared first, to spend little on a wrong period."""
SHOWN = 64
"""Tokens of the passage that are named where there is no period."""

_TOKEN_BITS = 32
_GRAM_MASK = (1 << _TOKEN_BITS * GRAM) - 1
_LONG_MASK = (1 << LONG_WINDOW) - 1
_WINDOW_MASK = (1 << WINDOW) - 1


class Loop(msgspec.Struct, frozen=True):
    """The passage that repeats, as indices into the tokens that were added: the last time that it came."""

    start: int
    length: int
    times: int
    """How often it has come, at least."""


class LoopDetector:
    """One part of a reply, thinking or answer."""

    def __init__(self) -> None:
        self._tokens: list[int] = []
        self._gram = 0
        """The last 8 tokens, side by side in one number."""
        self._latest: dict[int, int] = {}
        """Where each 8-gram ended last."""
        self._counts: list[int] = []
        """For each token, how often its 8-gram has been seen, this time included."""
        self._repeats = 0
        """One bit for each of the last tokens, the latest lowest: whether it ends a repetition."""
        self._next_look = 0
        self._reported = False

    def add(self, token: int) -> Loop | None:
        """Take the next token. The loop, once, when there is one; None before and ever after."""
        if self._reported:
            return None
        here = len(self._tokens)
        self._tokens.append(token)
        gram = self._gram = (self._gram << _TOKEN_BITS | token) & _GRAM_MASK
        earlier = self._latest.get(gram, -1)
        count = self._counts[earlier] + 1 if earlier >= 0 else 1
        self._latest[gram] = here
        self._counts.append(count)
        if count < TIMES:
            self._repeats = self._repeats << 1 & _LONG_MASK
            return None
        self._repeats = (self._repeats << 1 | 1) & _LONG_MASK
        if here < self._next_look or (self._repeats & _WINDOW_MASK).bit_count() < REPEATS:
            return None
        self._next_look = here + LOOK_EVERY
        loop = self._periodic(here - earlier) or self._wandering()
        self._reported = loop is not None
        return loop

    def _periodic(self, period: int) -> Loop | None:
        """The passage of that length, if the tokens added so far end with it three times or more.

        The period is how long ago the last 8-gram came. Where that is shorter than the passage, because the
        passage repeats within itself, another look at another place will have the right one.
        """
        plain = len(set(self._tokens[-WINDOW:])) < PLAIN
        length = max(REPEATED_PLAIN if plain else REPEATED, 2 * period)
        return self._passage(period, length) if self._repeats_after(period, length) else None

    def _repeats_after(self, period: int, length: int) -> bool:
        """Whether the last `length` tokens are those `period` before them, but for one in 128."""
        tokens = self._tokens
        if len(tokens) < length + period or tokens[-GLANCE:] != tokens[-GLANCE - period : -period]:
            return False
        slips: int = sum(map(ne, tokens[-length:], tokens[-length - period : -period]))
        return slips <= length // 128

    def _passage(self, period: int, length: int) -> Loop:
        """The loop of that period, of which `length` tokens are known to be repetition.

        It is cut where the repetition began, which is where a reader would say that the passage begins.
        """
        tokens = self._tokens
        first = len(tokens) - length
        while first > period and tokens[first - 1] == tokens[first - 1 - period]:
            first -= 1
        passes = (len(tokens) - first) // period
        return Loop(start=first + (passes - 1) * period, length=period, times=passes + 1)

    def _wandering(self) -> Loop | None:
        """A long stretch without a period in which all has been seen before."""
        if self._repeats.bit_count() < LONG_REPEATS or len(set(self._tokens[-LONG_WINDOW:])) < RICH:
            return None
        return Loop(start=len(self._tokens) - SHOWN, length=SHOWN, times=TIMES)
