"""A drawing of characters, with colours where they are wanted, and the signs that it is made of."""

from __future__ import annotations

import unicodedata
from typing import Final, NamedTuple

from localai.comparison.words import name

STYLES: Final = {"": "", "strong": "\x1b[1;32m", "faint": "\x1b[2m"}
_RESET: Final = "\x1b[0m"


class Signs(NamedTuple):
    """What stands for what. Each is one cell wide, and old: every font of a terminal has them."""

    advised: str = "◆"
    front: str = "●"
    dominated: str = "○"
    path: str = "·"
    across: str = "─"
    upright: str = "│"
    corner: str = "└"
    tick_left: str = "┤"
    tick_below: str = "┬"

    def marker(self, standing: str) -> str:
        """Of a type with that standing (`localai.comparison.front.Standing`)."""
        return {"advised": self.advised, "front": self.front}.get(standing, self.dominated)


PLAIN: Final = Signs("#", "@", "o", ".", "-", "|", "+", "+", "+")
"""ASCII."""


class Canvas:
    """Rows of cells; what lies outside of them is not drawn."""

    def __init__(self, width: int, height: int) -> None:
        self._kept: set[tuple[int, int]] = set()
        self._cells = [[(" ", "")] * width for _ in range(height)]

    def put(self, x: int, y: int, text: str, style: str = "") -> None:
        """Write `text` from the cell `x`, `y` on, counted from the top left."""
        for column, char in enumerate(text, x):
            if 0 <= y < len(self._cells) and 0 <= column < len(self._cells[y]):
                self._cells[y][column] = (char, style)

    def keep(self, x: int, y: int, width: int) -> None:
        """Leave what is blank in so many cells from `x`, `y` on as it is, whatever is put behind it."""
        self._kept |= {(column, y) for column in range(x, x + width)}

    def put_behind(self, x: int, y: int, char: str, style: str = "") -> None:
        """The same for one character, where nothing stands yet."""
        inside = 0 <= y < len(self._cells) and 0 <= x < len(self._cells[y])
        if inside and self._cells[y][x][0] == " " and (x, y) not in self._kept:
            self._cells[y][x] = (char, style)

    def lines(self, *, color: bool) -> list[str]:
        """The rows, without blanks at their ends."""
        return [_colored(row) if color else "".join(char for char, _ in row).rstrip() for row in self._cells]


def _colored(row: list[tuple[str, str]]) -> str:
    text, now = "", ""
    end = max((i for i, (char, _) in enumerate(row, 1) if char != " "), default=0)
    for char, style in row[:end]:
        if style != now and char != " ":
            text += (_RESET if now else "") + STYLES[style]
            now = style
        text += char
    return text + (_RESET if now else "")


def fitting(text: str, *, plain: bool) -> str:
    """A name of which each character takes one cell; what does not becomes a question mark."""
    wide = {"W", "F"}
    return "".join(
        char
        if char.isascii()
        or not (plain or unicodedata.east_asian_width(char) in wide or unicodedata.category(char)[0] == "M")
        else "?"
        for char in name(text)
    )
