"""What the pictures of a comparison show, for a terminal and for a page: points, axes, and the edge."""

from __future__ import annotations

from typing import Final, NamedTuple

from localai.comparison import axes, front
from localai.comparison.axes import Axis
from localai.comparison.front import Standing, loss_of
from localai.comparison.result import Comparison, Row

ERRORS: Final = 2.0
"""Standard errors that a bar reaches to either side: there the true value is, nearly always."""


class Point(NamedTuple):
    """A type in a picture."""

    row: Row
    label: str
    standing: Standing
    x: float
    x_error: float
    y: float
    y_error: float


class Picture(NamedTuple):
    """What one shows."""

    title: str
    unit: str
    points: list[Point]
    more_is_better: bool
    """On the horizontal axis."""

    @property
    def axes(self) -> tuple[Axis, Axis]:
        """The horizontal one, and that of the loss."""
        xs = [max(one.x + step, 0.0) for one in self.points for step in (-one.x_error, one.x_error)]
        return axes.linear(xs), axes.logarithmic([one.y for one in self.points])


def pictures(comparison: Comparison) -> list[Picture]:
    """What there is to show: loss against size, and against speed where two types have one."""
    known = front.standings(comparison)
    if len(known) < 2:
        return []
    unit, scale = ("GB", 1e9) if max(row.size for row, _ in known) >= 1e9 else ("MB", 1e6)
    sizes = [_point(row, standing, row.size / scale, 0.0) for row, standing in known]
    speeds = [
        _point(row, standing, row.speed.generate.median, row.speed.generate.stderr)
        for row, standing in known
        if row.speed is not None
    ]
    found = [Picture("Loss against size (best: bottom left)", f"size in {unit}", sizes, False)]
    if len(speeds) > 1:
        title = "Loss against speed (best: bottom right)"
        found.append(Picture(title, "speed of writing in tokens/s", speeds, True))
    return found


def _point(row: Row, standing: Standing, x: float, x_error: float) -> Point:
    loss = loss_of(row)
    label = row.file_type if row.fits else f"{row.file_type}*"
    return Point(row, label, standing, x, x_error, loss.kl, loss.kl_stderr)


def edge(picture: Picture) -> list[Point]:
    """The points that have the least loss for their place on the horizontal axis, in its order."""
    found: list[Point] = []
    for point in sorted(picture.points, key=lambda one: (-one.x if picture.more_is_better else one.x, one.y)):
        if not found or point.y < found[-1].y:
            found.append(point)
    return found
