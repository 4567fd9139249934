"""Axes of a picture: which part of the numbers is shown, where a number lies, and which ones are written.

Without a unit of its own: places are shares of the axis, 0 at its beginning and 1 at its end.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

_ROOM: Final = 0.06
"""Share of the axis that is left free at either end, so that no point sits on the frame."""
_LEAST: Final = 1e-7
"""The smallest number that a logarithmic axis shows; smaller ones are at its beginning."""


class Axis(NamedTuple):
    """From `low` to `high`; on a `log` axis both are logarithms."""

    low: float
    high: float
    log: bool

    def place(self, value: float) -> float:
        """Where `value` lies, kept within the axis."""
        number = math.log10(max(value, _LEAST)) if self.log else value
        return min(1.0, max(0.0, (number - self.low) / (self.high - self.low)))

    def ticks(self, most: int) -> list[float]:
        """Round numbers on the axis, not more than `most`, the smallest first."""
        found: list[float] = []
        for step in _steps(self):
            found = step
            if len(step) <= most:
                break
        return found[:most]


def linear(values: Sequence[float]) -> Axis:
    """An axis for `values`, at least one."""
    low, high = min(values), max(values)
    room = (high - low) * _ROOM * 2 or max(abs(high) * 0.1, 1e-9)
    # Nothing that is shown can be less than nothing.
    return Axis(max(0.0, low - room) if low >= 0 else low - room, high + room, False)


def logarithmic(values: Sequence[float]) -> Axis:
    """A logarithmic axis for `values`, at least one; those of 0 will lie at its beginning."""
    positive = [value for value in values if value > _LEAST] or [1e-3]
    low, high = math.log10(min(positive)), math.log10(max(positive))
    low -= 0.3 if len(positive) < len(values) else 0.0
    room = max((high - low) * _ROOM, (0.5 - (high - low)) / 2)
    return Axis(low - room, high + room, True)


def _steps(axis: Axis) -> list[list[float]]:
    """Choices of ticks, the closest first."""
    if axis.log:
        closest = [((1, 2, 5), 1), ((1, 3), 1), ((1,), 1), ((1,), 2), ((1,), 4)]
        sets = [_powers(axis, mantissas, every) for mantissas, every in closest]
        return [[one for one in ticks if axis.low <= math.log10(one) <= axis.high] for ticks in sets]
    power = math.floor(math.log10(axis.high - axis.low)) - 1
    widths = [mantissa * 10.0**exponent for exponent in range(power, power + 4) for mantissa in (1, 2, 5)]
    return [
        [width * n for n in range(math.ceil(axis.low / width), math.floor(axis.high / width) + 1)]
        for width in widths
    ]


def _powers(axis: Axis, mantissas: Sequence[int], every: int) -> list[float]:
    powers = range(math.floor(axis.low), math.ceil(axis.high) + 1, every)
    return [float(f"{mantissa}e{power}") for power in powers for mantissa in mantissas]


def label(value: float) -> str:
    """A tick as it is written: "0.005", "120"."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.6g}"
