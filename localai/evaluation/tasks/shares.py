"""How sure a share of right answers is, and how two models differ that were asked the same.

The error of a share is half of Wilson's score interval (Journal of the American Statistical Association
22, 1927) for one standard deviation: about the root of p (1 - p) / n, but never 0, for 40 right answers of
40 do not tell that the next one will be right.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Protocol

import msgspec

from localai.evaluation.statistics import Figure


class Judged(Protocol):
    """The answer to one question."""

    @property
    def question(self) -> int:
        """Its number."""

    @property
    def right(self) -> bool:
        """Whether it is right."""


class Paired(msgspec.Struct, frozen=True, kw_only=True):
    """What two models have made of the same questions."""

    both: int
    """Questions that both got right."""
    only: int
    """The model, and not the reference."""
    only_reference: int
    neither: int
    difference: float
    """Of the shares: below 0 the reference is better."""
    difference_stderr: float
    chance: float
    """How probable so much of a difference, or more, is between equals."""


def share(right: int, asked: int) -> Figure:
    """The share of right answers, and its standard error; there must be a question."""
    p = right / asked
    return Figure(p, math.sqrt(p * (1 - p) / asked + 1 / (4 * asked**2)) / (1 + 1 / asked))


def paired(records: Iterable[Judged], reference: Iterable[Judged]) -> Paired | None:
    """Compare on the questions that both were asked; None if there is none.

    The error is that of paired proportions, with half a question more on either side so that it is never 0;
    `chance` is the two-sided sign test on those that they differ in (McNemar's, exact).
    """
    other = {record.question: record.right for record in reference}
    pairs = [(record.right, other[record.question]) for record in records if record.question in other]
    if not pairs:
        return None
    n, only, lost = len(pairs), pairs.count((True, False)), pairs.count((False, True))
    unlike, gain = only + lost + 1, only - lost
    return Paired(
        both=pairs.count((True, True)),
        only=only,
        only_reference=lost,
        neither=pairs.count((False, False)),
        difference=gain / n,
        difference_stderr=math.sqrt(unlike - gain**2 / n) / n,
        chance=_sign_test(only, lost),
    )


def _sign_test(one: int, other: int) -> float:
    count = one + other
    tail = sum(math.comb(count, k) for k in range(min(one, other) + 1))
    return min(1.0, float(2 * tail / 2**count))
