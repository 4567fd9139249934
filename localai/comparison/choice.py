"""Which type to take. A rule of a few lines; its words are in `localai.comparison.advice`.

Of the types whose loss is measured, those count that fit: within the limits, and with the most context for
which anything fits. Of these, those that no other one dominates (`localai.comparison.front`). Of these,

1. if the loss of some is hardly noticeable (`localai.comparison.words.HARDLY`): the most exact of those that
   are quick enough here, for a smaller one would only make quick quicker; if none is quick, the most exact of
   those than which none is clearly faster;
2. else the most exact of all.

What is not quantized at all is taken by 2 only: twice the size is a high price for what nobody notices.
A type that answers clearly fewer questions rightly than another one never counts as hardly noticeable.
Nothing in the rule depends on the order of the rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

from localai.comparison import front
from localai.comparison.front import CLEAR, loss_of
from localai.comparison.result import Row
from localai.comparison.words import is_hardly_noticeable

QUICK: Final = 20.0
"""Tokens per second. A reasoning model thinks for a thousand tokens before it answers: within a minute."""
SMALL: Final = 2_000_000_000
"""Bytes. Each token reads the whole file: where no speed is measured, up to here it counts as quick."""
_WHOLE: Final = ("F32", "BF16", "F16")
"""What is not quantized."""


class Limits(NamedTuple):
    """Bytes."""

    memory: int
    size: float
    given: bool
    """Whether the user has set some."""


class Choice(NamedTuple):
    """What came of it."""

    best: Row | None
    """None: nothing fits."""
    exact: list[Row]
    """Those of which the loss is hardly noticeable, of those that could be taken."""
    fitting: list[Row]
    context: int
    """Tokens of context with which they fit; the least that was asked about if nothing fits."""
    most: int
    """The most tokens of context that were asked about."""


def choose(rows: Sequence[Row], limits: Limits) -> Choice:
    """Which of `rows` to take; each has a loss."""
    fitting, context, most = _fitting(rows, limits)
    choice = front.front(fitting)
    exact = [row for row in choice if _is_exact(row, rows)]
    best = min(
        _quickest(exact) or choice, key=lambda row: (loss_of(row).kl, row.size, row.file_type), default=None
    )
    return Choice(best, exact, fitting, context, most)


def needed(row: Row, context: int) -> int:
    """Bytes of memory that it takes with `context` tokens, or with the most below that are known."""
    below = [tokens for tokens in row.memory if tokens <= context]
    return row.memory[max(below)] if below else min(row.memory.values(), default=row.size)


def _fitting(rows: Sequence[Row], limits: Limits) -> tuple[list[Row], int, int]:
    contexts = sorted({tokens for row in rows for tokens in row.memory}, reverse=True) or [0]
    within = [row for row in rows if row.size <= limits.size]
    for context in contexts:
        if found := [row for row in within if needed(row, context) <= limits.memory]:
            return found, context, contexts[0]
    return [], contexts[-1], contexts[0]


def is_quick(row: Row) -> bool:
    """Whether nobody would wait for it; by its size where its speed was not measured."""
    return row.speed.generate.median >= QUICK if row.speed else row.size <= SMALL


def answers_more(one: Row, other: Row) -> bool:
    """Whether `one` gave clearly more right answers to the same questions, by their binomial errors."""
    mine, theirs = one.answers, other.answers
    if not mine or not theirs or mine.set != theirs.set or not mine.asked or not theirs.asked:
        return False
    # One right and one wrong answer more, so that all right and all wrong have an error, too.
    tries, others = mine.asked + 2, theirs.asked + 2
    share, least = (mine.right + 1) / tries, (theirs.right + 1) / others
    error = math.sqrt(max(0.0, share * (1 - share)) / tries + max(0.0, least * (1 - least)) / others)
    return share - least > CLEAR * error


def _is_exact(row: Row, rows: Sequence[Row]) -> bool:
    return is_hardly_noticeable(loss_of(row)) and not any(answers_more(other, row) for other in rows)


def _quickest(exact: list[Row]) -> list[Row]:
    """Those that are quick enough; else the fastest within the errors; where no speed is known, the smallest.

    Empty if none is quantized.
    """
    exact = [row for row in exact if row.file_type not in _WHOLE]
    if quick := [row for row in exact if is_quick(row)]:
        return quick
    if timed := [row for row in exact if row.speed]:
        return [row for row in timed if not any(front.ahead(other, row).speed > CLEAR for other in timed)]
    return sorted(exact, key=lambda row: (row.size, row.file_type))[:1]
