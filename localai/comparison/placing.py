"""Where the names of points stand, so that they hide neither each other nor a point.

Works in any unit: a terminal's cells, or a picture's pixels. x runs to the right and y down. A name stands
beside its point, above or below it, and farther away only if all that is taken.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

_FARTHEST: Final = 5
"""Lines of text between a point and its name, at most."""


class Box(NamedTuple):
    """A rectangle."""

    left: float
    top: float
    right: float
    bottom: float

    def overlap(self, other: Box) -> float:
        """The area of what both cover."""
        wide = min(self.right, other.right) - max(self.left, other.left)
        high = min(self.bottom, other.bottom) - max(self.top, other.top)
        return wide * high if wide > 0 and high > 0 else 0.0

    def wider(self, by: float) -> Box:
        """The same with so much more on the left and on the right."""
        return Box(self.left - by, self.top, self.right + by, self.bottom)

    def within(self, area: Box) -> bool:
        """Whether all of it lies in `area`."""
        return (
            self.left >= area.left
            and self.right <= area.right
            and self.top >= area.top
            and self.bottom <= area.bottom
        )


def place(
    points: Sequence[Box],
    widths: Sequence[float],
    height: float,
    area: Box,
    *,
    gap: float,
    taken: Sequence[Box] = (),
) -> list[Box | None]:
    """A place of `widths[i]` times `height` for the name of each of `points`; the first ones choose first.

    None where every place within `area` would hide a point, another name, or what is `taken`.
    """
    found: list[Box | None] = []
    full = list(taken)
    for point, width in zip(points, widths, strict=True):
        # Right beside another point it would be taken for that one's name.
        others = [other.wider(2 * gap) for other in points if other != point]
        free = (
            box
            for box in _choices(point, width, height, gap)
            if box.within(area) and not any(box.overlap(other) for other in [point, *others, *full])
        )
        found.append(box := next(free, None))
        full += [box] if box else []
    return found


def _choices(point: Box, width: float, height: float, gap: float) -> Iterator[Box]:
    """The nearest first."""
    middle, center = (point.top + point.bottom) / 2, (point.left + point.right) / 2
    right, left, over = point.right + gap, point.left - gap - width, center - width / 2
    for line in range(_FARTHEST):
        away = line * height
        tops = [middle - height / 2 - away, middle - height / 2 + away] if line else [middle - height / 2]
        for top in tops:
            yield from (Box(x, top, x + width, top + height) for x in (right, left))
        for top in (point.top - height - away, point.bottom + away):
            yield Box(over, top, over + width, top + height)
