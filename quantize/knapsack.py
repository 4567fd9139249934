"""One option from each group, so that they cost least together and take no more bytes than there are.

The multiple-choice knapsack problem, for tensors and their types. Its Lagrangian relaxation puts a price on a
byte, and tells how far a choice can be from the best at most. What that rules out is dropped; the rest, a few
groups as a rule, is searched by dynamic programming over states none of which is better in both bytes and
cost.

After Dyer, Riha and Walker, "A hybrid dynamic programming/branch-and-bound algorithm for the multiple-choice
knapsack problem", and Pisinger, "A minimal algorithm for the multiple-choice knapsack problem" (both 1995).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

MOST_STATES: Final = 100_000
"""States that are kept side by side, less where there are many groups (`_MOST_KEPT`). The choice is the best
there is unless more are needed; then it is the best that was found, close to the bound."""

_MOST_KEPT: Final = 10_000_000
"""States of all groups together, which have to be remembered to tell the way to the last: 60 MB."""
_FEW: Final = 1_000
"""States of the first search, which only makes the bound tighter for the second."""
_NOISE: Final = 1e-12
"""Of the costs in sum: what is less is the rounding of the arithmetic."""

_Floats = NDArray[np.float64]
_Ints = NDArray[np.int64]


class Option(NamedTuple):
    """What could be taken from a group."""

    bytes: int
    """Not negative."""
    cost: float
    """Finite."""


class TooSmall(ValueError):
    """Even the smallest options do not fit."""

    def __init__(self, least: int) -> None:
        super().__init__(f"they take {least} bytes at least")
        self.least = least
        """Bytes that they take together."""


def choose(options: Sequence[Sequence[Option]], capacity: int) -> list[int]:
    """The index of an option in each group of `options`: of least cost in sum within `capacity` bytes.

    TooSmall if the smallest of each group take more. ValueError for an empty group, and for an option that is
    not one.
    """
    groups = [_Group.of(group) for group in options]
    least = sum(int(group.bytes[0]) for group in groups)
    if least > capacity:
        raise TooSmall(least)
    if sum(int(group.bytes[-1]) for group in groups) <= capacity:
        return [int(group.index[-1]) for group in groups]
    price, found = _relaxed(groups, capacity)
    for states in (_FEW, max(_FEW, min(MOST_STATES, _MOST_KEPT // len(groups)))):
        found = _Search(groups, capacity, price, found).best(states)
    return [int(group.index[at]) for group, at in zip(groups, found, strict=True)]


@dataclass(frozen=True, slots=True)
class _Group:
    """The options of a group that make sense: each takes more bytes than the one before, and costs less."""

    index: _Ints
    bytes: _Ints
    costs: _Floats

    @classmethod
    def of(cls, options: Sequence[Option]) -> _Group:
        if not options or any(one.bytes < 0 or not math.isfinite(one.cost) for one in options):
            raise ValueError("a group is empty, or an option has no bytes or no cost")
        kept: list[int] = []
        for number in sorted(range(len(options)), key=lambda number: options[number]):
            if not kept or options[number].cost < options[kept[-1]].cost:
                kept.append(number)
        return cls(
            np.array(kept, np.int64),
            np.array([options[number].bytes for number in kept], np.int64),
            np.array([options[number].cost for number in kept], np.float64),
        )

    def steps(self) -> Iterator[tuple[float, int, int, int]]:
        """The lower convex hull: from the smallest on, what each further step saves per byte, and whither."""
        at = 0
        while at < len(self.bytes) - 1:
            saved = (self.costs[at] - self.costs[at + 1 :]) / (self.bytes[at + 1 :] - self.bytes[at])
            step = len(saved) - 1 - int(np.argmax(saved[::-1]))  # the farthest of equals
            after = at + 1 + step
            yield float(saved[step]), at, after, int(self.bytes[after] - self.bytes[at])
            at = after


def _relaxed(groups: Sequence[_Group], capacity: int) -> tuple[float, list[int]]:
    """The price of a byte at which what is worth its price just does not fit, and a choice that fits.

    The best steps first, whichever group they are of; a group whose next step does not fit stays as it is.
    """
    left = capacity - sum(int(group.bytes[0]) for group in groups)
    chosen = [0] * len(groups)
    price = 0.0
    steps = [(*step, number) for number, group in enumerate(groups) for step in group.steps()]
    for saved, at, after, size, number in sorted(steps, key=lambda step: -step[0]):
        if size <= left and chosen[number] == at:
            chosen[number] = after
            left -= size
        elif not price:
            price = saved
    return price, chosen


class _Search:
    """Looks for what is better than `known`, a choice that fits.

    What an option costs is reckoned with its bytes at their price, and compared with the cheapest of its
    group: that is its excess, never negative. A choice costs the bound, the excess of all its options, and
    the price of the bytes that stay unused. So none is better than `known` whose excess alone is more than
    what `known` is above the bound, its slack.
    """

    def __init__(self, groups: Sequence[_Group], capacity: int, price: float, known: list[int]) -> None:
        self._groups, self._capacity, self._price, self._known = groups, capacity, price, known
        priced = [group.costs + price * group.bytes for group in groups]
        lowest = [float(one.min()) for one in priced]
        bound = math.fsum(lowest) - price * capacity
        self._excess = [one - low for one, low in zip(priced, lowest, strict=True)]
        cost = math.fsum(float(group.costs[at]) for group, at in zip(groups, known, strict=True))
        noise = _NOISE * math.fsum(float(abs(group.costs).max()) for group in groups)
        self._slack = cost - bound - noise

    def best(self, most: int) -> list[int]:
        """The best choice there is, or, if that takes more than `most` states, the best that was found."""
        if self._slack <= 0:
            return self._known
        kept = [np.flatnonzero(excess < self._slack) for excess in self._excess]
        if any(not len(one) for one in kept):
            return self._known  # each choice has an option that rules it out
        order = sorted(range(len(kept)), key=lambda number: -self._spread(number, kept[number]))
        states, ways = self._states(order, kept, most)
        unused = self._capacity - states.bytes
        total = states.excess + self._price * unused
        if not len(total) or total.min() >= self._slack:
            return self._known
        return self._way_to(int(np.argmin(total)), order, ways)

    def _spread(self, number: int, kept: _Ints) -> int:
        sizes = self._groups[number].bytes[kept]
        return int(sizes[-1] - sizes[0])

    def _states(
        self, order: list[int], kept: list[_Ints], most: int
    ) -> tuple[_States, list[tuple[NDArray[np.int32], NDArray[np.int16]]]]:
        """What can be reached after the last group, and for each group where its states came from."""
        least = sum(int(self._groups[number].bytes[kept[number][0]]) for number in order)
        largest = sum(int(self._groups[number].bytes[kept[number][-1]]) for number in order)
        states, ways = _States(np.zeros(1, np.int64), np.zeros(1)), []
        for number in order:
            sizes, excess = self._groups[number].bytes[kept[number]], self._excess[number][kept[number]]
            least, largest = least - int(sizes[0]), largest - int(sizes[-1])
            reached = _States(
                (states.bytes[:, None] + sizes).ravel(), (states.excess[:, None] + excess).ravel()
            )
            unused = np.maximum(self._capacity - largest - reached.bytes, 0)
            hopeful = reached.excess + self._price * unused < self._slack
            at = np.flatnonzero(hopeful & (reached.bytes + least <= self._capacity))
            at = at[reached.at(at).undominated(self._price)]
            if len(at) > most:
                at = at[reached.at(at).thinned(most)]
            states = reached.at(at)
            ways.append(((at // len(sizes)).astype(np.int32), kept[number][at % len(sizes)].astype(np.int16)))
        return states, ways

    def _way_to(
        self, state: int, order: list[int], ways: list[tuple[NDArray[np.int32], NDArray[np.int16]]]
    ) -> list[int]:
        chosen = [0] * len(order)
        for number, (before, option) in zip(reversed(order), reversed(ways), strict=True):
            chosen[number] = int(option[state])
            state = int(before[state])
        return chosen


@dataclass(frozen=True, slots=True)
class _States:
    """What was taken from the groups so far, in all the ways that are worth following."""

    bytes: _Ints
    excess: _Floats

    def at(self, where: _Ints) -> _States:
        """Those at `where`."""
        return _States(self.bytes[where], self.excess[where])

    def undominated(self, price: float) -> _Ints:
        """Where the states are that are cheaper than all smaller ones, by bytes."""
        costs = self.excess - price * self.bytes
        order = np.lexsort((costs, self.bytes))
        costs = costs[order]
        lowest = np.minimum.accumulate(costs)
        first = np.ones(len(costs), bool)
        first[1:] = costs[1:] < lowest[:-1]
        return order[first]

    def thinned(self, most: int) -> _Ints:
        """Where the states are of which each is the best among its like; they must be sorted by bytes."""
        span = max(1, int(self.bytes[-1] - self.bytes[0]) + 1)
        like = (self.bytes - self.bytes[0]) * most // span
        order = np.lexsort((self.excess, like))
        first = np.ones(len(order), bool)
        first[1:] = like[order][1:] != like[order][:-1]
        return order[first]
