"""Pictures of a comparison for a terminal: what types lose, against their size, and against their speed.

The loss runs upwards on a logarithmic axis, so the best types are at the bottom. The line of points is the
edge: the least loss for each size, or speed. Bars are two standard errors to both sides, where that is more
than a cell. Types of the same place share a marker.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from itertools import pairwise
from typing import Final, NamedTuple

from localai.comparison import axes, placing
from localai.comparison.axes import Axis
from localai.comparison.canvas import PLAIN, Canvas, Signs, fitting
from localai.comparison.front import Standing
from localai.comparison.pictures import ERRORS, Picture, Point, edge, pictures
from localai.comparison.placing import Box
from localai.comparison.result import Comparison
from localai.comparison.words import HARDLY

_NARROWEST, _WIDEST = 40, 120
_HEIGHT: Final = 14
"""Rows of a picture, without its axis."""
_BETWEEN: Final = 12
"""Columns from one tick to the next, at least."""


def shows(encoding: str | None) -> bool:
    """Whether a text in that encoding can have all signs of a picture."""
    try:
        "".join(Signs()).encode(encoding or "ascii")
    except (LookupError, UnicodeEncodeError):
        return False
    return True


def lines(comparison: Comparison, width: int, *, color: bool = False, plain: bool = False) -> list[str]:
    """Both pictures, one below the other, and what the signs mean; [] if fewer than two types are measured.

    `width` in cells, of which 40 to 120 are used. `plain`: ASCII only. `color`: with SGR sequences.
    """
    width, signs = max(_NARROWEST, min(width, _WIDEST)), PLAIN if plain else Signs()
    found: list[str] = []
    shown = pictures(comparison)
    for picture in shown:
        named = [point._replace(label=fitting(point.label, plain=plain)) for point in picture.points]
        found += [*_drawn(picture._replace(points=named), width, signs, color=color), ""]
    return found + _legend(comparison, width, signs) if shown else []


class _Frame(NamedTuple):
    """Where a picture lies on its canvas, and what is drawn with."""

    canvas: Canvas
    signs: Signs
    across: Axis
    up: Axis
    left: int
    columns: int

    def column(self, value: float) -> int:
        """Of a value on the horizontal axis."""
        return self.left + round(self.across.place(value) * (self.columns - 1))

    def row(self, value: float) -> int:
        """Of a loss."""
        return round((1 - self.up.place(value)) * (_HEIGHT - 1))


def _drawn(picture: Picture, width: int, signs: Signs, *, color: bool) -> list[str]:
    across, up = picture.axes
    ticks = up.ticks(_HEIGHT // 2)
    left = max(len(axes.label(tick)) for tick in [*ticks, 0.0]) + 3
    frame = _Frame(Canvas(width, _HEIGHT + 3), signs, across, up, left, width - left)
    _draw_axes(frame, ticks, picture.unit)
    _draw_points(frame, picture)
    _draw_path(frame, picture)
    if 0 < up.place(HARDLY) < 1:
        for x in range(left + 1, width, 2):
            frame.canvas.put_behind(x, frame.row(HARDLY), "-", "faint")
    return [picture.title, "", *frame.canvas.lines(color=color)]


def _draw_axes(frame: _Frame, ticks: Sequence[float], unit: str) -> None:
    canvas, signs, edge_column = frame.canvas, frame.signs, frame.left - 1
    for y in range(_HEIGHT):
        canvas.put(edge_column, y, signs.upright, "faint")
    for tick in ticks:
        text = f"{axes.label(tick):>{edge_column - 2}} {signs.tick_left}"
        canvas.put(0, frame.row(tick), f" {text}", "faint")
    canvas.put(edge_column, _HEIGHT, signs.corner + signs.across * frame.columns, "faint")
    for tick in frame.across.ticks(frame.columns // _BETWEEN):
        x, text = frame.column(tick), axes.label(tick)
        canvas.put(x, _HEIGHT, signs.tick_below, "faint")
        start = min(x - len(text) // 2, frame.left + frame.columns - len(text))
        canvas.put(start, _HEIGHT + 1, text, "faint")
    canvas.put(frame.left, _HEIGHT + 2, unit, "faint")


def _draw_points(frame: _Frame, picture: Picture) -> None:
    """Markers, and their names where nothing is hidden by them; then bars, behind both."""
    places: dict[tuple[int, int], list[Point]] = {}
    for point in sorted(picture.points, key=lambda one: _ORDER[one.standing]):
        places.setdefault((frame.column(point.x), frame.row(point.y)), []).append(point)
    labels = [", ".join(one.label for one in points) for points in places.values()]
    bars = [_bars(frame, point) for point in picture.points]
    anchors = [
        _around(x, y, [_bars(frame, one)[0] for one in points], frame.columns)
        for (x, y), points in places.items()
    ]
    area = Box(frame.left, 0, frame.left + frame.columns, _HEIGHT)
    taken = [box for both in bars for box in both if not _is_long(box, frame.columns)]
    found = placing.place(anchors, [len(text) for text in labels], 1, area, gap=1, taken=taken)
    for (x, y), points, text, box in zip(places, places.values(), labels, found, strict=True):
        style = _STYLE[points[0].standing]
        frame.canvas.put(x, y, frame.signs.marker(points[0].standing), style)
        if box:
            frame.canvas.keep(round(box.left) - 1, round(box.top), len(text) + 2)
            frame.canvas.put(round(box.left), round(box.top), text, style)
    for point, (flat, upright) in zip(picture.points, bars, strict=True):
        _draw_bar(frame, flat, frame.signs.across, _STYLE[point.standing])
        _draw_bar(frame, upright, frame.signs.upright, _STYLE[point.standing])


def _bars(frame: _Frame, point: Point) -> tuple[Box, Box]:
    """The cells of its bars, the horizontal one first; at least that of its marker."""
    x, y = frame.column(point.x), frame.row(point.y)
    left, right = (frame.column(point.x + step * point.x_error) for step in (-ERRORS, ERRORS))
    bottom, top = (frame.row(point.y + step * point.y_error) for step in (-ERRORS, ERRORS))
    return Box(left, y, right + 1, y + 1), Box(x, top, x + 1, bottom + 1)


def _is_long(bar: Box, columns: int) -> bool:
    """Whether names may stand on it: else those of a busy machine would find no place."""
    return bar.right - bar.left > columns / 6


def _around(x: int, y: int, flat: Sequence[Box], columns: int) -> Box:
    """What the name of a point stands beside: its marker, and the bar through it if that is short."""
    own = [Box(x, y, x + 1, y + 1), *(bar for bar in flat if not _is_long(bar, columns))]
    return Box(min(box.left for box in own), y, max(box.right for box in own), y + 1)


def _draw_bar(frame: _Frame, bar: Box, sign: str, style: str) -> None:
    for x in range(round(bar.left), round(bar.right)):
        for y in range(round(bar.top), round(bar.bottom)):
            frame.canvas.put_behind(x, y, sign, style)


_ORDER: Final[dict[Standing, int]] = {"advised": 0, "front": 1, "dominated": 2}
_STYLE: Final[dict[Standing, str]] = {"advised": "strong", "front": "", "dominated": "faint"}


def _draw_path(frame: _Frame, picture: Picture) -> None:
    cells = [(frame.column(one.x), frame.row(one.y)) for one in edge(picture)]
    for (x, y), (next_x, next_y) in pairwise(cells):
        steps = max(abs(next_x - x), abs(next_y - y) * 2, 1)
        for step in range(1, steps):
            column, row = (round(a + (b - a) * step / steps) for a, b in ((x, next_x), (y, next_y)))
            frame.canvas.put_behind(column, row, frame.signs.path, "faint")


def _legend(comparison: Comparison, width: int, signs: Signs) -> list[str]:
    reference = fitting(comparison.reference, plain=signs is PLAIN)
    said = [
        f"{signs.advised} the one to take" if comparison.advice and comparison.advice.file_type else "",
        f"{signs.front} worth a thought",
        f"{signs.dominated} dominated: another is as good or better in all",
        f"loss: mean KL divergence from {reference}",
        f"- - - below {HARDLY:g} it is hardly noticeable",
        f"{signs.upright} {signs.across} twice the standard error",
        "" if all(row.fits for row in comparison.rows) else "* needs more memory than there is here",
    ]
    found: list[str] = []
    for part in filter(None, said):
        if found and len(found[-1]) + 3 + len(part) <= width:
            found[-1] += f"   {part}"
        else:
            found += textwrap.wrap(part, width)
    return found
