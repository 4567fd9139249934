"""Sets the parts of a formula beside and above each other, with the spaces that make them readable.

A part that needs more than one line, such as a matrix, is a tuple of lines; its middle line (the upper one of
two) stands on the line of what is beside it.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final, Literal

from localai.chat.maths_signs import TALL

Kind = Literal[
    "word",
    "text",
    "op",
    "sign",
    "open",
    "close",
    "punct",
    "bar",
    "slash",
    "func",
    "big",
    "frac",
    "root",
    "group",
]
Lines = tuple[str, ...]

WEAK: Final = "~"
"""A space in the source, which TeX would not print."""

_MAY_BE_SIGN: Final = frozenset("+−±∓")
_BEFORE_SIGN: Final = frozenset({"op", "sign", "open", "punct", "func", "big", "slash"})
_FACTOR: Final = frozenset({"word", "open", "root", "frac", "func", "big", "group"})
_PREFIX: Final = frozenset("∠∡△∇∂∀∃∄¬□Δ")


@dataclass(frozen=True, slots=True)
class Atom:
    """One part. `gap` is the space before it in the source: none, `WEAK`, or spaces that were asked for."""

    text: str
    kind: Kind
    gap: str = ""
    lines: Lines = ()


def width(text: str) -> int:
    """How many columns `text` takes."""
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text
    )


def bracketed(atom: Atom) -> Atom:
    """`atom` in brackets, if what comes beside it would otherwise seem to belong to a part of it."""
    if atom.kind in ("frac", "root"):
        return replace(atom, text=f"({atom.text})", kind="group")
    return atom


def flat(atoms: Sequence[Atom], *, tight: bool = False) -> str:
    """All of it on one line; `tight` for scripts: without spaces around operators."""
    atoms = _with_brackets(_with_signs(atoms))
    pieces = [atom.text for atom in atoms[:1]]
    for before, atom in pairwise(atoms):
        pieces += [_space(before, atom, tight), atom.text]
    return "".join(pieces)


def tall(atoms: Sequence[Atom]) -> Lines:
    """As `flat`, but parts that have lines take them."""
    atoms = _stretched(_with_brackets(_with_signs(atoms)))
    boxes: list[Lines] = []
    for index, atom in enumerate(atoms):
        if index:
            boxes.append((_space(atoms[index - 1], atom, tight=False),))
        boxes.append(atom.lines or (atom.text,))
    return beside(boxes)


def beside(boxes: Sequence[Lines]) -> Lines:
    """The boxes in one row, their middle lines at the same height."""
    above = max((_middle(box) for box in boxes), default=0)
    below = max((len(box) - 1 - _middle(box) for box in boxes), default=0)
    rows = [""] * (above + 1 + below)
    for box in boxes:
        columns = max(map(width, box), default=0)
        for index in range(len(rows)):
            at = index - above + _middle(box)
            line = box[at] if 0 <= at < len(box) else ""
            rows[index] += line + " " * (columns - width(line))
    return tuple(rows)


def grid(cells: Sequence[Sequence[Lines]], align: str, gaps: Sequence[int]) -> Lines:
    """Cells in columns. `align` has l, c or r for each column, `gaps` the spaces before it; both repeat."""
    columns = max((len(row) for row in cells), default=0)
    widths = [
        max((width(line) for row in cells if i < len(row) for line in row[i]), default=0)
        for i in range(columns)
    ]
    lines: list[str] = []
    for row in cells:
        boxes: list[Lines] = []
        for i, cell in enumerate(row):
            if i:
                boxes.append((" " * gaps[(i - 1) % len(gaps)],))
            boxes.append(tuple(_padded(line, widths[i], align[i % len(align)]) for line in cell))
        lines += [line.rstrip() for line in beside(boxes)]
    return tuple(lines)


def fenced(lines: Lines, left: str, right: str) -> Lines:
    """`lines` between brackets of their height."""
    columns = max(map(width, lines), default=0)
    room = " " if left in "{‖" or right in "}‖" else ""
    inner = tuple(
        room * bool(left) + line + " " * (columns - width(line)) + room * bool(right) for line in lines
    )
    return beside([fence(left, len(lines)), inner, fence(right, len(lines))])


def fence(sign: str, height: int) -> Lines:
    """A bracket that is `height` lines tall."""
    if height < 2 or sign not in TALL:
        return (sign,)
    first, between, last, middle = tuple(TALL[sign])
    lines = [first, *[between] * (height - 2), last]
    if height > 2:
        lines[height // 2] = middle
    return tuple(lines)


def _middle(box: Lines) -> int:
    return (len(box) - 1) // 2


def _padded(line: str, columns: int, align: str) -> str:
    room = columns - width(line)
    left = {"l": 0, "r": room}.get(align, room // 2)
    return " " * left + line + " " * (room - left)


def _with_signs(atoms: Sequence[Atom]) -> list[Atom]:
    """A plus or minus that has nothing on its left belongs to what is on its right."""
    result: list[Atom] = []
    bars = 0
    for atom in atoms:
        before = result[-1] if result else None
        starts = before is None or before.kind in _BEFORE_SIGN or (before.kind == "bar" and bars % 2 == 1)
        if atom.kind == "op" and atom.text in _MAY_BE_SIGN and starts:
            atom = replace(atom, kind="sign")
        bars += atom.kind == "bar"
        result.append(atom)
    return result


def _with_brackets(atoms: Sequence[Atom]) -> list[Atom]:
    """Fractions and roots that are a factor get brackets: (1/2)x is not 1/2x."""
    result = list(atoms)
    for index, atom in enumerate(result):
        if atom.kind not in ("frac", "root"):
            continue
        before = result[index - 1] if index else None
        after = result[index + 1] if index + 1 < len(result) else None
        factor = after is not None and (after.kind in _FACTOR or after.kind == "slash")
        if atom.kind == "frac" and before is not None:
            mixed = before.text.isdigit() and atom.text.replace("/", "").isdigit()
            factor |= before.kind in ("word", "close", "group", "slash") and not mixed
        if factor and not (atom.kind == "root" and atom.text.endswith(")")):
            result[index] = bracketed(atom)
    return result


def _stretched(atoms: Sequence[Atom]) -> list[Atom]:
    """Brackets around something tall become as tall."""
    result = list(atoms)
    for index, atom in enumerate(atoms):
        other = index + 1 if atom.kind == "open" else index - 1 if atom.kind == "close" else -1
        if 0 <= other < len(atoms) and atoms[other].lines and not atom.lines:
            result[index] = replace(atom, lines=fence(atom.text, len(atoms[other].lines)))
    return result


def _space(before: Atom, atom: Atom, tight: bool) -> str:
    if before.text.endswith(" ") or atom.text.startswith(" "):
        return ""
    wanted = "" if tight and atom.gap != WEAK else atom.gap.strip(WEAK)
    usual = _usual_space(before, atom, tight)
    return max(wanted, usual, key=len)


def _usual_space(before: Atom, atom: Atom, tight: bool) -> str:
    pair = {before.kind, atom.kind}
    if before.kind in ("sign", "open") or atom.kind in ("close", "punct") or "slash" in pair:
        return ""
    if before.kind == "func" or "text" in pair or "func" in pair:
        return _space_at_word(before, atom)
    if tight:
        return ""
    if "op" in pair or before.kind == "big" or atom.kind == "big":
        return " "
    if before.kind == "punct":
        return " " if atom.gap or not atom.text[:1].isdigit() else ""
    if "bar" in pair:
        return " " if atom.gap else ""
    if atom.lines or before.lines:
        return " "
    if atom.kind == "frac" or (atom.kind == "group" and before.kind == "word"):
        return " "
    return _space_between_words(before, atom)


def _space_at_word(before: Atom, atom: Atom) -> str:
    """Function names and prose: a space, save before brackets and scripts, and where the source has none."""
    if before.kind == "func":
        return "" if atom.kind == "open" else " "
    if atom.kind == "func":
        return " "
    return " " if atom.gap or "op" in (before.kind, atom.kind) else ""


def _space_between_words(before: Atom, atom: Atom) -> str:
    """Single letters are factors, set close; a space that stands beside a longer word is kept."""
    long = any(sum(c.isascii() and c.isalpha() for c in a.text) > 1 for a in (before, atom))
    return " " if atom.gap and long and before.text not in _PREFIX else ""
