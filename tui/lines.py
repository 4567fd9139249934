"""Rows of text as a terminal shows them, which know what of them is text and how it goes on below.

Laid out once for a width and then only painted: that is what keeps a long conversation cheap to show.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec
from textual.content import Content
from textual.selection import Selection

NEW_LINE: Final = "\n"


class Line(msgspec.Struct, frozen=True):
    """One row."""

    content: Content
    lead: int = 0
    """Characters at its beginning that are not text: an indent, a bullet, the edge of a quotation."""
    tail: int = 0
    """Characters at its end that are not text: the ground of a block of code."""
    then: str = NEW_LINE
    """What stood in the text between this row and the next: nothing or a space where it was only wrapped."""
    copies: str = ""
    """What a click on the row copies."""


BLANK: Final = Line(Content(""))


def wrapped(text: Content, width: int) -> list[Line]:
    """`text`, which may have several lines, as rows of at most `width` cells, broken between words."""
    return [row for line in text.split(allow_blank=True) for row in _wrapped(line, max(width, 1))]


def _wrapped(line: Content, width: int) -> list[Line]:
    if line.cell_length <= width:
        return [Line(line)]
    lines: list[Line] = []
    plain, at = line.plain, 0
    for row in line.wrap(width):
        if lines:  # the space between two words is on neither row, also where a word filled the first
            row = row[len(row.plain) - len(row.plain.lstrip(" ")) :]
            if not row:
                continue
            begins = plain.index(row.plain, at)
            lines[-1] = Line(lines[-1].content, then=" " if begins > at else "")
            at = begins
        at += len(row.plain)
        lines.append(Line(row))
    return lines


def folded(line: Content, width: int) -> list[Line]:
    """A line of code as rows of at most `width` cells, broken anywhere."""
    if line.cell_length <= width:
        return [Line(line)]
    rows = [Line(row, then="") for row in line.fold(max(width, 2))]
    rows[-1] = Line(rows[-1].content)
    return rows


def indented(lines: Iterable[Line], first: Content, rest: Content) -> list[Line]:
    """The rows behind `first`, and all but the first behind `rest`."""
    result: list[Line] = []
    for line in lines:
        lead = rest if result else first
        result.append(msgspec.structs.replace(line, content=lead + line.content, lead=len(lead) + line.lead))
    return result


def selected(lines: list[Line], selection: Selection) -> str:
    """The text of what is selected: without what is not text, and unwrapped."""
    parts: list[str] = []
    for y, line in enumerate(lines):
        span = selection.get_span(y)
        if span is None or (line.content and line.lead >= len(line.content)):  # nothing of the row is text
            continue
        start, end = span
        last = len(line.content) - line.tail
        text = line.content.plain[max(start, line.lead) : last if end == -1 else min(end, last)]
        parts += [text.rstrip() if line.then == NEW_LINE else text, line.then]
    return "".join(parts[:-1])
