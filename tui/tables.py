"""A table of Markdown as rows: columns as wide as they need, narrower where the terminal is.

Where there is no room for so many columns, each row becomes a list of its cells.
"""

from __future__ import annotations

from typing import Final

from textual.content import Content

from tui.lines import BLANK, Line, wrapped

SEPARATOR: Final = Content.styled(" │ ", "$border")
NARROWEST: Final = 3
"""Cells that a column has at least, however narrow the terminal is."""

Cells = list[Content]


def table(rows: list[Cells], alignments: list[str], width: int) -> list[Line]:
    """`rows` as lines, the first of them as the header. `alignments`: "left", "right" or "center" each."""
    columns = len(alignments)
    if NARROWEST * columns + len(SEPARATOR) * (columns - 1) > width:
        return _listed(rows, width)
    natural = [max(NARROWEST, *(_widest(row[i]) for row in rows)) for i in range(columns)]
    widths = _fitted(natural, width - len(SEPARATOR) * (columns - 1))
    header = [cell.stylize("bold") for cell in rows[0]]
    rule = Content.styled("─┼─".join("─" * width for width in widths), "$border")
    lines = [*_row(header, widths, alignments), Line(rule, len(rule))]
    for row in rows[1:]:
        lines += _row(row, widths, alignments)
    return lines


def _listed(rows: list[Cells], width: int) -> list[Line]:
    """Each row as lines of "header: value"."""
    header, *rest = rows
    lines = wrapped(SEPARATOR.join(header), width) if not rest else []
    for row in rest:
        lines += [BLANK] if lines else []
        for name, value in zip(header, row, strict=True):
            lines += wrapped(Content.assemble(name.stylize("bold"), ": ", value), width)
    return lines


def _widest(cell: Content) -> int:
    return max(line.cell_length for line in cell.split(allow_blank=True))


def _fitted(natural: list[int], room: int) -> list[int]:
    """Widths that together fill no more than `room`: the widest columns give way first."""
    widths = list(natural)
    surplus = sum(widths) - room
    while surplus > 0 and (widest := max(widths)) > NARROWEST:
        ranked = [i for i, width in enumerate(widths) if width == widest]
        below = max([width for width in widths if width < widest] or [NARROWEST])
        step = max(1, min(widest - below, -(-surplus // len(ranked))))
        for i in ranked:
            taken = min(step, surplus)
            widths[i] -= taken
            surplus -= taken
    return widths


def _row(cells: Cells, widths: list[int], alignments: list[str]) -> list[Line]:
    columns = [wrapped(cell, width) for cell, width in zip(cells, widths, strict=True)]
    lines: list[Line] = []
    for y in range(max(map(len, columns))):
        parts = []
        for column, width, alignment in zip(columns, widths, alignments, strict=True):
            content = column[y].content if y < len(column) else Content("")
            parts.append(_aligned(content, width, alignment))
        lines.append(Line(SEPARATOR.join(parts)))
    return lines


def _aligned(content: Content, width: int, alignment: str) -> Content:
    room = max(width - content.cell_length, 0)
    left = {"left": 0, "right": room, "center": room // 2}[alignment]
    return content.pad(left, room - left)
