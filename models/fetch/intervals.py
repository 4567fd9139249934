"""Sets of places in a file."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator


class Intervals:
    """Places from `start` to before `end`, as sorted pieces that do not touch. For one thread at a time."""

    def __init__(self, pieces: Iterable[tuple[int, int]] = ()) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        for start, end in pieces:
            self.add(start, end)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(list(zip(self._starts, self._ends, strict=True)))

    def __bool__(self) -> bool:
        return bool(self._starts)

    @property
    def total(self) -> int:
        """How many places there are."""
        return sum(self._ends) - sum(self._starts)

    def add(self, start: int, end: int) -> None:
        """Put in the places from `start` to before `end`; those that are there stay."""
        if start >= end:
            return
        first, last = bisect_left(self._ends, start), bisect_right(self._starts, end)
        if first < last:
            start, end = min(start, self._starts[first]), max(end, self._ends[last - 1])
        self._starts[first:last], self._ends[first:last] = [start], [end]

    def reach(self, place: int) -> int:
        """The first place from `place` on that is not there."""
        index = bisect_right(self._starts, place) - 1
        return max(place, self._ends[index]) if index >= 0 else place

    def next_start(self, place: int) -> int | None:
        """Where the first piece begins that begins after `place`."""
        index = bisect_right(self._starts, place)
        return self._starts[index] if index < len(self._starts) else None

    def within(self, end: int) -> Intervals:
        """The places before `end`."""
        return Intervals((start, min(stop, end)) for start, stop in self if start < end)
