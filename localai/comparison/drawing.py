"""The pictures of a comparison as SVG: drawn here, without scripts, fonts or anything from elsewhere.

All texts are escaped, all numbers are ours. Colours are classes (`localai.comparison.style`), and never the
only sign: what a point stands for is told by its form, its name and its description.
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import Final, NamedTuple

from localai.comparison import axes, placing, words
from localai.comparison.axes import Axis
from localai.comparison.front import Standing, loss_of
from localai.comparison.pictures import ERRORS, Picture, Point, edge
from localai.comparison.placing import Box
from localai.comparison.words import name

WIDTH: Final = 440
HEIGHT: Final = 400
_AREA: Final = Box(52, 34, WIDTH - 14, HEIGHT - 50)
"""Where the points are; around it stand the numbers."""
_RADIUS: Final = 5.5
_LETTER: Final = 8.2
"""Width of a letter of a name, at most, and their height below."""
_LINE: Final = 15.0
_BANDS: Final = (
    (0.0, words.HARDLY, "hardly noticeable"),
    (words.HARDLY, words.AT_TIMES, "noticeable at times"),
    (words.AT_TIMES, words.MUCH, "clearly noticeable"),
    (words.MUCH, float("inf"), "severe"),
)


class _Place(NamedTuple):
    """Of a point, in pixels."""

    x: float
    y: float
    left: float
    right: float
    top: float
    bottom: float

    @property
    def box(self) -> Box:
        """Its marker."""
        return Box(self.x - _RADIUS, self.y - _RADIUS, self.x + _RADIUS, self.y + _RADIUS)


class _Frame(NamedTuple):
    across: Axis
    up: Axis

    def x(self, value: float) -> float:
        return _AREA.left + self.across.place(value) * (_AREA.right - _AREA.left)

    def y(self, value: float) -> float:
        return _AREA.bottom - self.up.place(value) * (_AREA.bottom - _AREA.top)

    def place(self, point: Point) -> _Place:
        x_error, y_error = ERRORS * point.x_error, ERRORS * point.y_error
        return _Place(
            self.x(point.x),
            self.y(point.y),
            self.x(point.x - x_error),
            self.x(point.x + x_error),
            self.y(point.y + y_error),
            self.y(point.y - y_error),
        )


def figure(picture: Picture, number: int, *, left: float = 0, top: float = 0) -> str:
    """One picture as an <svg> of 440 by 400, with its title and what it shows in words, for within a page.

    `number` makes its ids unique in a page; `left` and `top` are for a picture within another one.
    """
    frame = _Frame(*picture.axes)
    places = [frame.place(point) for point in picture.points]
    bands = _bands(frame, [place.box for place in places], [box for one in places for box in _bar_boxes(one)])
    where = f' x="{left:g}" y="{top:g}" width="{WIDTH}" height="{HEIGHT}"' if left or top else ""
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}"{where} role="img" aria-labelledby="t{number} d{number}">',
        f'<title id="t{number}">{escape(picture.title)}</title>',
        f'<desc id="d{number}">{escape(description(picture))}</desc>',
        *(line for band in bands for line in _band(band)),
        *_grid(frame, picture.unit),
        *_path(frame, picture),
        *_bars(picture, places),
        *_points(picture, places),
        *_names(picture, places, [band.box for band in bands if band.box]),
    ]
    return "\n".join([*parts, "</svg>"])


def description(picture: Picture) -> str:
    """The same in words: each type with its place."""
    said = [
        f"{name(one.label)}: {axes.label(float(f'{one.x:.4g}'))}, loss {one.y:.3g}" for one in picture.points
    ]
    return f"{picture.title}. Each type with its {picture.unit}: {'; '.join(said)}."


class _Band(NamedTuple):
    """A range of losses on the axis; `said` stands at `x`, or nowhere if `box` is None."""

    kind: int
    top: float
    bottom: float
    said: str
    x: float
    anchor: str
    box: Box | None


def _bands(frame: _Frame, points: list[Box], bars: list[Box]) -> list[_Band]:
    """How much a loss matters, as far as it is on the axis; its words off the points, and off the bars."""
    found = []
    for kind, (low, high, said) in enumerate(_BANDS):
        top, bottom = frame.y(high) if high < 1e6 else _AREA.top, frame.y(low) if low else _AREA.bottom
        if bottom - top < 1:
            continue
        choices = [(x, anchor, box) for x, anchor, box in _sides(len(said) * 6.4, top) if bottom - top >= 20]
        free = [one for one in choices if not any(one[2].overlap(point) for point in points)]
        free.sort(key=lambda one: any(one[2].overlap(bar) for bar in bars))
        found.append(_Band(kind, top, bottom, said, *(free[0] if free else (0.0, "", None))))
    return found


def _sides(wide: float, top: float) -> Iterator[tuple[float, str, Box]]:
    """Where a text of that width may stand in a band: its x, its anchor, and its box."""
    right, left, middle = _AREA.right - 6, _AREA.left + 6, (_AREA.left + _AREA.right) / 2
    sides = ((right, "end", right - wide), (left, "start", left), (middle, "middle", middle - wide / 2))
    yield from ((x, anchor, Box(start, top + 3, start + wide, top + 19)) for x, anchor, start in sides)


def _band(band: _Band) -> Iterator[str]:
    yield (
        f'<rect class="band b{band.kind}" x="{_AREA.left:g}" y="{band.top:.1f}" '
        f'width="{_AREA.right - _AREA.left:g}" height="{band.bottom - band.top:.1f}"/>'
    )
    if band.box:
        y = band.top + 15
        yield f'<text class="soft" x="{band.x:g}" y="{y:.1f}" text-anchor="{band.anchor}">{band.said}</text>'


def _grid(frame: _Frame, unit: str) -> Iterator[str]:
    left, top, right, bottom = _AREA
    for tick in frame.up.ticks(9):
        y, said = frame.y(tick), axes.label(tick)
        yield f'<path class="grid" d="M{left:g} {y:.1f}H{right:g}"/>'
        yield f'<text class="tick" x="{left - 7:g}" y="{y + 4:.1f}" text-anchor="end">{said}</text>'
    for tick in frame.across.ticks(7):
        x, said = frame.x(tick), axes.label(tick)
        yield f'<path class="grid" d="M{x:.1f} {top:g}V{bottom:g}"/>'
        yield f'<text class="tick" x="{x:.1f}" y="{bottom + 19:g}" text-anchor="middle">{said}</text>'
    yield f'<path class="axis" d="M{left:g} {top:g}V{bottom:g}H{right:g}"/>'
    yield f'<text class="unit" x="{right:g}" y="{bottom + 40:g}" text-anchor="end">{escape(unit)} →</text>'
    yield f'<text class="unit" x="4" y="{top - 15:g}">↑ loss (KL divergence)</text>'


def _path(frame: _Frame, picture: Picture) -> Iterator[str]:
    corners = [f"{frame.x(one.x):.1f} {frame.y(one.y):.1f}" for one in edge(picture)]
    if len(corners) > 1:
        yield f'<path class="edge" d="M{"L".join(corners)}"/>'


def _bars(picture: Picture, places: list[_Place]) -> Iterator[str]:
    """The errors, where a marker does not cover them."""
    for point, one in zip(picture.points, places, strict=True):
        if one.bottom - one.top > 2 * _RADIUS:
            yield (
                f'<path class="bar {point.standing}" d="M{one.x - 3:.1f} {one.top:.1f}h6m-3 0'
                f'V{one.bottom:.1f}m-3 0h6"/>'
            )
        if one.right - one.left > 2 * _RADIUS:
            yield (
                f'<path class="bar {point.standing}" d="M{one.left:.1f} {one.y - 3:.1f}v6m0 -3'
                f'H{one.right:.1f}m0 -3v6"/>'
            )


def _points(picture: Picture, places: list[_Place]) -> Iterator[str]:
    for point, one in zip(picture.points, places, strict=True):
        if point.standing == "advised":
            r = _RADIUS + 2.5
            form = f'<path d="M{one.x:.1f} {one.y - r:.1f}l{r} {r} {-r} {r} {-r} {-r}z"/>'
        else:
            r = _RADIUS if point.standing == "front" else _RADIUS - 1
            form = f'<circle cx="{one.x:.1f}" cy="{one.y:.1f}" r="{r}"/>'
        yield f'<g class="point {point.standing}"><title>{escape(_told(point))}</title>{form}</g>'


def _told(point: Point) -> str:
    """What a pointer over it tells."""
    row, loss = point.row, loss_of(point.row)
    said = [
        f"{name(row.file_type)}: {words.size(row.size)}",
        f"loss {words.with_error(loss.kl, loss.kl_stderr)}",
        f"same next word in {words.places(loss.top1)} places",
    ]
    said += [f"{words.pace(row.speed.generate.median)} tokens/s"] if row.speed else []
    return ", ".join(said)


def _names(picture: Picture, places: list[_Place], texts: list[Box]) -> Iterator[str]:
    """The names, the more important first to choose a place; a line leads to those that stand far off."""
    rank = {"advised": 0, "front": 1, "dominated": 2}
    order = sorted(range(len(places)), key=lambda i: rank[picture.points[i].standing])
    labels = [name(picture.points[i].label) for i in order]
    bars = [box for one in places for box in _bar_boxes(one)]
    markers, widths = [places[i].box for i in order], [len(text) * _LETTER for text in labels]
    boxes = placing.place(markers, widths, _LINE, _AREA, gap=4, taken=[*texts, *bars])
    if None in boxes:  # better on a bar than nowhere
        boxes = placing.place(markers, widths, _LINE, _AREA, gap=4)
    for i, text, box in zip(order, labels, boxes, strict=True):
        if box is not None:
            yield from _name(places[i], box, text, picture.points[i].standing)


def _name(one: _Place, box: Box, text: str, standing: Standing) -> Iterator[str]:
    anchor, x = "middle", one.x
    if box.left >= one.x:
        anchor, x = "start", box.left
    elif box.right <= one.x:
        anchor, x = "end", box.right
    middle = (box.top + box.bottom) / 2
    if abs(middle - one.y) > _LINE * 1.4:
        yield f'<path class="lead" d="M{one.x:.1f} {one.y:.1f}L{x:.1f} {middle:.1f}"/>'
    where = f'x="{x:.1f}" y="{middle + 4:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
    # Below it the same, wider, in the colour of the paper. (Not all that shows SVG knows paint-order.)
    yield f'<text class="halo {standing}" aria-hidden="true" {where}'
    yield f'<text class="name {standing}" {where}'


def _bar_boxes(one: _Place) -> tuple[Box, Box]:
    return Box(one.left, one.y - 2, one.right, one.y + 2), Box(one.x - 2, one.top, one.x + 2, one.bottom)
